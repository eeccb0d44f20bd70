"""What an engine has done so far, in numbers: the counters of ``EngineStats``."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any


class Counts:
    """seconds: of the last step; cpu_s: of the CPU, over all threads, in it."""

    def __init__(self) -> None:
        self.all: defaultdict[str, Any] = defaultdict(int)
        self.seconds = self.cpu_s = 0.0

    def add(self, **amounts: float) -> None:
        for name, amount in amounts.items():
            self.all[name] += amount

    def step(self, evaluated: int, generated: int, began: tuple[float, float]) -> float:
        """A step ends that began at these :func:`clocks`; returns its seconds."""
        counts, (wall, cpu) = self.all, clocks()
        counts["steps"] += 1
        counts["evaluated_tokens"] += evaluated
        counts["generated_tokens"] += generated
        self.seconds = wall - began[0]
        counts["busy_s"] += self.seconds
        self.cpu_s = cpu - began[1]
        counts["kernel_cpu_s"] += self.cpu_s
        return self.seconds


def clocks() -> tuple[float, float]:
    """Seconds of the wall, and of the CPU over all threads of this process."""
    return time.monotonic(), time.process_time()
