"""Threads and memory of machines that are only drawn: a folder with their /proc and /sys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ingle.runtime import machine


def draw(
    root: Path,
    cpus: int,
    *,
    smt: bool = False,
    performance: str = "",
    allowed: str = "",
    quota: str = "",
    quota_v1: tuple[int, int] | None = None,
) -> Path:
    """A machine of ``cpus``; with SMT, CPU 2k and 2k+1 share a core (the E-cores of a hybrid machine do not)."""
    system = root / "sys/devices/system/cpu"
    fast = machine._parse_cpu_list(performance) if performance else set(range(cpus))
    write(system / "online", f"0-{cpus - 1}")
    for cpu in range(cpus):
        pair = f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}" if smt and cpu in fast else str(cpu)
        write(system / f"cpu{cpu}/topology/thread_siblings_list", pair)
    if performance:
        write(root / "sys/devices/cpu_core/cpus", performance)
    write(root / "proc/self/status", f"Name:\tx\nCpus_allowed_list:\t{allowed or f'0-{cpus - 1}'}\n")
    write(root / "proc/self/cgroup", "0::/box\n" if quota_v1 is None else "4:cpu:/box\n")
    write(root / "proc/meminfo", "MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n")
    if quota:
        write(root / "sys/fs/cgroup/box/cpu.max", quota)
    if quota_v1:
        write(root / "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", str(quota_v1[0]))
        write(root / "sys/fs/cgroup/cpu/box/cpu.cfs_period_us", str(quota_v1[1]))
    return root


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


@pytest.mark.parametrize(
    ("drawing", "threads"),
    [
        ({"cpus": 2}, 2),
        ({"cpus": 8, "smt": True}, 4),
        ({"cpus": 32, "smt": True, "performance": "0-15"}, 8),
        ({"cpus": 24, "performance": "0-7"}, 8),
        ({"cpus": 48, "quota": "765000 100000"}, 7),
        ({"cpus": 8, "quota": "50000 100000"}, 1),
        ({"cpus": 8, "quota": "max 100000"}, 8),
        ({"cpus": 8, "quota_v1": (300000, 100000)}, 3),
        ({"cpus": 8, "quota_v1": (-1, 100000)}, 8),
        ({"cpus": 64, "allowed": "0-3"}, 4),
        ({"cpus": 16, "smt": True, "allowed": "0-3,8"}, 3),
        ({"cpus": 24, "smt": True, "performance": "0-15", "allowed": "16-23"}, 8),
        ({"cpus": 24, "smt": True, "performance": "0-15", "allowed": "14-23"}, 1),
        ({"cpus": 24, "smt": True, "performance": "0-15", "quota": "350000 100000"}, 3),
        ({"cpus": 32, "smt": True, "allowed": "0-7", "quota": "600000 100000"}, 4),
        ({"cpus": 16, "smt": True, "allowed": "1,3,5,7"}, 4),
    ],
)
def test_threads(tmp_path: Path, drawing: dict[str, object], threads: int) -> None:
    assert machine.thread_count(draw(tmp_path, **drawing)) == threads  # type: ignore[arg-type]


@pytest.mark.parametrize(("own", "parents", "threads"), [("max 100000", "200000 100000", 2), ("300000 100000", "", 3)])
def test_the_quota_of_a_parent_cgroup_counts(tmp_path: Path, own: str, parents: str, threads: int) -> None:
    draw(tmp_path, 8)
    write(tmp_path / "proc/self/cgroup", "0::/slice/box")
    write(tmp_path / "sys/fs/cgroup/slice/box/cpu.max", own)
    if parents:
        write(tmp_path / "sys/fs/cgroup/slice/cpu.max", parents)
    assert machine.thread_count(tmp_path) == threads


def test_the_first_version_mounts_controllers_together(tmp_path: Path) -> None:
    draw(tmp_path, 8)
    write(tmp_path / "proc/self/cgroup", "9:memory:/a\n4:cpu,cpuacct:/box\n0::/")
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us", "500000")
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us", "100000")
    assert machine.thread_count(tmp_path) == 5


def test_a_cpu_that_is_offline_gets_no_thread(tmp_path: Path) -> None:
    draw(tmp_path, 8)
    write(tmp_path / "sys/devices/system/cpu/online", "0-2,6")
    assert machine.thread_count(tmp_path) == 4


def test_slow_arm_cores_do_not_count(tmp_path: Path) -> None:
    draw(tmp_path, 8)
    for cpu in range(8):
        write(tmp_path / f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity", "1024" if cpu < 4 else "400")
    assert machine.thread_count(tmp_path) == 4


def test_memory_is_what_the_system_has(tmp_path: Path) -> None:
    assert machine.available_memory_bytes(draw(tmp_path, 2)) == 8_000_000 * 1024


@pytest.mark.parametrize(
    ("files", "room"),
    [
        ({"memory.max": "1000000", "memory.current": "700000"}, 300_000),
        ({"memory.max": "max", "memory.high": "900000", "memory.current": "700000"}, 200_000),
        ({"memory.max": "max", "memory.high": "max", "memory.current": "700000"}, 8_000_000 * 1024),
        (
            {
                "memory.max": "1000000",
                "memory.current": "700000",
                "memory.stat": "anon 200000\nfile 500000\nshmem 100000\nactive_file 100000\ninactive_file 300000",
            },
            700_000,
        ),
        ({"memory.max": "1000", "memory.current": "2000"}, 0),
    ],
)
def test_memory_is_what_the_cgroup_leaves_and_file_pages_are_free(
    tmp_path: Path, files: dict[str, str], room: int
) -> None:
    draw(tmp_path, 2)
    for name, text in files.items():
        write(tmp_path / "sys/fs/cgroup/box" / name, text)
    assert machine.available_memory_bytes(tmp_path) == room


def test_a_parent_cgroup_and_the_first_version_count_too(tmp_path: Path) -> None:
    draw(tmp_path, 2)
    write(tmp_path / "proc/self/cgroup", "5:memory:/outer/box\n4:cpu,cpuacct:/\n0::/\n")
    memory = tmp_path / "sys/fs/cgroup/memory"
    for folder, limit in ((memory / "outer/box", 2**63 - 4096), (memory / "outer", 1_000_000)):
        write(folder / "memory.limit_in_bytes", str(limit))
        write(folder / "memory.usage_in_bytes", "600000")
        write(folder / "memory.stat", "cache 300000\ntotal_inactive_file 100000\ntotal_active_file 50000")
    assert machine.available_memory_bytes(tmp_path) == 550_000


def test_a_machine_without_proc_or_sys_has_at_least_one_thread(tmp_path: Path) -> None:
    assert machine.thread_count(tmp_path) >= 1


def test_this_machine_has_threads_and_memory() -> None:
    assert machine.thread_count() >= 1
    assert machine.available_memory_bytes() > 1 << 20


@pytest.mark.parametrize(
    ("drawing", "threads", "groups"),
    [
        ({"cpus": 2}, 2, [{0}, {1}]),
        ({"cpus": 8}, 3, [{0, 1}, {2, 3, 4}, {5, 6, 7}]),
        ({"cpus": 8, "smt": True}, 4, [{0, 1}, {2, 3}, {4, 5}, {6, 7}]),
        ({"cpus": 8, "smt": True}, 5, []),
        ({"cpus": 16, "smt": True, "performance": "0-7"}, 2, [{0, 1, 2, 3}, {4, 5, 6, 7}]),
        ({"cpus": 16, "smt": True, "allowed": "0-3,8"}, 3, [{0, 1}, {2, 3}, {8}]),
    ],
)
def test_threads_get_whole_cores_of_their_own(
    tmp_path: Path, drawing: dict[str, Any], threads: int, groups: list[set[int]]
) -> None:
    assert machine.core_groups(threads, draw(tmp_path, **drawing)) == groups
