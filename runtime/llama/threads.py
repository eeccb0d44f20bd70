"""Where the threads of the kernels run: each on cores of its own.

The kernels meet at a barrier after every node of the graph, hundreds of times a step. Where the system puts two of
them on one core, because another process is busy on the next, the first to arrive spins away the time slice that the
late one needs, and decoding becomes ten times slower. Threads that never share a core lose no more than the share of
it that the other process takes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

_TASKS = Path("/proc/self/task")


class KernelThreads:
    """The calling thread, which computes, and the helpers that libgomp starts for it at its first step.

    cores: for each thread the CPUs that it may use, the caller's first; empty leaves the placing to the system.
    """

    def __init__(self, cores: Sequence[set[int]]) -> None:
        self._cores = list(cores) if sys.platform == "linux" else []
        self._settled = not self._cores
        self._name = f"ingle-{threading.get_native_id()}"
        if self._cores:
            # A thread inherits the name of the one that starts it: that is how the helpers are told from others.
            with contextlib.suppress(OSError):
                (_TASKS / str(threading.get_native_id()) / "comm").write_text(self._name)

    def settle(self) -> None:
        """Put each thread on its cores; to be called after a step, by the thread that computes. Does so once."""
        if self._settled:
            return
        caller = threading.get_native_id()
        helpers = sorted(task for task in _threads_named(self._name) if task != caller)
        if len(helpers) == len(self._cores) - 1:
            for task, cpus in zip([caller, *helpers], self._cores, strict=True):
                _bind(task, cpus)
        self._settled = True

    def use(self, threads: int) -> None:
        """From now on there are so many: helpers end where fewer are needed, and new ones run where the caller does.

        Fewer than the cores are for may run on any of these, so that two engines do not leave each other the same one.
        """
        self._settled = not self._cores
        if self._cores and threads < len(self._cores):
            _bind(threading.get_native_id(), set().union(*self._cores))


def _threads_named(name: str) -> list[int]:
    found = []
    for task in _TASKS.iterdir():
        with contextlib.suppress(OSError):  # it ended in between
            if (task / "comm").read_text().strip() == name:
                found.append(int(task.name))
    return found


def _bind(task: int, cpus: set[int]) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # the CPUs were taken from this process in between
            os.sched_setaffinity(task, cpus)
