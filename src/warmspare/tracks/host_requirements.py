"""What is asked of the host around the GPUs: what stands between them on PCI, shared memory, RDMA, host memory."""

from __future__ import annotations

from typing import Final

from warmspare.model.facts import Both
from warmspare.model.findings import Finding, met, not_applicable, undecided, unmet
from warmspare.model.requirements import Each, Some
from warmspare.probes.gpu import GpuMemory
from warmspare.probes.iommu import AcsRedirect, Iommu
from warmspare.probes.memory import DevShm, HostMemory, HugePages, NumaNodes
from warmspare.probes.peers import PairTopology, PeerAccess
from warmspare.probes.platform import Container, Platform
from warmspare.probes.privileges import MemoryLimit
from warmspare.probes.rdma import PeerMemory, RdmaDevices

NOT_SEEN = "on this kind of machine ({kind}) the machine's own bridges and IOMMU are not seen"
BY_NVLINK = "NVLink joins them: PCI's bridges and the IOMMU are not in between"
NO_GRANT = "the driver grants no peer access: nothing goes over PCI between them"


def _not_over_pci(ways: Both[PairTopology], access: Both[PeerAccess]) -> Finding | None:
    if ways.there.nvlinks and ways.back.nvlinks:
        return met(BY_NVLINK)
    return not_applicable(NO_GRANT) if access.there.refusal or access.back.refusal else None


NO_REDIRECT = "no PCI bridge above the GPUs redirects what they send each other ({bridges} bridges)"
REDIRECT = "{redirecting} PCI bridges above the GPUs send what they write to each other up to the processor"
HIDDEN = "{hidden} of {bridges} PCI bridges do not show us their setting"


def bridges_let_peers_talk(
    ways: Some[Both[PairTopology]], access: Some[Both[PeerAccess]], acs: AcsRedirect, platform: Platform
) -> Finding:
    """Paper: with ACS on, PCI bridges send traffic between GPUs up to the processor: slow, and some machines lose it.

    ACS is a setting of each bridge that keeps devices from reaching each other directly. Inside a virtual machine it
    has to be on, and the hypervisor's bridges are not seen; NVLink is not affected.

    Remedy: turn-off-acs
    Remedy: run-as-root
    Source: NVIDIA NCCL user guide, troubleshooting, PCI access control services; vllm-project/vllm#51513.
    """
    if platform.kind != "bare-metal":
        return not_applicable(NOT_SEEN, kind=platform.kind)
    if by := _not_over_pci(ways, access):
        return by
    if acs.redirecting:
        return unmet(REDIRECT, redirecting=len(acs.redirecting), remedy="turn-off-acs")
    if acs.readable < acs.bridges:
        return undecided(HIDDEN, hidden=acs.bridges - acs.readable, bridges=acs.bridges, remedy="run-as-root")
    return met(NO_REDIRECT, bridges=acs.bridges)


IOMMU_QUIET = "the IOMMU does not translate what GPUs send ({translation})"
IOMMU_TRANSLATES = "the IOMMU translates what GPUs send: copies between them over PCIe may be slow or get lost"
IOMMU_UNKNOWN = "an IOMMU is on, and nothing says whether it translates what GPUs send"


def iommu_lets_peers_talk(
    ways: Some[Both[PairTopology]], access: Some[Both[PeerAccess]], iommu: Iommu, platform: Platform
) -> Finding:
    """Paper: where an IOMMU translates every address a device uses, writes between GPUs have been lost without a word.

    The IOMMU is the part of the processor that stands between devices and memory. NVLink does not pass through it.

    Remedy: iommu-passthrough
    Source: FIDESlib#28 (AMD-Vi), vllm-project/vllm#51513 (translated, posted writes lost); NVLink is not affected.
    """
    if platform.kind != "bare-metal":
        return not_applicable(NOT_SEEN, kind=platform.kind)
    if by := _not_over_pci(ways, access):
        return by
    if iommu.translation == "translated":
        return unmet(IOMMU_TRANSLATES, remedy="iommu-passthrough")
    if iommu.translation == "unknown":
        return undecided(IOMMU_UNKNOWN, remedy="iommu-passthrough")
    return met(IOMMU_QUIET, translation=iommu.translation)


SHM_MIB: Final = 256
ROOMY = "shared memory (/dev/shm) has room: {size_mib} MiB"
UNLIMITED_SHM = "shared memory (/dev/shm) has no limit of its own"
NO_SHM = "there is no shared memory (/dev/shm)"
SMALL = "shared memory (/dev/shm) has only {size_mib} MiB: the processes of one engine run out of it"


