"""What CUDA says that each GPU can do with memory: predictions of what the trials then try."""

from __future__ import annotations

from warmspare.model.findings import Finding, met, not_applicable, undecided, unmet
from warmspare.model.requirements import Each, Some
from warmspare.probes.cuda import CudaAttributes
from warmspare.probes.gpu import GpuAccess
from warmspare.probes.rdma import RdmaDevices

SAYS_VMM = "the driver says that it manages virtual memory"
NO_VMM = "the driver says that it does not manage virtual memory on this GPU"
NOT_SAID = "this driver does not answer that question"


def vmm_is_supported(attributes: Some[CudaAttributes], access: Some[GpuAccess]) -> Finding:
    """Paper: what CUDA says of its own virtual memory calls on this GPU, which Sleep Mode stands on.

    Remedy: newer-driver
    Remedy: unified-memory-in-vgpu
    Source: cuDeviceGetAttribute 102; withcatai/node-llama-cpp#610 (under WSL2 a 32 GiB reservation failed).
    """
    if attributes.vmm is None:
        return undecided(NOT_SAID, remedy="newer-driver")
    if attributes.vmm:
        return met(SAYS_VMM)
    return unmet(NO_VMM, remedy="unified-memory-in-vgpu" if access.way == "vgpu" else "newer-driver")


CONCURRENT = "CPU and GPU may use managed memory at the same time"
TAKING_TURNS = "CPU and GPU may only take turns at managed memory"
NO_MANAGED = "there is no managed memory"


def managed_memory_is_whole(attributes: Some[CudaAttributes], access: Some[GpuAccess]) -> Finding:
    """Paper: managed memory moves between CPU and GPU by itself; on Windows, and so under WSL2, not while both use it.

    Remedy: native-linux
    Remedy: unified-memory-in-vgpu
    Remedy: newer-driver
    Source: cuDeviceGetAttribute 83 and 89; NVIDIA, CUDA on WSL user guide, section 5 ("CUDA queries will say").
    """
    if attributes.managed_memory is None or attributes.concurrent_managed_access is None:
        return undecided(NOT_SAID, remedy="newer-driver")
    remedy = "unified-memory-in-vgpu" if access.way == "vgpu" else "native-linux"
    if not attributes.managed_memory:
        return unmet(NO_MANAGED, remedy=remedy)
    return met(CONCURRENT) if attributes.concurrent_managed_access else unmet(TAKING_TURNS, remedy=remedy)


REGISTERS = "memory that is there already can be pinned"
NO_REGISTER = "memory that is there already cannot be pinned: only what CUDA itself allocates"


def host_memory_can_be_pinned(attributes: Some[CudaAttributes]) -> Finding:
    """Paper: pinned (page-locked) memory makes copies to a GPU fast; programs pin what they have by cudaHostRegister.

    Remedy: native-linux
    Remedy: newer-driver
    Source: cuDeviceGetAttribute 99.
    """
    if attributes.host_register is None:
        return undecided(NOT_SAID, remedy="newer-driver")
    return met(REGISTERS) if attributes.host_register else unmet(NO_REGISTER, remedy="native-linux")


KINDS = "pageable memory reached by the GPU: {pageable}; registered memory under the same address: {identity}"
YES, NO, UNTOLD = "yes", "no", "not told"


def memory_kinds_are_known(attributes: Each[CudaAttributes]) -> Finding:
    """Which host memory a GPU can reach as it stands; where it cannot, programs copy or register memory first.

    Source: cuDeviceGetAttribute 88 and 91.
    """
    told = {None: UNTOLD, True: YES, False: NO}
    pageable, identity = attributes.pageable_memory_access, attributes.host_pointer_for_registered
    return met(KINDS, pageable=told[pageable], identity=told[identity])


REACHES = "network cards can reach this GPU's memory (dma-buf: {dma_buf}, GPUDirect RDMA: {rdma})"
OUT_OF_REACH = "this GPU gives network cards no way to its memory"
NO_CARDS = "no RDMA device: no network card to reach it"


def gpu_lets_network_cards_in(attributes: Each[CudaAttributes], rdma: RdmaDevices) -> Finding:
    """GPUDirect RDMA needs the GPU's consent too: GeForce cards, and some drivers, give none.

    Source: cuDeviceGetAttribute 116 and 124; NVIDIA GPUDirect RDMA guide.
    """
    if not rdma.devices:
        return not_applicable(NO_CARDS)
    if attributes.dma_buf or attributes.gpudirect_rdma:
        return met(REACHES, dma_buf=attributes.dma_buf, rdma=attributes.gpudirect_rdma)
    return unmet(OUT_OF_REACH)
