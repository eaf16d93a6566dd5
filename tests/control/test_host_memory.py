"""How much of the host's memory we may take, and where ours lies, told by files as kernels write them."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path
from typing import Final

import pytest

from warmspare.control.host_memory import cache_bytes, free_bytes, nodes_of, stay_near

MIB: Final = 2**20
MEMINFO: Final = "MemTotal:       32000000 kB\nMemFree:         1000000 kB\nMemAvailable:    2048000 kB\n"
AVAILABLE: Final = 2048000 * 1024
V1: Final = "sys/fs/cgroup/memory"
V2: Final = "sys/fs/cgroup"


def group(limit: str, used: int, droppable: int = 0, *, v1: bool = False) -> dict[str, str]:
    """A cgroup's files."""
    if v1:
        stat = f"cache 9\ninactive_file 1\ntotal_inactive_file {droppable}\n"
        return {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": f"{used}\n", "memory.stat": stat}
    stat = f"anon 5\ninactive_file {droppable}\nactive_file 7\n"
    return {"memory.max": f"{limit}\n", "memory.current": f"{used}\n", "memory.stat": stat}


def host(root: Path, cgroup: str, *groups: tuple[str, dict[str, str]]) -> Path:
    files = {"proc/meminfo": MEMINFO, "proc/self/cgroup": cgroup}
    files |= {f"{folder}/{name}": text for folder, texts in groups for name, text in texts.items()}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "groups", "free"),
    [
        ("", [], AVAILABLE),
        ("0::/\n", [], AVAILABLE),
        ("0::/a/b\n", [(f"{V2}/a/b", group("max", 5)), (f"{V2}/a", group(f"{900 * MIB}", 200 * MIB))], 700 * MIB),
        ("0::/a/b\n", [(f"{V2}/a/b", group(f"{900 * MIB}", 800 * MIB, 300 * MIB))], 400 * MIB),
        ("0::/../not/shown\n", [(V2, group(f"{900 * MIB}", 800 * MIB))], 100 * MIB),
        ("0::/a\n", [(f"{V2}/a", group(f"{900 * MIB}", 901 * MIB))], 0),
        ("4:memory:/a\n0::/\n", [(f"{V1}/a", group(f"{900 * MIB}", 800 * MIB, 50 * MIB, v1=True))], 150 * MIB),
        ("4:memory:/a\n", [(f"{V1}/a", group("9223372036854771712", 800 * MIB, v1=True))], AVAILABLE),
        ("5:cpu,cpuacct:/a\n1:name=systemd:/a\n", [(f"{V1}/a", group("1", 0, v1=True))], AVAILABLE),
    ],
)
def test_a_cgroup_leaves_what_its_limit_has_over_its_use(
    tmp_path: Path, cgroup: str, groups: list[tuple[str, dict[str, str]]], free: int
) -> None:
    assert free_bytes(host(tmp_path, cgroup, *groups)) == free


def test_a_kernel_that_does_not_say_what_is_available_is_an_error(tmp_path: Path) -> None:
    (host(tmp_path, "") / "proc/meminfo").write_text("MemTotal: 32000000 kB\n")
    with pytest.raises(LookupError):
        free_bytes(tmp_path)


def test_this_machine_has_some_and_no_more_than_it_has() -> None:
    assert 0 < free_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


MAPS: Final = """\
10000000 default file=/usr/bin/x mapped=2 N0=2 kernelpagesize_kB=4
7f0000000000 default file=/dev/zero\\040(deleted) dirty=65536 N0=12 N1=65524 kernelpagesize_kB=4
7f0010000000 bind:0 anon=3 dirty=3 N0=3 kernelpagesize_kB=4
7f0020000000 default file=/dev/nvidiactl
"""


@pytest.mark.parametrize(
    ("pointer", "nodes"),
    [
        (0x7F0000000000, {0: 12, 1: 65524}),
        (0x7F000FFFFFFF, {0: 12, 1: 65524}),
        (0x7F0010000000, {0: 3}),
        (0x7F0020000000, {}),
        (0x100, {}),
    ],
)
def test_the_mapping_that_a_pointer_is_in_tells_its_nodes(tmp_path: Path, pointer: int, nodes: dict[int, int]) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/numa_maps").write_text(MAPS)
    assert nodes_of(pointer, tmp_path) == nodes


def test_a_kernel_without_numa_tells_no_nodes(tmp_path: Path) -> None:
    assert nodes_of(0x7F0000000000, tmp_path) == {}


def test_a_process_goes_to_the_processors_of_a_node_or_stays_where_it_is(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    last = max(before)
    for node, cpus in ((0, f"{last}\n"), (1, "4000-4007,4010\n")):
        (tmp_path / f"sys/devices/system/node/node{node}").mkdir(parents=True)
        (tmp_path / f"sys/devices/system/node/node{node}/cpulist").write_text(cpus)
    try:
        for nodes in ((), (1,), (2,)):
            assert not stay_near(nodes, tmp_path)
            assert os.sched_getaffinity(0) == before
        assert stay_near((0, 1), tmp_path)
        assert os.sched_getaffinity(0) == {last}
    finally:
        os.sched_setaffinity(0, before)


def test_memory_that_was_touched_lies_on_a_node_where_the_kernel_tells() -> None:
    if not Path("/proc/self/numa_maps").exists():
        pytest.skip("a kernel without NUMA")
    region = mmap.mmap(-1, MIB)
    region[:] = b"x" * MIB
    found = nodes_of(ctypes.addressof(ctypes.c_char.from_buffer(region)))
    assert sum(found.values()) * mmap.PAGESIZE >= MIB


def test_the_largest_cache_and_all_of_its_level_are_read(tmp_path: Path) -> None:
    caches = {
        "cpu0": (("1", "32K", "0"), ("2", "1M", "0"), ("3", "98304K", "0-1")),
        "cpu1": (("1", "32K", "1"), ("2", "1M", "1"), ("3", "98304K", "0-1")),
        "cpu2": (("1", "32K", "2"), ("2", "odd", "2"), ("3", "32768K", "2")),
    }
    for cpu, ones in caches.items():
        for n, (level, size, shared) in enumerate(ones):
            folder = tmp_path / f"sys/devices/system/cpu/{cpu}/cache/index{n}"
            folder.mkdir(parents=True)
            for name, text in (("level", level), ("size", size), ("shared_cpu_list", shared)):
                (folder / name).write_text(f"{text}\n")
    assert cache_bytes(tmp_path) == (96 * 2**20, 128 * 2**20)


def test_without_caches_shown_there_are_none(tmp_path: Path) -> None:
    (tmp_path / "sys/devices/system/cpu/cpu0/cache/index0").mkdir(parents=True)
    assert cache_bytes(tmp_path) == (0, 0)
