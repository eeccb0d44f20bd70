"""Compare our converter with llama.cpp's own, tensor by tensor and key by key.

``python bench/compare_converter.py --reference LLAMA_CPP/convert_hf_to_gguf.py [--python VENV/bin/python]
CHECKPOINT... [--dtype f32 ...]``

Runs the reference in a child process on a copy of each checkpoint (it needs torch, transformers, sentencepiece and its
own gguf-py, which is taken from beside the script). What the reference cannot take is patched around, in the copy or in
the child only, and printed: configs of transformers 5 get the keys that transformers 4 wrote, and its table of known
tokenizers is answered with the name that our side found; where it insists on a tokenizer.model, one is made.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ingle.convert import convert, gguf

# Runs in the child: argv is the script, the pre-tokenizer's name, the keys that its config is to have besides, the
# checkpoint, then dtype=file for each run. What it patches it prints, one "patched: ..." a line.
LAUNCHER = """
import json, runpy, sys
from pathlib import Path
script, pre, older, folder, *runs = sys.argv[1:]
root = Path(script).parent
sys.path[:0] = [str(root), str(root / "gguf-py")]
import conversion
from conversion.base import ModelBase, ModelType, TextModel
TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
read = ModelBase.load_hparams
ModelBase.load_hparams = staticmethod(lambda *given, **named: {**read(*given, **named), **json.loads(older)})

def ours(self):
    import transformers
    transformers.AutoTokenizer = transformers.PreTrainedTokenizerFast
    for data in self.gguf_writer.kv_data:
        for key in [key for key in data if key.startswith("tokenizer.")]:
            del data[key]
    TextModel._set_vocab_gpt2(self)

def tolerant(own):
    def set_vocab(self):
        try:
            own(self)
            wrong = self.gguf_writer.kv_data[0]["tokenizer.ggml.model"].value != "gpt2" and "it took another kind"
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            print(f"patched: byte-level BPE in place of its own set_vocab ({wrong})", flush=True)
            ours(self)
    return set_vocab

if not (Path(folder) / "tokenizer.model").exists():
    conversion.load_all_models()
    for kind in set(ModelBase._model_classes[ModelType.TEXT].values()):
        if kind.set_vocab is not TextModel.set_vocab:
            kind.set_vocab = tolerant(kind.set_vocab)
        if hasattr(kind, "_is_tokenizer_xlmroberta"):
            kind._is_tokenizer_xlmroberta = lambda self: False
options = ["--no-mtp"] if "qwen3_next" in older or "qwen3_5" in older else []
for run in runs:
    dtype, _, out = run.partition("=")
    sys.argv = [script, folder, "--outfile", out, "--outtype", dtype, *options]
    sys.argv += ["--mmproj"] * out.endswith("-mmproj.gguf")
    runpy.run_path(script, run_name="__main__")
