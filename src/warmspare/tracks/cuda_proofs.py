"""What the trials of CUDA itself show on each GPU: that it computes, and what it can do with memory."""

from __future__ import annotations

from warmspare.model.findings import Finding, met, unmet
from warmspare.model.requirements import Each, Some
from warmspare.tracks.shared import broken
from warmspare.trials.cuda_compute import CudaCompute
from warmspare.trials.cuda_vmm import CudaVmm
from warmspare.trials.host_copy import HostCopy
from warmspare.trials.managed_memory import ManagedMemory
from warmspare.trials.pinned_memory import PinnedMemory

COMPUTES = "CUDA started in {init_s:.2f} s, kernels were compiled in {compile_s:.2f} s, and their results were right"


def cuda_computes(proof: Some[CudaCompute]) -> Finding:
    """The least that everything else stands on: kernels ran on a GPU, and their results were checked.

    Source: CUDA driver API; the trial compares the results with those computed on the CPU.
    """
    return broken(proof) or met(COMPUTES, init_s=proof.init_s, compile_s=proof.compile_s)


def every_gpu_computes(proof: Each[CudaCompute]) -> Finding:
    """A GPU that computes wrong, or not at all, is no spare for another.

    Source: CUDA driver API; the trial compares the results with those computed on the CPU.
    """
    return cuda_computes(proof)


PINNED = "{budget_mib} MiB were pinned in {pin_s:.1f} s, as much as was tried"
NOT_NARROWED = "{budget_mib} MiB were pinned in {pin_s:.1f} s; a larger piece was refused ({refusal}), and how much"
NOT_NARROWED += " more could be pinned was not found out"
PINNED_TO_THE_WALL = "{budget_mib} MiB could be pinned, and then no more ({refusal})"


def pinned_memory_works(proof: PinnedMemory) -> Finding:
    """Fast copies between host and GPU need page-locked host memory; without it they take a slower path.

    Source: NVIDIA, CUDA on WSL user guide, section 5 ("availability for applications is limited").
    """
    if failed := broken(proof):
        return failed
    if proof.bounded and proof.refusal:
        return met(NOT_NARROWED, budget_mib=proof.budget_mib, pin_s=proof.pin_s, refusal=proof.refusal)
    if proof.bounded:
        return met(PINNED, budget_mib=proof.budget_mib, pin_s=proof.pin_s)
    return met(PINNED_TO_THE_WALL, budget_mib=proof.budget_mib, refusal=proof.refusal)


PAGEABLE = "GB/s in and out: pageable {in_:.1f} and {out:.1f}; nothing could be pinned ({refusal})"
COPIED = "GB/s in and out: pinned {pinned_in:.1f} and {pinned_out:.1f}{share}{place}, pageable {in_:.1f} and {out:.1f}"
OF_LINK = " ({share:.0%} and {back:.0%} of the PCIe link)"
MORE_THAN_LINK = " (more than its PCIe link is said to carry: what is said of the link is wrong)"
NEAR, FAR = " from memory near the GPU", " from memory far from the GPU"


def host_copies_arrive(proof: Each[HostCopy]) -> Finding:
    """State that is saved to the host and brought back arrives whole; how fast is told, and held against nothing.

    Source: the trial, by CUDA's events; the link's own limit from NVML and the PCI Express base specification.
    """
    if failed := broken(proof):
        return failed
    if proof.pinned_refusal:
        return met(
            PAGEABLE,
            in_=proof.pageable_h2d_gb_per_s,
            out=proof.pageable_d2h_gb_per_s,
            refusal=proof.pinned_refusal,
        )
    there, back, link = proof.pinned_h2d_gb_per_s or 0.0, proof.pinned_d2h_gb_per_s or 0.0, proof.link_gb_per_s
    share = OF_LINK.format(share=there / link, back=back / link) if link else ""
    return met(
        COPIED,
        pinned_in=there,
        pinned_out=back,
        share=MORE_THAN_LINK if link and max(there, back) > link else share,
        place={True: NEAR, False: FAR, None: ""}[proof.near],
        in_=proof.pageable_h2d_gb_per_s,
        out=proof.pageable_d2h_gb_per_s,
    )


REMAPPED = "{mib_freed} MiB went ({seen}) and came back under the same addresses, content right"
REMAPPED += " (of {reserved_gib} GiB{refusal}; per GiB {sleep_s:.2f} s to go, {wake_s:.2f} s to come back)"
SEEN_BY = {"nvml": "seen by NVML", "cuda": "by CUDA's own word: NVML does not tell"}
NOT_WHOLE = ", the GPU's whole size was refused: {refusal}"


def cuda_vmm_works(proof: Each[CudaVmm]) -> Finding:
    """VLLM's Sleep Mode stands on it: addresses are kept while the memory behind them is given back.

    Source: vLLM csrc/cumem_allocator.cpp; withcatai/node-llama-cpp#610 (shaky under WSL2, so it is tried).
    """
    return broken(proof) or met(
        REMAPPED,
        mib_freed=proof.mib_freed,
        seen=SEEN_BY[proof.freed_by or "cuda"],
        reserved_gib=proof.reserved_gib,
        refusal=NOT_WHOLE.format(refusal=proof.reserve_refusal) if proof.reserve_refusal else "",
        sleep_s=proof.sleep_s_per_gib,
        wake_s=proof.wake_s_per_gib,
    )


MANAGED = "CPU and GPU used managed memory at the same time"
NOT_CONCURRENT = "managed memory works, but not from CPU and GPU at the same time"


def managed_memory_works(proof: Each[ManagedMemory]) -> Finding:
    """Programs that let the driver move pages between CPU and GPU rely on managed memory.

    Source: CUDA programming guide, unified memory.
    """
    if failed := broken(proof):
        return failed
    return met(MANAGED) if proof.concurrent else unmet(NOT_CONCURRENT)
