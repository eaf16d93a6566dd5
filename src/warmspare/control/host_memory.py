"""The host's memory as a process gets it: how much it may take, on which NUMA node it lies, under what caches.

Source: proc_meminfo(5), numa(7), Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

MIB: Final = 2**20
ROOT: Final = Path("/")
NO_LIMIT: Final = 2**60
"""Version 1 has a number near 2^63 for none."""
_SHIFTS: Final = {"K": 10, "M": 20, "G": 30}
_VERSIONS: Final = {
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    "": (".", "memory.max", "memory.current", "inactive_file"),
}
"""By controller: the folder below /sys/fs/cgroup, the files of limit and use, and what of the use can be dropped."""


def free_bytes(root: Path = ROOT) -> int:
    """What this process may still take: what the kernel has available, or less where a cgroup limits us.

    File pages that the kernel can drop at once do not count as used.

    Raises:
        OSError: /proc cannot be read.
        LookupError: the kernel (before 3.14) does not say what is available.
    """
    limit = limit_bytes(root)
    available = available_bytes(root)
    return available if limit is None else min(available, limit)


def available_bytes(root: Path = ROOT) -> int:
    """What the kernel has available, whatever limits us.

    Raises:
        OSError: /proc cannot be read.
        LookupError: the kernel (before 3.14) does not say it.
    """
    return _meminfo("MemAvailable", root)


def total_bytes(root: Path = ROOT) -> int:
    """What the machine has, as of now: a virtual one may be given more when it needs more.

    Raises:
        OSError: /proc cannot be read.
        LookupError: it does not say it.
    """
    return _meminfo("MemTotal", root)


def limit_bytes(root: Path = ROOT) -> int | None:
    """What our control groups leave us; None where none limits us."""
    left = [bytes_left for bytes_left in _left_by_cgroups(root) if bytes_left < NO_LIMIT]
    return max(0, min(left)) if left else None


def _meminfo(name: str, root: Path) -> int:
    text = (root / "proc/meminfo").read_text(encoding="ascii")
    found = re.search(rf"^{name}: +([0-9]+) kB$", text, re.MULTILINE)
    if not found:
        message = f"/proc/meminfo names no {name}"
        raise LookupError(message)
    return int(found[1]) * 1024


def _left_by_cgroups(root: Path) -> Iterator[int]:
    """What each cgroup from ours up to the root leaves us; a container may see only the last of them."""
    for line in (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines():
        _, controllers, path = line.split(":", 2)
        controller = "memory" if "memory" in controllers.split(",") else controllers
        if controller not in _VERSIONS:
            continue
        folder, limit, used, droppable = _VERSIONS[controller]
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            group = (root / "sys/fs/cgroup" / folder).joinpath(*parts[:depth])
            try:
                most, taken = ((group / name).read_text(encoding="ascii").strip() for name in (limit, used))
                stat = (group / "memory.stat").read_text(encoding="ascii")
            except OSError:  # this group is not shown here, or has no memory controller
                continue
            if most.isdigit() and taken.isdigit():
                said = re.search(rf"^{droppable} ([0-9]+)$", stat, re.MULTILINE)
                yield int(most) - int(taken) + (int(said[1]) if said else 0)


def cache_bytes(root: Path = ROOT) -> tuple[int, int]:
    """The largest cache, and all of the caches of that level together; 0 and 0 where the kernel shows none.

    Source: Documentation/ABI/testing/sysfs-devices-system-cpu.
    """
    found: dict[tuple[str, str], int] = {}
    for folder in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cache/index[0-9]*"):
        try:
            size, level, shared = (
                (folder / name).read_text(encoding="ascii").strip() for name in ("size", "level", "shared_cpu_list")
            )
        except OSError:  # a machine that does not describe this one
            continue
        if said := re.fullmatch(r"([0-9]+)([KMG])", size):
            found[level, shared] = int(said[1]) << _SHIFTS[said[2]]
    largest, of = max(((size, level) for (level, _), size in found.items()), default=(0, ""))
    return largest, sum(size for (level, _), size in found.items() if level == of)


def stay_near(nodes: Collection[int], root: Path = ROOT) -> bool:
    """Run this process only on the processors of these NUMA nodes, so that memory it touches first lies there.

    False where that cannot be: the nodes are not shown, or we may use none of their processors.
    """
    try:
        lists = [(root / f"sys/devices/system/node/node{n}/cpulist").read_text(encoding="ascii") for n in nodes]
        near = {cpu for text in lists for cpu in _cpus(text)} & os.sched_getaffinity(0)
        if near:
            os.sched_setaffinity(0, near)
    except OSError:  # no such node here, or a container that may not choose
        return False
    return bool(near)


def _cpus(text: str) -> Iterator[int]:
    for found in re.finditer(r"([0-9]+)(?:-([0-9]+))?", text):
        yield from range(int(found[1]), int(found[2] or found[1]) + 1)


def nodes_of(pointer: int, root: Path = ROOT) -> dict[int, int]:
    """How many pages of the mapping at `pointer` lie on each NUMA node; empty where the kernel does not say.

    It does not for memory that a driver maps as if it were a device's.
    """
    try:
        lines = (root / "proc/self/numa_maps").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:  # a kernel without NUMA, or one that keeps it to itself
        return {}
    ours = ""
    for line in lines:
        if int(line.partition(" ")[0], 16) > pointer:
            break
        ours = line
    return {int(found[1]): int(found[2]) for found in re.finditer(r" N([0-9]+)=([0-9]+)(?= |$)", ours)}
