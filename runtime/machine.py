"""What this machine can do: cores worth a thread, memory worth planning with. Reads /proc, /sys and cgroups.

Every function takes the root of the file system, so that a test can show it any machine.
"""

from __future__ import annotations

import itertools
import os
import platform
from pathlib import Path
from typing import Any

_ROOT = Path("/")


def thread_count(root: Path = _ROOT) -> int:
    """Threads for the kernels: performance cores (one per SMT pair) that this process may use, within its CPU quota.

    Rounds a fractional quota down: a thread over the quota is throttled and the others wait for it at each barrier.
    """
    cores = len(_physical_cores(_performance_cpus(allowed_cpus(root), root), root))
    return max(1, int(min(cores, _cpu_quota(root))))


def core_groups(threads: int, root: Path = _ROOT) -> list[set[int]]:
    """The CPUs of :func:`thread_count`'s cores in ``threads`` disjoint groups of whole cores, as equal as they can be.

    Empty when there are fewer cores than threads.
    """
    allowed = allowed_cpus(root)
    names = _physical_cores(_performance_cpus(allowed, root), root)
    cores = sorted((_parse_cpu_list(name) & allowed for name in names), key=min)
    if threads > len(cores):
        return []
    bounds = [len(cores) * thread // threads for thread in range(threads + 1)]
    return [set().union(*cores[low:high]) for low, high in itertools.pairwise(bounds)]


def available_memory_bytes(root: Path = _ROOT) -> int:
    """Memory that can be had without swapping: what the system has available, within the cgroup's limit."""
    return min(_system_available(root), _cgroup_available(root))


def describe(root: Path = _ROOT) -> dict[str, Any]:
    """The class of this machine, as a figure that was measured on it has to say: nothing that names its owner."""
    kib = _status_field(root / "proc/meminfo", "MemTotal")
    return {
        "cpu": cpu_name(root) or platform.machine(),
        "threads": thread_count(root),
        "memory_bytes": int(kib.split()[0]) * 1024 if kib else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def resident_bytes(root: Path = _ROOT, *, pid: int | None = None) -> int:
    """Of a process, this one unless given; 0 where the system does not say."""
    kib = _status_field(root / "proc" / str(pid or "self") / "status", "VmRSS")
    return int(kib.split()[0]) * 1024 if kib else 0


def cpu_name(root: Path = _ROOT) -> str:
    """As the CPU calls itself; empty where the system does not say."""
    lines = (_text(root / "proc/cpuinfo") or "").splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "")


def allowed_cpus(root: Path = _ROOT) -> set[int]:
    """The CPUs that this process may run on."""
    online = _cpu_list(root / "sys/devices/system/cpu/online")
    if root == _ROOT and hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    allowed = _status_field(root / "proc/self/status", "Cpus_allowed_list")
    cpus = _parse_cpu_list(allowed) if allowed else online
    return cpus & online if online else cpus or set(range(os.cpu_count() or 1))


def _performance_cpus(cpus: set[int], root: Path) -> set[int]:
    """On a hybrid machine the fast kind only: one slow core holds every barrier back."""
    performance = _cpu_list(root / "sys/devices/cpu_core/cpus")
    if performance & cpus:
        return performance & cpus
    capacity = {cpu: _integer(_cpu_folder(cpu, root) / "cpu_capacity") for cpu in cpus}
    known = {cpu: value for cpu, value in capacity.items() if value is not None}
    if not known:
        return cpus
    fastest = max(known.values())
    return {cpu for cpu, value in known.items() if value * 2 > fastest}


def _physical_cores(cpus: set[int], root: Path) -> set[str]:
    """One name per physical core among ``cpus``: the list of its SMT siblings."""
    return {_text(_cpu_folder(cpu, root) / "topology/thread_siblings_list") or str(cpu) for cpu in cpus}


def _cpu_folder(cpu: int, root: Path) -> Path:
    return root / f"sys/devices/system/cpu/cpu{cpu}"


def _cpu_quota(root: Path) -> float:
    """CPUs that the cgroup (v2, then v1) grants; infinite where there is no quota."""
    quotas = [_quota_of(folder) for folder in _cgroup_folders(root)]
    return min(quotas, default=float("inf"))


def _quota_of(folder: Path) -> float:
    fields = (_text(folder / "cpu.max") or "").split()
    if len(fields) == 2 and fields[0] != "max":
        return int(fields[0]) / int(fields[1])
    quota, period = _integer(folder / "cpu.cfs_quota_us"), _integer(folder / "cpu.cfs_period_us")
    if quota is not None and period and quota > 0:
        return quota / period
    return float("inf")


def _cgroup_available(root: Path) -> int:
    rooms = [room for folder in _cgroup_folders(root) if (room := _memory_room(folder)) is not None]
    return min(rooms, default=2**62)


def _memory_room(folder: Path) -> int | None:
    """Bytes left under a cgroup's limits; file pages count as free, since the kernel drops them under pressure."""
    for limit_names, used_name, file_names in (
        (("memory.max", "memory.high"), "memory.current", ("active_file", "inactive_file")),
        (("memory.limit_in_bytes",), "memory.usage_in_bytes", ("total_active_file", "total_inactive_file")),
    ):
        limits = [limit for name in limit_names if (limit := _integer(folder / name)) is not None]
        used = _integer(folder / used_name)
        if limits and used is not None:
            files = sum(_status_bytes(folder / "memory.stat", name) or 0 for name in file_names)
            return max(0, min(limits) - used + min(files, used))
    return None


def _cgroup_folders(root: Path) -> list[Path]:
    """The folders of this process's cgroups and of all their parents."""
    base = root / "sys/fs/cgroup"
    folders = [base, base / "cpu", base / "memory"]
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        mount = base if not controllers else base / controllers
        folder = mount / path.lstrip("/")
        folders += [folder, *(parent for parent in folder.parents if parent.is_relative_to(base))]
    return list(dict.fromkeys(folders))


def _system_available(root: Path) -> int:
    kib = _status_field(root / "proc/meminfo", "MemAvailable")
    if kib:
        return int(kib.split()[0]) * 1024
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return 4 << 30


def _status_field(path: Path, name: str) -> str | None:
    for line in (_text(path) or "").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    return None


def _status_bytes(path: Path, name: str) -> int | None:
    for line in (_text(path) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return None


def _cpu_list(path: Path) -> set[int]:
    return _parse_cpu_list(_text(path) or "")


def _parse_cpu_list(text: str) -> set[int]:
    """``0-3,8`` means {0, 1, 2, 3, 8}."""
    cpus: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return cpus


def _integer(path: Path) -> int | None:
    text = _text(path)
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
