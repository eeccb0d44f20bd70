"""One pass from checkpoint to quantized file, beside llama.cpp's converter and quantizer one after the other.

    python -m bench.onepass FOLDER --reference LLAMA_CPP/convert_hf_to_gguf.py --quantizer BIN/llama-quantize
                            [--python VENV/bin/python] [--type Q8_0 ...] [--rounds 2] [--kills 20]

Writes a random sharded bf16 checkpoint of TinyLlama's shape (1.1 billion weights, 2.2 GB) into FOLDER, once. Every run
is a new process with cold imports and a warm file cache; memory is the sum over the process and its children, sampled,
shared pages counted in each of them; disk is what FOLDER/out holds at most. ``--kills`` kills that many runs of the
first type at moments spread over its work, and counts what the next run makes again.
"""

from __future__ import annotations

import argparse
import hashlib
import mmap
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ingle.quantize.kernels import SLOTS_EACH
from ingle.quantize.native import usable_cpus
from ingle.quantize.onepass import PIECE_WEIGHTS
from ingle.quantize.types import TYPES

from .compare_converter import LAUNCHER
from .convert_speed import write_checkpoint
from .make_model import Shape

TINYLLAMA = Shape("Llama", 2048, 22, 32, 4, 5632, 32000, 2048, 1e4, False, tied=False)
SAMPLE_S = 0.02
OURS = """
import sys
from pathlib import Path
from ingle.quantize import onepass
onepass.convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
"""
TELLING = """
import sys
from pathlib import Path
from ingle.quantize import onepass
def tell(stage, done, total):
    print(stage, done, total, flush=True)
made = onepass.convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], progress=tell)
"""
PROVEN = """
import sys
from ingle.runtime.cli.main import main
sys.argv = ["ingle", "convert", sys.argv[1], "--out", sys.argv[2], "-t", sys.argv[3]]
main()
"""


@dataclass(frozen=True)
class Run:
    """Some processes, one after the other, as they were seen."""

    seconds: float
    peak_bytes: int
    disk_bytes: int


