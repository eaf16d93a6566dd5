"""What the requirements on the host around the GPUs say, branch by branch."""

from __future__ import annotations

from typing import Final

import pytest
from hand_made import Given, Row, ask, holds, not_shown, table
from msgspec.structs import replace

from warmspare.model.facts import HOST, Fact
from warmspare.probes.gpu import GpuMemory
from warmspare.probes.iommu import AcsRedirect, Iommu, Translation
from warmspare.probes.memory import DevShm, HostMemory, HugePagePool, HugePages, NumaNodes
from warmspare.probes.peers import PairTopology, PeerAccess
from warmspare.probes.platform import Container, Platform
from warmspare.probes.privileges import MemoryLimit
from warmspare.probes.rdma import PeerMemory, PeerModule, RdmaDevice, RdmaDevices
from warmspare.tracks import host_requirements as host

MET, UNMET, UNDECIDED, NOT_HERE = "met", "unmet", "undecided", "not_applicable"
NATIVE: Final = Platform(kind="bare-metal", hypervisor=None, signals=())
GUESTS: Final = tuple(replace(NATIVE, kind=kind) for kind in ("vm", "wsl1", "wsl2", "gvisor"))
OPEN: Final = AcsRedirect(bridges=3, readable=3, redirecting=())
REDIRECTS: Final = AcsRedirect(bridges=3, readable=2, redirecting=("0000:00:01.0",))
PCIE: Final = PairTopology(ancestor="phb", nvlinks=0)
BRIDGED: Final = PairTopology(ancestor="phb", nvlinks=4)
GRANTED: Final = PeerAccess(read="ok", write="ok", nvlink="unsupported", atomics="ok")
REFUSED: Final = PeerAccess(read="gpu", write="gpu", nvlink="unsupported", atomics="gpu")
INSIDE: Final = Container(inside=True, engine="docker", signals=("/.dockerenv",))
OUTSIDE: Final = Container(inside=False, engine=None, signals=())


def iommu(translation: Translation) -> Iommu:
    return Iommu(groups=9, translation=translation, options=())


TRANSLATIONS: Final[tuple[Translation, ...]] = ("off", "translated", "unknown")

BUSES: Final = (
    Row(host.bridges_let_peers_talk, (PCIE, GRANTED, OPEN, NATIVE), MET, None, "(3 bridges)"),
    Row(
        host.bridges_let_peers_talk,
        (PCIE, GRANTED, REDIRECTS, NATIVE),
        UNMET,
        "turn-off-acs",
        "1 PCI bridges above the GPUs",
    ),
    Row(
        host.bridges_let_peers_talk,
        (PCIE, GRANTED, replace(OPEN, readable=1), NATIVE),
        UNDECIDED,
        "run-as-root",
        "2 of 3 PCI bri",
    ),
    *(
        Row(
            host.bridges_let_peers_talk,
            (PCIE, GRANTED, acs, guest),
            NOT_HERE,
            None,
            f"on this kind of machine ({guest.kind})",
        )
        for guest in GUESTS
        for acs in (OPEN, REDIRECTS)
    ),
    Row(host.bridges_let_peers_talk, (BRIDGED, REFUSED, REDIRECTS, NATIVE), MET, None, "NVLink joins them"),
    Row(host.bridges_let_peers_talk, (PCIE, REFUSED, REDIRECTS, NATIVE), NOT_HERE, None, "grants no peer access"),
    Row(host.iommu_lets_peers_talk, (PCIE, REFUSED, iommu("translated"), NATIVE), NOT_HERE, None, "grants no peer"),
    Row(host.iommu_lets_peers_talk, (BRIDGED, REFUSED, iommu("translated"), NATIVE), MET, None, "NVLink joins them"),
    Row(
        host.iommu_lets_peers_talk,
        (PCIE, GRANTED, iommu("off"), NATIVE),
        MET,
        None,
        "does not translate what GPUs send (off)",
    ),
    Row(
        host.iommu_lets_peers_talk,
        (PCIE, GRANTED, iommu("passthrough"), NATIVE),
        MET,
        None,
        "does not translate what GPUs send (pas",
    ),
    Row(
        host.iommu_lets_peers_talk,
        (PCIE, GRANTED, iommu("translated"), NATIVE),
        UNMET,
        "iommu-passthrough",
        "may be slow or get lost",
    ),
    Row(
        host.iommu_lets_peers_talk,
        (PCIE, GRANTED, iommu("unknown"), NATIVE),
        UNDECIDED,
        "iommu-passthrough",
        "nothing says whether",
    ),
    *(
        Row(
            host.iommu_lets_peers_talk,
            (PCIE, GRANTED, iommu(way), guest),
            NOT_HERE,
            None,
            f"on this kind of machine ({guest.kind})",
        )
        for guest in GUESTS
        for way in TRANSLATIONS
    ),
)


LIMITLESS: Final = MemoryLimit(limit_mib=None, path=None)
LIMITED: Final = MemoryLimit(limit_mib=899, path="/sys/fs/cgroup/memory.max")
POOLS: Final = (HugePagePool(size_kib=2048, pages=512), HugePagePool(size_kib=1048576, pages=2))


