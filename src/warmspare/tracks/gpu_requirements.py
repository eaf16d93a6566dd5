"""What is asked of the GPUs themselves: whether each answers, what it is, and who else is on it."""

from __future__ import annotations

from warmspare.model.findings import Finding, met, not_applicable, unmet
from warmspare.model.requirements import Each, Some
from warmspare.probes.cuda import CudaDevices
from warmspare.probes.gpu import (
    ComputeMode,
    Ecc,
    GpuAccess,
    GpuIdentity,
    GpuMemory,
    GpuNuma,
    GpuProcesses,
    Mig,
    PcieLink,
)
from warmspare.probes.gpus import Gpus
from warmspare.probes.mps import Mps
from warmspare.probes.vendors import OtherGpus
from warmspare.tracks.shared import VENDORS

ANSWERS = "{name}, compute capability {capability}"


def every_gpu_answers(identity: Each[GpuIdentity]) -> Finding:
    """A GPU that has fallen off the bus or is locked up is still counted, and answers no question.

    When unknown: reset-gpu
    Source: nvmlDeviceGetName, nvmlDeviceGetCudaComputeCapability; NVML code 15, "GPU is lost" (Xid 79).
    """
    return met(ANSWERS, name=identity.name, capability=identity.compute_capability)


ALIKE = "every source counts {count}"
DIFFER = "the sources count differently: {sources}"


def sources_agree(gpus: Gpus, cuda: CudaDevices) -> Finding:
    """PCI, device files, NVML and CUDA each count the GPUs; a GPU that one of them lacks is hidden or out of order.

    In a container PCI shows all GPUs of the machine, and the others only those that were handed in.

    Remedy: find-the-missing-gpu
    Source: NVML and CUDA count differently under CUDA_VISIBLE_DEVICES, cgroups, MIG and vfio-pci.
    """
    # WSL2 and sandboxes show neither a bus nor device files; that no GPU is seen there says nothing.
    seen = {source: count for source, count in gpus.seen.items() if source == "nvml" or count} | {"cuda": cuda.count}
    if len(set(seen.values())) > 1:
        sources = tuple(f"{source}: {count}" for source, count in sorted(seen.items()))
        return unmet(DIFFER, sources=sources, remedy="find-the-missing-gpu")
    return met(ALIKE, count=gpus.count)


OTHERS = "other GPUs: {vendors}; not NVIDIA, so none of the techniques here is for them"
NO_OTHERS = "no GPU of another vendor is shown to us"


def other_gpus_are_named(others: OtherGpus) -> Finding:
    """GPUs of AMD, Intel and others are named so that nobody looks for them in vain: all techniques here are NVIDIA's.

    Source: PCI vendor ids; /dev/kfd; under WSL2 the names of Windows' display drivers.
    """
    return (
        met(OTHERS, vendors=tuple(VENDORS[vendor] for vendor in others.vendors)) if others.vendors else met(NO_OTHERS)
    )


BUSY = 0.05
RESERVE_MIB = 1024
UNIFIED = "it has no memory of its own: it uses the host's"
FREE = "{free_mib} of {total_mib} MiB are free"
TAKEN = "only {free_mib} of {total_mib} MiB are free: something else is using this GPU"


def gpu_memory_is_free(memory: Each[GpuMemory]) -> Finding:
    """Restoring a process or waking an engine needs its memory back: what others took meanwhile is not there.

    VLLM refuses to start where less is free than its share (gpu-memory-utilization, nine tenths) of the whole.

    Remedy: free-the-gpu
    Source: NVIDIA/cuda-checkpoint#44 (a restore with too little memory strands the process).
    """
    if memory.total_mib is None or memory.used_mib is None:
        return not_applicable(UNIFIED)
    values = {"free_mib": memory.free_mib, "total_mib": memory.total_mib}
    # An NVML that does not tell its own reserve counts that as used.
    busy_mib = max(BUSY * memory.total_mib, 0 if memory.reserved_mib is not None else RESERVE_MIB)
    if memory.used_mib > busy_mib:
        return unmet(TAKEN, remedy="free-the-gpu", **values)
    return met(FREE, **values)


MPS_RUNS = "an MPS daemon serves programs on the GPU: they share one context of its server's"
NO_MPS = "no MPS daemon is seen"


def mps_is_known(mps: Mps) -> Finding:
    """Under MPS programs share a GPU through one server: when that fails they all fail.

    Source: NVIDIA MPS documentation; the control pipe in CUDA_MPS_PIPE_DIRECTORY or /tmp/nvidia-mps.
    """
    return met(MPS_RUNS) if mps.daemon else met(NO_MPS)


ALONE = "no other process is on it"
SHARED = "processes on it: {compute} computing, {graphics} drawing"
UNTOLD = "the driver does not tell which processes are on it"


def gpu_has_no_other_users(processes: Each[GpuProcesses], access: Each[GpuAccess]) -> Finding:
    """Other processes on a GPU take its memory and time, and a driver update or reset has to wait for them.

    Remedy: free-the-gpu
    Source: nvmlDeviceGetComputeRunningProcesses; under WSL2 the list stays empty.
    """
    if access.way == "gpu-pv" or (processes.compute is None and processes.graphics is None):
        return not_applicable(UNTOLD)
    if processes.compute or processes.graphics:
        return unmet(SHARED, compute=processes.compute, graphics=processes.graphics, remedy="free-the-gpu")
    return met(ALONE)


WHOLE = "the GPU is whole (MIG {mode})"
SPLIT = "MIG is on: the GPU is split into instances"
MIG_PENDING = "MIG is off, and comes on with the next reset of the GPU"