def watched(commands: list[list[str]], folder: Path) -> Run:
    """Run them; every one must end well."""
    peak = disk = 0
    started = time.monotonic()
    for command in commands:
        process = subprocess.Popen(
            command,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        while process.poll() is None:
            peak, disk = max(peak, resident(process.pid)), max(disk, stored(folder))
            time.sleep(SAMPLE_S)
        if process.returncode:
            sys.exit(f"{command}: {(process.stderr.read() if process.stderr else b'').decode()[-700:]}")
    return Run(time.monotonic() - started, peak, disk)


def resident(pid: int) -> int:
    """Bytes of memory that a process and its descendants hold. psutil would read all processes of the machine to find
    them, 50 times a second: a third of a core, taken from those that are measured."""
    total, family = 0, [pid]
    while family:
        process = Path(f"/proc/{family.pop()}")
        try:
            total += int((process / "statm").read_text().split()[1]) * mmap.PAGESIZE
            for thread in (process / "task").iterdir():
                family += map(int, (thread / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
    return total


def stored(folder: Path) -> int:
    """Bytes on the disk in a folder."""
    total = 0
    for path in folder.iterdir():
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def contenders(checkpoint: Path, out: Path, kind: str, options: argparse.Namespace) -> dict[str, list[list[str]]]:
    between, reference = out.with_name("between.gguf"), str(options.reference)
    return {
        "one pass": [[sys.executable, "-c", OURS, str(checkpoint), str(out), kind]],
        "ingle convert -t, with proof": [[sys.executable, "-c", PROVEN, str(checkpoint), str(out), kind]],
        "convert_hf_to_gguf.py, llama-quantize": [
            [options.python, "-c", LAUNCHER, reference, "gpt-2", "{}", str(checkpoint), f"bf16={between}"],
            [str(options.quantizer), str(between), str(out), kind],
        ],
    }


def measure(checkpoint: Path, kind: str, options: argparse.Namespace) -> dict[str, list[Run]]:
    """All contenders in turn, ``rounds`` times."""
    runs: dict[str, list[Run]] = {}
    for _ in range(options.rounds):
        for name, commands in contenders(checkpoint, folder_for_output(checkpoint) / "out.gguf", kind, options).items():
            folder = folder_for_output(checkpoint)
            runs.setdefault(name, []).append(watched(commands, folder))
            sizes[kind] = (folder / "out.gguf").stat().st_size
    return runs


sizes: dict[str, int] = {}


def folder_for_output(checkpoint: Path) -> Path:
    """Empty."""
    folder = checkpoint.parent / "out"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def table(results: dict[str, dict[str, list[Run]]]) -> Iterator[str]:
    """Rows of a Markdown table: medians, and how many times faster than the reference."""
    yield "| type | way | wall | times faster | peak memory | peak disk / output |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for kind, runs in results.items():
        medians = {name: statistics.median(run.seconds for run in each) for name, each in runs.items()}
        reference = list(medians.values())[-1]
        for name, seconds in medians.items():
            peak = max(run.peak_bytes for run in runs[name]) / (1 << 20)
            disk = max(run.disk_bytes for run in runs[name]) / sizes[kind]
            yield f"| {kind} | {name} | {seconds:.1f} s | {reference / seconds:.2f} | {peak:.0f} MiB | {disk:.2f} |"


def kill(checkpoint: Path, kind: str, kills: int) -> Iterator[str]:
    """What each of ``kills`` killed runs cost the next one, in shares of the file."""
    with tempfile.TemporaryDirectory(dir=checkpoint.parent) as temporary:
        out = Path(temporary) / "out.gguf"
        told(checkpoint, out, kind, 2.0)
        want, worst = sha256(out), 0.0
        in_flight = SLOTS_EACH * usable_cpus() * PIECE_WEIGHTS * TYPES[kind].bits / 8
        for number in range(kills):
            out.unlink()
            before = told(checkpoint, out, kind, (number + 0.5) / kills)
            after = told(checkpoint, out, kind, 2.0)
            worst = max(worst, (max(0, before[-1] - after[0]) + in_flight) / after[-1])
            if sha256(out) != want:
                sys.exit(f"kill {number + 1}: the file is another one")
            done, found = before[-1] / after[-1], after[0] / after[-1]
            yield f"kill {number + 1}: {done:.1%} was done, {found:.1%} was found again"
        yield f"{kills} kills of {kind}: the same bytes each time; at most {worst:.2%} made again, in flight included"


def told(checkpoint: Path, out: Path, kind: str, share: float) -> list[int]:
    """The bytes that a run said were done, from its first word on; it is killed when it says ``share`` of all."""
    command = [sys.executable, "-c", TELLING, str(checkpoint), str(out), kind]
    said = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            stage, done, total = line.split()
            if stage == "quantize":
                said.append(int(done))
                if int(done) >= share * int(total):
                    process.kill()
                    break
    return said


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--reference", required=True, type=Path, help="llama.cpp's convert_hf_to_gguf.py")
    parser.add_argument("--quantizer", required=True, type=Path, help="llama.cpp's llama-quantize")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of a venv that the reference runs in")
    parser.add_argument("--type", nargs="+", default=["Q8_0", "Q4_0", "Q4_K_M"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--kills", type=int, default=0)
    chosen = parser.parse_args()
    checkpoint = chosen.folder / "tinyllama"
    if not checkpoint.exists():
        write_checkpoint(checkpoint, TINYLLAMA)
    if chosen.kills:
        for line in kill(checkpoint, chosen.type[0], chosen.kills):
            print(line, flush=True)
        return
    print("\n".join(table({kind: measure(checkpoint, kind, chosen) for kind in chosen.type})))


if __name__ == "__main__":
    main()
