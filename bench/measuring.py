"""Time and disk of measuring and of importance matrices, beside llama.cpp's own tools on the same files and text.

    python -m bench.measuring F16.gguf Q4_K_M.gguf --on text.txt --tools FOLDER

FOLDER has llama-perplexity and llama-imatrix. Runs alternate; each figure is the quickest of its runs, with start-up.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

INGLE = (sys.executable, "-c", "from ingle.runtime.cli.main import main; main()")


@dataclass(frozen=True)
class Run:
    """wall and cpu in seconds; disk_bytes: what lay in its folder at its end."""

    wall: float
    cpu: float
    disk_bytes: int


def run(commands: Sequence[Sequence[str]], tools: Path) -> Run:
    """One after another, in a folder of their own that is also the home of ingle."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        environment = {**os.environ, "LD_LIBRARY_PATH": str(tools), "INGLE_HOME": folder}
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        for command in commands:
            subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        disk = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return Run(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, disk)


def contenders(base: Path, model: Path, on: Path, chunks: int, threads: int, tools: Path) -> dict[str, list[list[str]]]:
    theirs = ["-f", str(on), "-c", "512", "--chunks", str(chunks), "-t", str(threads)]
    mine = ["--on", str(on), "--chunks", str(chunks), "--threads", str(threads)]
    perplexity, imatrix = str(tools / "llama-perplexity"), str(tools / "llama-imatrix")
    logits = ["--kl-divergence-base", "logits.bin"]
    found = {
        "ingle measure": [[*INGLE, "measure", str(model), "--against", str(base), *mine]],
        "llama-perplexity": [
            [perplexity, "-m", str(base), *theirs, *logits],
            [perplexity, "-m", str(model), *theirs, *logits, "--kl-divergence"],
        ],
        "ingle imatrix": [[*INGLE, "imatrix", str(base), *mine, "-o", "imatrix.gguf"]],
        "llama-imatrix": [[imatrix, "-m", str(base), *theirs, "-o", "imatrix.gguf"]],
    }
    return {name: commands for name, commands in found.items() if Path(commands[0][0]).exists()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--on", type=Path, required=True)
    parser.add_argument("--tools", type=Path, required=True)
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="+", help="names of the contenders to run")
    options = parser.parse_args(arguments)
    base, model, on, tools = (path.resolve() for path in (options.base, options.model, options.on, options.tools))
    asked = contenders(base, model, on, options.chunks, options.threads, tools)
    runs: dict[str, list[Run]] = {name: [] for name in asked if not options.only or name in options.only}
    for _ in range(options.rounds):
        for name, found in runs.items():
            found.append(run(asked[name], tools))
    print("| | wall | CPU | disk |\n|---|---|---|---|")
    for name, found in runs.items():
        best = min(found, key=lambda one: one.wall)
        print(f"| {name} | {best.wall:.1f} s | {best.cpu:.1f} s | {best.disk_bytes / 1e6:,.2f} MB |")


if __name__ == "__main__":
    main()
