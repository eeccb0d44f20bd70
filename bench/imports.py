"""What ``import ingle.runtime`` and ``ingle --help`` cost: best of several fresh interpreters."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

from .finding import Finding
from .peers import INGLE

RUNS = 15
IMPORT = "import time; t = time.perf_counter(); import ingle.runtime; print(time.perf_counter() - t)"
LOADED = "import sys; {}; print(*sorted({{'llama_cpp', 'numpy', 'transformers', 'tokenizers'}} & sys.modules.keys()))"


def findings() -> list[Finding]:
    imported = min(import_seconds() for _ in range(RUNS))
    wall, cpu = zip(*(timed(lambda: run(*INGLE, "--help")) for _ in range(RUNS)), strict=True)
    heavy = run(sys.executable, "-c", LOADED.format("import ingle.runtime")).split()
    return [
        Finding("import ingle.runtime", imported, 0.15, "s", detail=f"best of {RUNS}"),
        Finding("ingle --help", min(wall), 0.3, "s", detail=f"best of {RUNS}, interpreter start included"),
        Finding("ingle --help, CPU", min(cpu), 0.3, "s", detail=f"best of {RUNS}"),
        Finding("heavy libraries after the import", len(heavy), 0, detail=" ".join(heavy)),
    ]


def import_seconds() -> float:
    return float(run(sys.executable, "-c", IMPORT))


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of what ``work`` starts and waits for."""
    wall, before = time.perf_counter(), os.times()
    work()
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - wall, cpu


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
