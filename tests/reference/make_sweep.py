"""Write tests/sweep/: for each architecture a tiny config, the tensors transformers saves for it, and its logits.

Needs torch and transformers, and is run by hand when a family is added: ``python tests/reference/make_sweep.py
[name ...]`` with the repository's tests/ on the path. The weights come from tests/sweeping.py; transformers must load
every one of them from a checkpoint with these names, or nothing is written.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import sweeping
import torch
import transformers
from ingle.convert import safetensors
from sweep_models import MODELS, VOCAB, Model

LENGTHS = (6, 40)


def saved(spec: Model, folder: Path) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """The config and the shapes of all tensors, as save_pretrained writes them."""
    kind = getattr(transformers, spec.model)
    config = kind.config_class(**{"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, **spec.config})
    config._attn_implementation = "eager"
    kind(config).save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    tensors = safetensors.read(folder / "model.safetensors")
    return written, {name: list(tensor.shape) for name, tensor in tensors.items()}


def logits(spec: Model, folder: Path) -> list[dict[str, Any]]:
    kind = getattr(transformers, spec.model)
    model, loading = kind.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    wrong = {what: names for what, names in loading.items() if names}
    if wrong:
        raise ValueError(f"{spec.model} does not load from its own names: {wrong}")
    generator = torch.Generator().manual_seed(7)
    prompts = []
    for length in spec.lengths or LENGTHS:
        tokens = torch.randint(8, VOCAB - 8, (1, length), generator=generator)
        with torch.no_grad():
            last = model.eval()(input_ids=tokens, use_cache=False).logits[0, -1]
        values = [float(f"{value:.7g}") for value in last]
        prompts.append({"tokens": tokens[0].tolist(), "context": 256, "logits": values})
    return prompts


def make(name: str, spec: Model) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config, shapes = saved(spec, folder)
        entry = {"model": spec.model, "transformers": transformers.__version__, "config": {**config, **spec.written},
                 "older": spec.older, "centred": spec.centred, "tensors": shapes,
                 **({"beside": spec.beside} if spec.beside else {})}  # fmt: skip
        sweeping.write_checkpoint(folder, entry, config)
        entry["prompts"] = logits(spec, folder)
    path = sweeping.SWEEP / f"{name}.json"
    path.write_text(json.dumps(entry) + "\n")
    print(name, path.stat().st_size, "bytes")  # noqa: T201


if __name__ == "__main__":
    torch.set_num_threads(1)
    for chosen in sys.argv[1:] or MODELS:
        make(chosen, MODELS[chosen])
