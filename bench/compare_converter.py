"""Compare our converter with llama.cpp's own, tensor by tensor and key by key.

``python bench/compare_converter.py --reference LLAMA_CPP/convert_hf_to_gguf.py CHECKPOINT... [--dtype f32 ...]``

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

# Runs in the child: argv is the script, the pre-tokenizer's name, the checkpoint, then dtype=file for each run.
LAUNCHER = """
import runpy, sys
from pathlib import Path
script, pre, folder, *runs = sys.argv[1:]
root = Path(script).parent
sys.path[:0] = [str(root), str(root / "gguf-py")]
from conversion.base import TextModel
TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
for run in runs:
    dtype, _, out = run.partition("=")
    sys.argv = [script, folder, "--outfile", out, "--outtype", dtype]
    runpy.run_path(script, run_name="__main__")
"""


@dataclass
class Comparison:
    """What differs between the two files of one checkpoint and dtype."""

    identical: int = 0
    tensors: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


def older_config(config: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A config with the keys the reference looks for, and what was added."""
    added: dict[str, Any] = {}
    if config.get("model_type") == "gpt2" and "n_ctx" not in config:
        added["n_ctx"] = config["n_positions"]
    text = config.get("text_config")
    if isinstance(text, dict) and "architectures" not in text:
        added["text_config"] = {**text, "architectures": ["Gemma3ForCausalLM"]}
    return {**config, **added}, sorted(added)


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


def run_reference(script: Path, folder: Path, outs: dict[str, Path], pre: str) -> str:
    """Write a file per dtype with the reference; returns the end of its output when it fails, else an empty text."""
    runs = [f"{dtype}={out}" for dtype, out in outs.items()]
    command = [sys.executable, "-c", LAUNCHER, str(script), pre, str(folder), *runs]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    return "" if done.returncode == 0 else (done.stderr or done.stdout)[-700:]


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


def compare_checkpoint(script: Path, checkpoint: Path, dtypes: list[str], work: Path) -> None:
    copy = shutil.copytree(checkpoint, work / checkpoint.name)
    ours = {dtype: gguf.read(convert(checkpoint, work / f"ours-{dtype}.gguf", dtype).path) for dtype in dtypes}
    some = ours[dtypes[0]]
    for patch in patches(copy, some):
        print(f"  (copy patched for the reference: {patch})")
    theirs = {dtype: work / f"theirs-{dtype}.gguf" for dtype in dtypes}
    if reason := run_reference(script, copy, theirs, str(some.metadata.get("tokenizer.ggml.pre", "default"))):
        print(f"  the reference failed: ...{reason}")
    for dtype, file in theirs.items():
        if file.exists():
            report(dtype, compare(ours[dtype], gguf.read(file)), verbose=dtype == dtypes[0])


def patches(copy: Path, ours: gguf.GGUF) -> Iterator[str]:
    """Change the copy until the reference can read it; says what was changed."""
    config, added = older_config(json.loads((copy / "config.json").read_text()))
    (copy / "config.json").write_text(json.dumps(config))
    if added:
        yield f"config.json got {', '.join(added)}"
    if ours.metadata["tokenizer.ggml.model"] == "llama" and not (copy / "tokenizer.model").exists():
        (copy / "tokenizer.model").write_bytes(sentencepiece_model(ours))
        yield "tokenizer.model made from tokenizer.json"


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
    parser.add_argument("--dtype", nargs="+", default=["f32", "f16", "bf16", "q8_0"])
    options = parser.parse_args()
    for checkpoint in options.checkpoints:
        print(checkpoint.name)
        with tempfile.TemporaryDirectory() as work:
            compare_checkpoint(options.reference, checkpoint, options.dtype, Path(work))


if __name__ == "__main__":
    main()
