"""What else the machine does while we measure: a block in which others worked is not a measurement."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

MOST_FOREIGN = 0.03
IDLE_WAIT_S = 120.0


@dataclass(frozen=True)
class Reading:
    """CPU seconds since boot: of everything (the hypervisor's theft included), and of our processes."""

    at: float
    all_s: float
    ours_s: float


def read(processes: Iterable[psutil.Process]) -> Reading:
    """``processes`` are our servers; this process and its finished children are ours too."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    trees = [member for process in processes for member in (process, *process.children(recursive=True))]
    ours = sum(member.cpu_times().user + member.cpu_times().system for member in trees)
    own = os.times()
    everything = sum(times[:8]) - idle  # user ... steal; guest time is counted in user already
    return Reading(time.perf_counter(), everything, ours + sum(own[:4]))


def cpu_seconds(process: psutil.Process) -> float:
    """CPU time of a process and its children so far."""
    times = [member.cpu_times() for member in (process, *process.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


def foreign_share(before: Reading, after: Reading) -> float:
    """Share of the machine that others used between two readings."""
    others = (after.all_s - before.all_s) - (after.ours_s - before.ours_s)
    return max(0.0, others / (after.at - before.at) / (os.cpu_count() or 1))


def wait_until_quiet(limit_s: float = IDLE_WAIT_S) -> bool:
    """Wait for half a second in which the whole machine did nearly nothing; False when it never came."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if psutil.cpu_percent(interval=0.5) / 100 <= MOST_FOREIGN:
            return True
    return False


def describe() -> dict[str, str]:
    """The conditions that a figure is worth nothing without."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    flags = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "").split()
    wanted = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if flag in flags]
    return {
        "cpu": names[0] if names else platform.processor(),
        "features": " ".join(wanted),
        "logical cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
    }
