"""Decoding while other processes want the same cores, under different ways for the threads of the kernels to wait.

    python -m bench.busy MODEL.gguf [--seconds 2]

Each way is a process of its own, measured alone and beside one and two processes that do nothing but compute. What is
asked is how much of its own speed is left: in proportion it would be a share of the cores, and not a collapse.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from .finding import Finding

RIVALS = (0, 1, 2)
ROUNDS = 2
SECONDS = 2.0
SPIN = "while True: pass"
LEFT = {1: 0.65, 2: 0.4}
"""Of its speed, by the number of rivals, on two cores."""


@dataclass(frozen=True)
class Way:
    """``environment`` is read by libgomp when it is loaded. ``placed``: each thread has a core of its own."""

    name: str
    environment: dict[str, str] = field(default_factory=dict)
    threads: int = 0
    placed: bool = True


OURS = Way("as it is: 20,000 spins")
WAYS = (
    OURS,
    Way("0 spins", {"GOMP_SPINCOUNT": "0"}),
    Way("1,000 spins", {"GOMP_SPINCOUNT": "1000"}),
    Way("10,000 spins", {"GOMP_SPINCOUNT": "10000"}),
    Way("300,000 spins (libgomp's own)", {"GOMP_SPINCOUNT": "300000"}),
    Way("OMP_WAIT_POLICY=passive", {"OMP_WAIT_POLICY": "passive"}),
    Way("OMP_WAIT_POLICY=active", {"OMP_WAIT_POLICY": "active"}),
    Way("20,000 spins, threads not placed", placed=False),
    Way("300,000 spins, threads not placed", {"GOMP_SPINCOUNT": "300000"}, placed=False),
    Way("one thread fewer", threads=-1),
)


def findings(model: Path) -> list[Finding]:
    speeds = measured(model, OURS, SECONDS)
    detail = f"{speeds[0]:.1f} tokens/s alone"
    return [
        Finding(f"decode beside {rivals} busy: of its speed alone", speeds[rivals] / speeds[0], LEFT[rivals], "",
                at_least=True, detail=detail)
        for rivals in LEFT
    ]  # fmt: skip


def measured(model: Path, way: Way, seconds: float) -> dict[int, float]:
    """Tokens a second by the number of rivals: median over rounds."""
    speeds: dict[int, list[float]] = {rivals: [] for rivals in RIVALS}
    with writer(model, way, seconds) as process:
        for _ in range(ROUNDS):
            for rivals in RIVALS:
                with busy(rivals):
                    speeds[rivals].append(told(process))
    return {rivals: median(found) for rivals, found in speeds.items()}


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    rivals = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(count)]
    try:
        time.sleep(0.2 if count else 0)
        yield
    finally:
        for rival in rivals:
            rival.kill()
            rival.wait()


@contextlib.contextmanager
def writer(model: Path, way: Way, seconds: float) -> Iterator[subprocess.Popen[str]]:
    threads = max(1, (os.cpu_count() or 1) + way.threads)
    command = [sys.executable, "-m", "bench.busy", str(model), "--write", str(threads), "--seconds", str(seconds)]
    process = subprocess.Popen(
        [*command, *([] if way.placed else ["--not-placed"])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | way.environment,
    )
    try:
        told(process)  # the first steps touch what no later step has to
        yield process
    finally:
        process.kill()
        process.communicate()


def told(process: subprocess.Popen[str]) -> float:
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the writer has no pipes")
    process.stdin.write("go\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def write(model: Path, threads: int, placed: bool, seconds: float) -> None:
    """The child: tokens a second, for each line of its input. Threads are placed where both counts are the same."""
    from ingle.runtime.engine.engine import Engine
    from ingle.runtime.options import LoadOptions
    from ingle.runtime.request import Request, Sampling

    prefill = threads if placed else threads + 1
    options = LoadOptions(context_length=2048, threads=threads, threads_prefill=prefill, speculate="off")
    engine = Engine(model, options)
    for _ in sys.stdin:
        prompt = tuple(range(300, 316))
        stream = engine.submit(Request(prompt, Sampling(temperature=0), max_tokens=1900, ignore_eos=True))
        tokens, began = 0, 0.0
        for delta in stream:
            began = began or time.perf_counter()
            tokens += len(delta.tokens)
            if time.perf_counter() - began > seconds:
                break
        spent = time.perf_counter() - began
        stream.cancel()
        print((tokens - 1) / spent, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each measurement")
    parser.add_argument("--write", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--not-placed", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.write:
        write(chosen.model, chosen.write, not chosen.not_placed, chosen.seconds)
        return
    print("| way | alone, tokens/s | beside one | beside two |\n| --- | --- | --- | --- |")
    for way in WAYS:
        speeds = measured(chosen.model, way, chosen.seconds)
        shares = " | ".join(f"{speeds[rivals]:.1f} ({speeds[rivals] / speeds[0]:.2f})" for rivals in RIVALS[1:])
        print(f"| {way.name} | {speeds[0]:.1f} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