"""
OLDER_NAMES = {"gemma3": {"vision_tower.": "vision_tower.vision_model."}}

# Of models with vision, the class of their language model.
TEXT_CLASSES = {
    "gemma3": "Gemma3ForCausalLM",
    "gemma4": "Gemma4ForConditionalGeneration",
    "idefics3": "LlamaForCausalLM",
    "mistral3": "Mistral3ForConditionalGeneration",
    "qwen3_5": "Qwen3_5ForConditionalGeneration",
    "qwen3_5_moe": "Qwen3_5MoeForConditionalGeneration",
    "smolvlm": "LlamaForCausalLM",
}


@dataclass
class Comparison:
    """What differs between the two files of one checkpoint and dtype."""

    identical: int = 0
    tensors: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


def older_config(config: dict[str, Any]) -> dict[str, Any]:
    """The keys of transformers 4 that the reference looks for, where the config has the same under newer ones."""
    kind, rope = config.get("model_type"), config.get("rope_parameters") or {}
    added: dict[str, Any] = {"model_type": kind}
    if kind == "gpt2" and "n_ctx" not in config:
        added["n_ctx"] = config["n_positions"]
    if kind in ("gpt_neox", "cohere2"):
        added["rotary_pct"] = rope.get("partial_rotary_factor", config.get("rotary_pct", 1.0))
    if kind == "falcon" and config.get("multi_query") and not config.get("new_decoder_architecture"):
        added["num_kv_heads"] = 1
    if kind == "nomic_bert":
        added |= {"n_positions": 8192, "max_trained_positions": 2048, "activation_function": "swiglu"}
        added |= {"rotary_emb_base": rope.get("rope_theta", 1000.0), "rotary_emb_fraction": 1.0}
        added |= dict.fromkeys(("causal", "rotary_emb_interleaved", "qkv_proj_bias", "prenorm"), False)
        added |= dict.fromkeys(("mlp_fc1_bias", "mlp_fc2_bias"), False) | {"rotary_emb_scale_base": None}
    text = config.get("text_config")
    if isinstance(text, dict) and kind == "qwen2_5_vl":  # transformers 4 had all of the language model at the top
        flat = {**text, "architectures": config["architectures"], "rope_scaling": text["rope_parameters"]}
        return {**flat, "model_type": kind, "text_config": flat}
    if isinstance(text, dict) and "architectures" not in text and kind in TEXT_CLASSES:
        added["text_config"] = {**text, "architectures": [TEXT_CLASSES[kind]]}
    return added


def older_names(file: Path, renamed: Mapping[str, str]) -> bool:
    """Rename tensors by the beginnings of their names; whether there was one to rename."""
    if not renamed:
        return False
    data = file.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    for new, old in renamed.items():
        header = {name.replace(new, old, 1) if name.startswith(new) else name: at for name, at in header.items()}
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
    return True


def sentencepiece_model(file: gguf.GGUF) -> bytes:
    """A tokenizer.model with the vocabulary of ``file``: the reference reads SentencePiece from nothing else.

    Protocol buffers by hand: field 1 is a piece (text, score, type), 2 the trainer's settings, 3 the normalizer's.
    """
    metadata: Mapping[str, Any] = file.metadata
    texts, scores, kinds = (metadata[f"tokenizer.ggml.{key}"] for key in ("tokens", "scores", "token_type"))
    parts = []
    for text, score, kind in zip(texts, scores, kinds, strict=True):
        encoded = text.encode()
        piece = (
            b"\x0a" + varint(len(encoded)) + encoded + b"\x15" + np.float32(score).tobytes() + b"\x18" + varint(kind)
        )
        parts.append(b"\x0a" + varint(len(piece)) + piece)
    bpe_with_bytes = b"\x18\x02" + b"\x98\x02\x01"
    prefix = b"\x18" + varint(int(metadata.get("tokenizer.ggml.add_space_prefix", True)))
    return b"".join(parts) + b"\x12" + varint(len(bpe_with_bytes)) + bpe_with_bytes + b"\x1a" + varint(2) + prefix


def varint(number: int) -> bytes:
    number, low = divmod(int(number), 128)
    return bytes([low]) if not number else bytes([low | 128]) + varint(number)


def run_reference(python: str, script: Path, folder: Path, outs: dict[str, Path], pre: str) -> Iterator[str]:
    """Write a file per dtype with the reference; says what was patched, and the end of its output when it fails."""
    runs = [f"{dtype}={out}" for dtype, out in outs.items()]
    older = older_config(json.loads((folder / "config.json").read_text()))
    command = [python, "-c", LAUNCHER, str(script), pre, json.dumps(older), str(folder), *runs]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if added := sorted({*older} - {"model_type"}):
        yield f"patched: config.json got {', '.join(added)}"
    yield from dict.fromkeys(line for line in done.stdout.splitlines() if line.startswith("patched: "))
    if done.returncode:
        yield f"the reference failed: ...{(done.stderr or done.stdout)[-700:]}"


def compare(ours: gguf.GGUF, theirs: gguf.GGUF) -> Comparison:
    result = Comparison()
    for name in sorted({*ours.tensors, *theirs.tensors}):
        if difference := tensor_difference(ours, theirs, name):
            result.tensors.append(f"{name}: {difference}")
        else:
            result.identical += 1
    result.keys = list(key_differences(ours, theirs))
    return result


def tensor_difference(ours: gguf.GGUF, theirs: gguf.GGUF, name: str) -> str:
    if name not in ours.tensors or name not in theirs.tensors:
        return "only ours" if name in ours.tensors else "only theirs"
    mine, other = ours.tensors[name], theirs.tensors[name]
    if (mine.shape, mine.type) != (other.shape, other.type):
        return f"{mine.type.name}{mine.shape} against {other.type.name}{other.shape}"
    left, right = ours.tensor(name), theirs.tensor(name)
    if left.tobytes() == right.tobytes():
        return ""
    changed = int(np.count_nonzero(left != right))
    largest = np.abs(left.astype(np.float64) - right.astype(np.float64)).max() if left.dtype.kind == "f" else "?"
    return f"{changed} of {left.size} values differ, by at most {largest}"


def key_differences(ours: gguf.GGUF, theirs: gguf.GGUF) -> Iterator[str]:
    for key in sorted({*ours.metadata, *theirs.metadata}):
        left, right = ours.metadata.get(key), theirs.metadata.get(key)
        if not same(left, right):
            yield f"{key}: ours {shown(left)} | theirs {shown(right)}"


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return bool(type(left) is type(right) and left.dtype == right.dtype and np.array_equal(left, right))
    return type(left) is type(right) and bool(left == right)


def shown(value: Any) -> str:
    if value is None:
        return "-"
    text = np.array2string(value, threshold=6) if isinstance(value, np.ndarray) else repr(value)
    kind = "" if isinstance(value, str | bool | int | float | list) else f"{value.dtype} "
    return kind + (text if len(text) <= 70 else text[:67] + "...")


def compare_checkpoint(python: str, script: Path, checkpoint: Path, dtypes: list[str], work: Path) -> None:
    copy = shutil.copytree(checkpoint, work / checkpoint.name)
    ours = {dtype: gguf.read(convert(checkpoint, work / f"ours-{dtype}.gguf", dtype).path) for dtype in dtypes}
    some = ours[dtypes[0]]
    kind = json.loads((copy / "config.json").read_text()).get("model_type")
    if older_names(copy / "model.safetensors", OLDER_NAMES.get(str(kind), {})):
        print("  patched: model.safetensors got the names of transformers 4")
    if some.metadata["tokenizer.ggml.model"] == "llama" and not (copy / "tokenizer.model").exists():
        (copy / "tokenizer.model").write_bytes(sentencepiece_model(some))
        print("  patched: tokenizer.model made from tokenizer.json")
    theirs = {dtype: work / f"theirs-{dtype}.gguf" for dtype in dtypes}
    failed = False
    for line in run_reference(python, script, copy, theirs, str(some.metadata.get("tokenizer.ggml.pre", "default"))):
        print(f"  {line}")
        failed = failed or line.startswith("the reference failed")
    for dtype, file in theirs.items():
        if file.exists() and not failed:
            report(dtype, compare(ours[dtype], gguf.read(file)), verbose=dtype == dtypes[0])
    compare_projectors(python, script, copy, [dtype for dtype in dtypes if dtype != "q8_0"], work)


def compare_projectors(python: str, script: Path, copy: Path, dtypes: list[str], work: Path) -> None:
    """The vision part, which neither side quantizes when asked for plain floats."""
    ours = {dtype: work / f"ours-{dtype}-mmproj.gguf" for dtype in dtypes}
    if not ours[dtypes[0]].exists():
        return
    theirs = {dtype: work / f"theirs-{dtype}-mmproj.gguf" for dtype in dtypes}
    for line in run_reference(python, script, copy, theirs, ""):
        print(f"  vision: {line}")
    for dtype, file in theirs.items():
        if file.exists():
            report(f"vision, {dtype}", compare(gguf.read(ours[dtype]), gguf.read(file)), verbose=dtype == dtypes[0])


def report(dtype: str, result: Comparison, *, verbose: bool) -> None:
    print(
        f"  {dtype}: {result.identical} tensors identical, {len(result.tensors)} differ, {len(result.keys)} keys differ"
    )
    for line in result.tensors + (result.keys if verbose else []):
        print(f"      {line}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--reference", required=True, type=Path, help="llama.cpp's convert_hf_to_gguf.py")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of a venv that the reference runs in")
    parser.add_argument("--dtype", nargs="+", default=["f32", "f16", "bf16", "q8_0"])
    options = parser.parse_args()
    for checkpoint in options.checkpoints:
        print(checkpoint.name)
        with tempfile.TemporaryDirectory() as work:
            compare_checkpoint(options.python, options.reference, checkpoint, options.dtype, Path(work))


if __name__ == "__main__":
    main()