def of_gpu(total_mib: int | None) -> GpuMemory:
    return GpuMemory(total_mib=total_mib, used_mib=total_mib and 0, free_mib=total_mib, reserved_mib=None)


def shm(size_mib: int | None, *, found: bool = True) -> DevShm:
    return DevShm(found=found, size_mib=size_mib, free_mib=size_mib)


def memory(available_mib: int | None) -> HostMemory:
    return HostMemory(total_mib=1000, available_mib=available_mib, swap_mib=0)


MEMORY: Final = (
    Row(host.shared_memory_is_roomy, (shm(256), INSIDE), MET, None, "has room: 256 MiB"),
    Row(host.shared_memory_is_roomy, (shm(255), INSIDE), UNMET, "more-shared-memory", "has only 255 MiB"),
    Row(host.shared_memory_is_roomy, (shm(64), OUTSIDE), UNMET, "mount-shared-memory", "only 64 MiB"),
    Row(host.shared_memory_is_roomy, (shm(None), INSIDE), MET, None, "has no limit of its own"),
    Row(host.shared_memory_is_roomy, (shm(None, found=False), INSIDE), UNMET, "more-shared-memory", "there is no shar"),
    Row(host.host_memory_holds_the_gpu, (memory(900), LIMITLESS, of_gpu(900)), MET, None, "we may use, 900 MiB, holds"),
    Row(
        host.host_memory_holds_the_gpu, (memory(900), LIMITLESS, of_gpu(901)), UNMET, "more-host-memory", "900 MiB, is"
    ),
    Row(host.host_memory_holds_the_gpu, (memory(900), LIMITED, of_gpu(900)), UNMET, "more-host-memory", "use, 899 MiB"),
    Row(host.host_memory_holds_the_gpu, (memory(None), LIMITLESS, of_gpu(9)), UNDECIDED, None, "does not say how much"),
    Row(host.host_memory_holds_the_gpu, (memory(1), LIMITLESS, of_gpu(None)), NOT_HERE, None, "uses the host's memory"),
    Row(host.huge_pages_are_on, (HugePages(transparent="madvise", reserved=()),), MET, None, "huge pages: madvise"),
    Row(
        host.huge_pages_are_on,
        (HugePages(transparent="always", reserved=POOLS),),
        MET,
        None,
        "reserved huge pages: 3072",
    ),
    Row(host.huge_pages_are_on, (HugePages(transparent="never", reserved=()),), UNMET, "turn-on-huge-pages", "are off"),
    Row(host.huge_pages_are_on, (HugePages(transparent=None, reserved=()),), NOT_HERE, None, "has no transparent"),
    Row(host.numa_is_known, (NumaNodes(nodes=(0,)),), MET, None, "one NUMA node"),
    Row(host.numa_is_known, (NumaNodes(nodes=(0, 1)),), MET, None, "2 NUMA nodes: keep an engine"),
)

NO_CARD: Final = RdmaDevices(devices=(), files=0)
CARDS: Final = RdmaDevices(
    devices=tuple(RdmaDevice(name=name, node_type="CA", ports=()) for name in ("mlx5_0", "mlx5_1")), files=1
)


def peer(*modules: PeerModule, dma_buf: bool) -> PeerMemory:
    return PeerMemory(modules=modules, dma_buf_kernel=dma_buf)


RDMA: Final = (
    Row(host.rdma_is_known, (NO_CARD,), NOT_HERE, None, "no RDMA device"),
    Row(host.rdma_is_known, (CARDS,), MET, None, "RDMA devices: mlx5_0, mlx5_1; device files here: 1"),
    Row(host.gpudirect_is_possible, (peer(dma_buf=True), NO_CARD), NOT_HERE, None, "no RDMA device"),
    Row(host.gpudirect_is_possible, (peer(dma_buf=True), CARDS), MET, None, "can reach GPU memory: dma-buf"),
    Row(
        host.gpudirect_is_possible, (peer("nvidia_peermem", dma_buf=False), CARDS), MET, None,
        "can reach GPU memory: nvidia_peermem",
    ),
    Row(
        host.gpudirect_is_possible, (peer("nv_peer_mem", dma_buf=True), CARDS), MET, None,
        "can reach GPU memory: nv_peer_mem, dma-buf",
    ),
    Row(host.gpudirect_is_possible, (peer(dma_buf=False), CARDS), UNMET, "load-peermem", "cannot reach GPU memory"),
)  # fmt: skip
ROWS: Final = (*BUSES, *MEMORY, *RDMA)


@table(*ROWS)
def test_what_is_said(row: Row) -> None:
    assert holds(row)


def test_every_requirement_and_each_of_its_remedies_is_shown() -> None:
    assert not_shown(ROWS, host) == {}


@pytest.mark.parametrize("row", ROWS)
def test_what_cannot_be_read_leaves_it_undecided(row: Row) -> None:
    for lost in row.facts:
        assert isinstance(lost, Fact)
        facts: list[Given] = [fact if fact is not lost else {HOST: type(lost)} for fact in row.facts]
        assert ask(row.requirement, *facts).finding.status == UNDECIDED
