"""How long a conversion takes, and how much memory, beside llama.cpp's own converter.

    python -m bench.convert_speed FOLDER --reference LLAMA_CPP/convert_hf_to_gguf.py [--python VENV/bin/python]
                                  [--dtype bf16 ...] [--rounds 2]

Writes a random sharded bf16 Llama of 861 MB into FOLDER (once), then converts it with both, in turn, each time in a new
process with cold imports and warm file cache. Wall time is that of the process; peak memory is its high-water mark of
resident memory (VmHWM), which for both includes pages of the mapped checkpoint.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import make_model
from .compare_converter import LAUNCHER
from .make_model import Shape

LLAMA = Shape("Llama", 1024, 24, 16, 4, 4096, 64000, 2048, 1e4, False)
SHARD_BYTES = 200_000_000
REPORT = """
import atexit
@atexit.register
def _report():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print("peak_kib", line.split()[1], flush=True)
"""
OURS = """
import sys
from pathlib import Path
from ingle.convert import convert
convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
"""
PROVEN = """
import sys
from ingle.runtime.cli.main import main
sys.argv = ["ingle", "convert", sys.argv[1], "--out", sys.argv[2], "--dtype", sys.argv[3]]
main()
"""


@dataclass(frozen=True)
class Run:
    """One conversion, as its process was seen."""

    seconds: float
    peak_bytes: int


def write_checkpoint(folder: Path, model: Shape = LLAMA) -> None:
    """A sharded bf16 checkpoint; its weights are random, which changes nothing about the work."""
    folder.mkdir(parents=True)
    for name, content in (
        ("config", {**make_model.config(model), "dtype": "bfloat16"}),
        ("tokenizer", make_model.tokenizer(model.vocabulary)),
        ("tokenizer_config", make_model.tokenizer_config()),
        ("generation_config", {"bos_token_id": 0, "eos_token_id": 2}),
    ):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards(model), 1):
        file = f"model-{number:05}.safetensors"
        write_shard(folder / file, shard, number)
        weight_map |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": size_bytes(model)}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def size_bytes(model: Shape) -> int:
    return sum(2 * math.prod(shape) for _, shape in make_model.tensor_shapes(model))


def shards(model: Shape) -> Iterator[dict[str, tuple[int, ...]]]:
    """The tensors, in groups of about ``SHARD_BYTES``."""
    group: dict[str, tuple[int, ...]] = {}
    for name, shape in make_model.tensor_shapes(model):
        group[name] = shape
        if sum(2 * math.prod(size) for size in group.values()) >= SHARD_BYTES:
            yield group
            group = {}
    if group:
        yield group


def write_shard(path: Path, shard: dict[str, tuple[int, ...]], seed: int) -> None:
    random = np.random.default_rng(seed)
    header, end = {}, 0
    for name, shape in shard.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for shape in shard.values():
            values = random.standard_normal(shape, np.float32) * np.float32(0.02)
            out.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())


def run(python: str, code: str, *arguments: str) -> Run:
    """Run ``code`` in a new interpreter."""
    command = [python, "-c", REPORT + code, *arguments]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    seconds = time.monotonic() - started
    if done.returncode:
        sys.exit(f"{arguments}: {done.stderr[-700:]}")
    return Run(seconds, int(done.stdout.rsplit("peak_kib", 1)[1].split()[0]) << 10)


def contenders(checkpoint: Path, out: Path, dtype: str, reference: Path, python: str) -> dict[str, list[str]]:
    return {
        "convert()": [sys.executable, OURS, str(checkpoint), str(out), dtype],
        "ingle convert, with proof": [sys.executable, PROVEN, str(checkpoint), str(out), dtype],
        "convert_hf_to_gguf.py": [python, LAUNCHER, str(reference), "gpt-2", "{}", str(checkpoint), f"{dtype}={out}"],
    }


def measure(checkpoint: Path, dtype: str, reference: Path, rounds: int, python: str) -> dict[str, list[Run]]:
    """Both converters in turn, ``rounds`` times; the output is removed after each run."""
    out = checkpoint.parent / "out.gguf"
    runs: dict[str, list[Run]] = {}
    for _ in range(rounds):
        for name, command in contenders(checkpoint, out, dtype, reference, python).items():
            runs.setdefault(name, []).append(run(*command))
            out.unlink()
    return runs


def table(results: dict[str, dict[str, list[Run]]]) -> Iterator[str]:
    """Rows of a Markdown table: medians, and how many times faster than the reference."""
    yield "| to | converter | wall | peak memory | times faster |"
    yield "| --- | --- | --- | --- | --- |"
    for dtype, runs in results.items():
        medians = {name: statistics.median(run.seconds for run in each) for name, each in runs.items()}
        reference = list(medians.values())[-1]
        for name, seconds in medians.items():
            peak = max(run.peak_bytes for run in runs[name]) / (1 << 20)
            yield f"| {dtype} | {name} | {seconds:.2f} s | {peak:.0f} MiB | {reference / seconds:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--reference", required=True, type=Path, help="llama.cpp's convert_hf_to_gguf.py")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of a venv that the reference runs in")
    parser.add_argument("--dtype", nargs="+", default=["f32", "f16", "bf16", "q8_0"])
    parser.add_argument("--rounds", type=int, default=2)
    chosen = parser.parse_args()
    checkpoint = chosen.folder / "llama"
    if not checkpoint.exists():
        write_checkpoint(checkpoint)
    results = {
        dtype: measure(checkpoint, dtype, chosen.reference, chosen.rounds, chosen.python) for dtype in chosen.dtype
    }
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
