"""Write tests/adapters/: PEFT adapters on the checkpoints of tests/checkpoints/, and what the merged models answer.

Needs torch, transformers and peft, and is run by hand: ``python tests/reference/make_adapters.py [name ...]``. The
tests only read what it wrote. Both halves of each pair are random, so that nothing is accidentally zero.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

TESTS = Path(__file__).parent.parent
ADAPTERS = TESTS / "adapters"
EVERYWHERE = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Spec:
    """An adapter on the checkpoint ``base``. ``bin``: saved as torch.save writes it."""

    base: str
    config: dict[str, Any]
    bin: bool = False


SPECS = {
    "llama": Spec("llama", {"r": 4, "lora_alpha": 8, "target_modules": [*EVERYWHERE, "lm_head", "embed_tokens"]}),
    "qwen2": Spec("qwen2", {
        "r": 3, "lora_alpha": 5, "use_rslora": True, "target_modules": ["q_proj", "k_proj", "v_proj", "down_proj"],
        "rank_pattern": {"k_proj": 2, r"layers\.1\.mlp\.down_proj": 5}, "alpha_pattern": {"1.self_attn.v_proj": 11},
    }),
    "gemma": Spec("gemma", {"r": 4, "lora_alpha": 6, "target_modules": EVERYWHERE}, bin=True),
    "gpt2": Spec("gpt2", {"r": 4, "lora_alpha": 4, "fan_in_fan_out": True, "target_modules": ["c_attn", "c_proj",
                 "c_fc"]}),
    "phi3": Spec("phi3", {"r": 2, "lora_alpha": 4, "target_modules": ["qkv_proj", "gate_up_proj", "down_proj"]}),
}  # fmt: skip


def make(name: str, spec: Spec) -> None:
    torch.manual_seed(11)
    checkpoint, folder = TESTS / "checkpoints" / spec.base, ADAPTERS / name
    kind = getattr(transformers, json.loads((checkpoint / "config.json").read_text())["architectures"][0])
    base = kind.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    model = peft.get_peft_model(base, peft.LoraConfig(**spec.config, task_type="CAUSAL_LM")).eval()
    for part, parameter in model.named_parameters():
        if "lora_" in part:
            gain = 0.1 if kind.__name__.startswith(("Gemma", "GPT2")) else 0.4
            torch.nn.init.normal_(parameter, 0.0, (gain / max(parameter.shape)) ** 0.5)
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = spec.base
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    tensors = load_file(folder / "adapter_model.safetensors")
    if spec.bin:
        (folder / "adapter_model.safetensors").unlink()
        torch.save(tensors, folder / "adapter_model.bin")
    else:
        save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "merged.json").write_text(json.dumps(golden(model.merge_and_unload(), spec)) + "\n")


def golden(merged: Any, spec: Spec) -> dict[str, Any]:
    """Last-token logits of the merged model, computed in f32, for the prompts of its base."""
    prompts = json.loads((TESTS / "golden" / f"{spec.base}.json").read_text())["prompts"][:2]
    for prompt in prompts:
        with torch.no_grad():
            logits = merged(input_ids=torch.tensor([prompt["tokens"]]), use_cache=False).logits[0, -1]
        prompt["logits"] = [float(f"{x:.8g}") for x in logits]
    return {"peft": peft.__version__, "transformers": transformers.__version__, "prompts": prompts}


if __name__ == "__main__":
    for chosen in sys.argv[1:] or SPECS:
        make(chosen, SPECS[chosen])