def shared_memory_is_roomy(shm: DevShm, container: Container) -> Finding:
    """Paper: NCCL's processes meet in /dev/shm; Docker gives a container 64 MiB of it, and NCCL then fails to start.

    Remedy: more-shared-memory
    Remedy: mount-shared-memory
    Source: microsoft/WSL#12467 ("Error while creating shared memory segment"); NCCL user guide, Docker.
    """
    remedy = "more-shared-memory" if container.inside else "mount-shared-memory"
    if not shm.found:
        return unmet(NO_SHM, remedy=remedy)
    if shm.size_mib is None:
        return met(UNLIMITED_SHM)
    if shm.size_mib < SHM_MIB:
        return unmet(SMALL, size_mib=shm.size_mib, remedy=remedy)
    return met(ROOMY, size_mib=shm.size_mib)


RDMA = "RDMA devices: {names}; device files here: {files}"
NO_RDMA = "no RDMA device: state can be kept on this host only"


def rdma_is_known(rdma: RdmaDevices) -> Finding:
    """With RDMA, a GPU's state can be kept on another host too; on one host nothing here needs it.

    Source: /sys/class/infiniband; linux-rdma.
    """
    if not rdma.devices:
        return not_applicable(NO_RDMA)
    return met(RDMA, names=tuple(device.name for device in rdma.devices), files=rdma.files)


DIRECT = "network cards can reach GPU memory: {how}"
INDIRECT = "network cards cannot reach GPU memory: neither nvidia_peermem nor a kernel with dma-buf"


def gpudirect_is_possible(peer: PeerMemory, rdma: RdmaDevices) -> Finding:
    """GPUDirect RDMA lets a network card read a GPU's memory without a copy through the host.

    Remedy: load-peermem
    Source: NVIDIA GPUDirect RDMA guide (nvidia-peermem; dma-buf since Linux 5.12).
    """
    if not rdma.devices:
        return not_applicable(NO_RDMA)
    how = (*peer.modules, *(("dma-buf",) if peer.dma_buf_kernel else ()))
    return met(DIRECT, how=how) if how else unmet(INDIRECT, remedy="load-peermem")


HOLDS = "host memory that we may use, {usable_mib} MiB, holds this GPU's {total_mib} MiB"
TOO_LITTLE = "host memory that we may use, {usable_mib} MiB, is less than this GPU's {total_mib} MiB"
SHARED = "this GPU uses the host's memory: nothing moves"
UNKNOWN_MEMORY = "the kernel does not say how much memory is available"


def host_memory_holds_the_gpu(memory: HostMemory, limit: MemoryLimit, gpu: Each[GpuMemory]) -> Finding:
    """What leaves a GPU goes to host memory first: a sleeping engine's weights, a suspended process's whole state.

    An engine that uses less than the whole GPU needs less. In a VM with a balloon the kernel may show more later.

    Remedy: more-host-memory
    Source: proc_meminfo(5), MemAvailable; the smallest cgroup limit; measured: a checkpoint is charged to the cgroup.
    """
    if gpu.total_mib is None:
        return not_applicable(SHARED)
    if memory.available_mib is None:
        return undecided(UNKNOWN_MEMORY)
    usable = min(memory.available_mib, memory.available_mib if limit.limit_mib is None else limit.limit_mib)
    if usable < gpu.total_mib:
        return unmet(TOO_LITTLE, usable_mib=usable, total_mib=gpu.total_mib, remedy="more-host-memory")
    return met(HOLDS, usable_mib=usable, total_mib=gpu.total_mib)


PAGES = "transparent huge pages: {setting}; reserved huge pages: {reserved_mib} MiB"
NO_PAGES = "transparent huge pages are off: pinning many gigabytes page by page takes longer"
NONE_IN_KERNEL = "this kernel has no transparent huge pages"


def huge_pages_are_on(pages: HugePages) -> Finding:
    """A first sleep or checkpoint pins gigabytes of host memory; with huge pages there are fewer pages to pin.

    Remedy: turn-on-huge-pages
    Source: Documentation/admin-guide/mm/transhuge.rst.
    """
    if pages.transparent is None:
        return not_applicable(NONE_IN_KERNEL)
    if pages.transparent == "never":
        return unmet(NO_PAGES, remedy="turn-on-huge-pages")
    reserved = sum(pool.size_kib * pool.pages for pool in pages.reserved) // 1024
    return met(PAGES, setting=pages.transparent, reserved_mib=reserved)


ONE_NODE = "one NUMA node: all host memory is equally near"
NODES = "{count} NUMA nodes: keep an engine and its host memory on its GPU's own"


def numa_is_known(numa: NumaNodes) -> Finding:
    """On a host with several NUMA nodes host memory is near to some GPUs and far from others (numactl binds to one).

    Source: /sys/devices/system/node; numactl(8).
    """
    return met(NODES, count=len(numa.nodes)) if len(numa.nodes) > 1 else met(ONE_NODE)
