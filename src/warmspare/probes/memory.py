"""The host's memory: how much, in which pages, on which nodes, and how much processes may share."""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from warmspare.host.port import Host, Missing, Unreadable
from warmspare.model.facts import Cause, Count, Fact
from warmspare.probes.api import probe
from warmspare.probes.pci import none_or_hidden

MM: Final = "/sys/kernel/mm"
NODE_LIMIT: Final = 1024
"""The most NUMA nodes that a Linux kernel can be built for. Source: arch/x86/Kconfig, NODES_SHIFT."""


class HostMemory(Fact, frozen=True, kw_only=True):
    """The memory that the kernel has now. In a VM with a balloon or with memory plugged in on demand it may grow.

    `available_mib` is None on kernels before 3.14. What a cgroup allows is the fact `MemoryLimit`.
    """

    total_mib: Count
    available_mib: Count | None
    swap_mib: Count | None


class HugePagePool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Huge pages of one size that are reserved, whether used or not."""

    size_kib: Count
    pages: Count


class HugePages(Fact, frozen=True, kw_only=True):
    """Transparent huge pages' setting (None: a kernel without), and the reserved pools, one a page size."""

    transparent: Literal["always", "madvise", "never"] | None
    reserved: tuple[HugePagePool, ...]


class NumaNodes(Fact, frozen=True, kw_only=True):
    """The numbers of the NUMA nodes that are online; a kernel without NUMA has node 0."""

    nodes: tuple[Count, ...]


class DevShm(Fact, frozen=True, kw_only=True):
    """The folder /dev/shm, where NCCL's and many engines' processes meet.

    Sizes are None where there is no such folder, and where it has no limit.
    """

    found: bool
    size_mib: Count | None
    free_mib: Count | None


@probe
def host_memory(host: Host) -> HostMemory:
    """Source: proc_meminfo(5)."""
    text = host.read("/proc/meminfo")
    total = _mib(text, "MemTotal")
    if total is None:
        raise Unreadable(Cause.INVALID, "/proc/meminfo names no MemTotal")
    return HostMemory(total_mib=total, available_mib=_mib(text, "MemAvailable"), swap_mib=_mib(text, "SwapTotal"))


@probe
def huge_pages(host: Host) -> HugePages:
    """Source: Documentation/admin-guide/mm/transhuge.rst, hugetlbpage.rst."""
    return HugePages(transparent=_transparent(host), reserved=_pools(host))


@probe
def numa_nodes(host: Host) -> NumaNodes:
    """Source: Documentation/ABI/stable/sysfs-devices-node."""
    try:
        text = host.read("/sys/devices/system/node/online").strip()
    except Missing:
        none_or_hidden(host, "/sys/devices/system/node")
        return NumaNodes(nodes=(0,))
    nodes: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, NODE_LIMIT)
        if not first <= last < NODE_LIMIT:
            raise Unreadable(Cause.INVALID, f"no list of nodes: {text[:60]!a}")
        nodes.update(range(first, last + 1))
    return NumaNodes(nodes=tuple(sorted(nodes)))


@probe
def dev_shm(host: Host) -> DevShm:
    """What is mounted there now: an option of a mount below another one says nothing. Source: statvfs(3)."""
    seen = host.experiment("shared_memory")
    size, free = (None if seen[key] is None else int(seen[key]) // 2**20 for key in ("size", "free"))
    return DevShm(found=seen["found"] is True, size_mib=size, free_mib=free)


def _mib(text: str, name: str) -> int | None:
    found = re.search(rf"^{name}:\s*([0-9]{{1,18}}) kB$", text, re.MULTILINE)
    return int(found[1]) // 1024 if found else None


def _transparent(host: Host) -> Literal["always", "madvise", "never"] | None:
    try:
        text = host.read(f"{MM}/transparent_hugepage/enabled")
    except Missing:
        none_or_hidden(host, MM)
        return None
    settings: tuple[Literal["always", "madvise", "never"], ...] = ("always", "madvise", "never")
    for setting in settings:
        if f"[{setting}]" in text:
            return setting
    raise Unreadable(Cause.INVALID, f"no setting in {text[:40]!a}")


def _pools(host: Host) -> tuple[HugePagePool, ...]:
    try:
        names = host.list(f"{MM}/hugepages")
    except Missing:
        none_or_hidden(host, f"{MM}/hugepages")
        return ()
    sizes = sorted(int(found[1]) for name in names if (found := re.fullmatch(r"hugepages-([0-9]{1,15})kB", name)))
    return tuple(HugePagePool(size_kib=size, pages=_pages(host, size)) for size in sizes)


def _pages(host: Host, size_kib: int) -> int:
    text = host.read(f"{MM}/hugepages/hugepages-{size_kib}kB/nr_hugepages").strip()
    if not re.fullmatch("[0-9]{1,18}", text):
        raise Unreadable(Cause.INVALID, f"no number of pages: {text[:40]!a}")
    return int(text)