def gpu_is_whole(mig: Each[Mig]) -> Finding:
    """MIG splits a GPU into instances; between instances, and from them to other GPUs, there is no peer access.

    Remedy: turn-off-mig
    Source: NVIDIA/nccl#1716 ("MIG doesn't support P2P from CUDA using either PCIE or NVLINK"); MIG user guide.
    """
    if mig.current == "on":
        return unmet(SPLIT, remedy="turn-off-mig")
    return unmet(MIG_PENDING, remedy="turn-off-mig") if mig.pending == "on" else met(WHOLE, mode=mig.current)


MODE = "compute mode {mode}"
LETS_MANY = "several processes may use the GPU (compute mode {mode})"
LETS_ONE = "compute mode {mode}: one process at a time, so no standby beside the engine that serves"
LETS_NONE = "compute mode {mode}: no process may use the GPU"


def gpu_lets_a_standby_in(mode: Each[ComputeMode]) -> Finding:
    """A warm standby is a second process on the same GPU; an exclusive compute mode keeps it out.

    Remedy: default-compute-mode
    Source: nvmlDeviceGetComputeMode; NVIDIA MPS documentation.
    """
    if mode.mode == "default":
        return met(LETS_MANY, mode=mode.mode)
    sentence = LETS_NONE if mode.mode == "prohibited" else LETS_ONE
    return unmet(sentence, mode=mode.mode, remedy="default-compute-mode")


def gpu_may_be_used(mode: Some[ComputeMode]) -> Finding:
    """Paper: an administrator can forbid all computing on a GPU by its compute mode.

    Remedy: default-compute-mode
    Source: nvmlDeviceGetComputeMode.
    """
    if mode.mode == "prohibited":
        return unmet(LETS_NONE, mode=mode.mode, remedy="default-compute-mode")
    return met(MODE, mode=mode.mode)


def a_whole_gpu_is_left(mig: Some[Mig]) -> Finding:
    """Paper: where MIG splits every GPU, no two can reach each other's memory, and no process on them can be suspended.

    Remedy: turn-off-mig
    Source: NVIDIA/nccl#1716; NVIDIA/cuda-checkpoint#42 ("out of memory" at the checkpoint); MIG user guide.
    """
    return unmet(SPLIT, remedy="turn-off-mig") if mig.current == "on" else met(WHOLE, mode=mig.current)


CORRECTS = "its memory corrects errors (ECC {mode})"
ECC_PENDING = "its memory will correct errors after the next restart (ECC off, pending on)"
NO_ECC = "its memory does not correct errors (ECC {mode})"


def memory_corrects_errors(ecc: Each[Ecc]) -> Finding:
    """State that is kept for long on a GPU should not rot there; ECC finds and corrects flipped bits.

    Remedy: turn-on-ecc
    Remedy: restart-for-ecc
    Source: nvmlDeviceGetEccMode; GeForce cards have no such mode.
    """
    if ecc.current == "on":
        return met(CORRECTS, mode=ecc.current)
    if ecc.pending == "on":
        return unmet(ECC_PENDING, remedy="restart-for-ecc")
    return unmet(NO_ECC, mode=ecc.current, remedy="turn-on-ecc" if ecc.current == "off" else None)


LANES = 8
"""Fewer than these are a riser, or a slot made for something else."""
FULL = "PCIe x{width}, generation {max_generation} at most, which is all that card and slot allow together"
FEW_LANES = "PCIe x{width}, which is all that card and slot allow together: copies to and from the host are slow"
NARROW = "PCIe x{width} of x{max_width}: copies to and from the host are slower than they could be"
NOT_ON_PCIE = "this GPU is not on PCIe"
LINK_UNTOLD = "the driver does not tell the PCIe link here"


def pcie_link_is_full(link: Each[PcieLink], memory: Each[GpuMemory]) -> Finding:
    """Sleeping, waking and checkpoints move gigabytes over PCIe; a card in a narrow slot takes as much longer.

    The generation is not compared: an idle GPU turns it down by itself.

    Remedy: reseat-the-card
    Source: nvmlDeviceGetCurrPcieLinkWidth; in a VM the guest may be told a pretence.
    """
    if link.width is None or link.max_width is None:
        return not_applicable(LINK_UNTOLD)
    if memory.total_mib is None:
        return not_applicable(NOT_ON_PCIE)
    if link.width == link.max_width < LANES:
        return unmet(FEW_LANES, width=link.width, remedy="reseat-the-card")
    if link.width < link.max_width:
        return unmet(NARROW, width=link.width, max_width=link.max_width, remedy="reseat-the-card")
    return met(FULL, width=link.width, max_generation=link.max_generation)


NEAR = "near NUMA node {nodes}"
NO_NODE = "the platform does not say which memory is near"


def near_memory_is_known(numa: Each[GpuNuma]) -> Finding:
    """On a host with several NUMA nodes, host memory of the GPU's own node is reached fastest.

    Source: nvmlDeviceGetMemoryAffinity.
    """
    return met(NEAR, nodes=tuple(map(str, numa.nodes))) if numa.nodes else not_applicable(NO_NODE)


WAY = "the GPU is reached by: {way}"


def gpu_access_is_known(access: Each[GpuAccess]) -> Finding:
    """Native, passed through, a vGPU's share or paravirtualised: what is documented differs by it.

    Source: nvmlDeviceGetVirtualizationMode; /dev/dxg under WSL2.
    """
    return met(WAY, way=access.way)
