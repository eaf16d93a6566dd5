"""How is the GPU reached here, and do CUDA, pinned and managed memory work?"""

from __future__ import annotations

from warmspare.model.findings import Finding, met, undecided, unmet
from warmspare.model.requirements import Each, Some
from warmspare.model.tracks import Layer, Track
from warmspare.probes.platform import Platform, WindowsDriver
from warmspare.tracks.cuda_requirements import (
    host_memory_can_be_pinned,
    managed_memory_is_whole,
    memory_kinds_are_known,
    vmm_is_supported,
)
from warmspare.tracks.driver_requirements import (
    cuda_initialises,
    driver_versions_agree,
    gpu_driver_model_is_known,
    gpu_stays_initialised,
    libcuda_is_real,
    nvml_answers,
    vmm_calls_are_there,
)
from warmspare.tracks.gpu_requirements import (
    every_gpu_answers,
    gpu_access_is_known,
    gpu_has_no_other_users,
    gpu_is_whole,
    gpu_may_be_used,
    gpu_memory_is_free,
    memory_corrects_errors,
    mps_is_known,
    near_memory_is_known,
    other_gpus_are_named,
    pcie_link_is_full,
    sources_agree,
)
from warmspare.tracks.host_requirements import huge_pages_are_on, numa_is_known
from warmspare.tracks.peer_requirements import fabric_is_ready
from warmspare.tracks.shared import (
    NO_OBJECTION,
    broken,
    driver_is_there,
    driver_model_is_known,
    gpu_is_there,
    memory_is_not_limited,
    memory_may_be_locked,
    not_under_wsl2,
    platform_is_named,
)
from warmspare.trials.awaited import HostSpeed
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
PINNED_TO_THE_WALL = "{budget_mib} MiB could be pinned, and then no more ({refusal})"


def pinned_memory_works(proof: PinnedMemory) -> Finding:
    """Fast copies between host and GPU need page-locked host memory; without it they take a slower path.

    Source: NVIDIA, CUDA on WSL user guide, section 5 ("availability for applications is limited").
    """
    if failed := broken(proof):
        return failed
    if proof.bounded:
        return met(PINNED, budget_mib=proof.budget_mib, pin_s=proof.pin_s)
    return met(PINNED_TO_THE_WALL, budget_mib=proof.budget_mib, refusal=proof.refusal)


COPIED = "GB/s in and out: pinned {pinned_in:.1f} and {pinned_out:.1f}{share}{place}, pageable {in_:.1f} and {out:.1f}"
OF_LINK = " ({share:.0%} and {back:.0%} of the PCIe link)"
MORE_THAN_LINK = " (more than its PCIe link is said to carry: what is said of the link is wrong)"
NEAR, FAR = " from memory near the GPU", " from memory far from the GPU"


def pinned_copies_are_fast(proof: Each[HostCopy]) -> Finding:
    """State that is saved to the host and brought back moves at this speed, and pinned memory is what makes it fast.

    Source: the trial, by CUDA's events; the link's own limit from NVML and the PCI Express base specification.
    """
    if failed := broken(proof):
        return failed
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


REMAPPED = "{mib_freed} MiB went and came back under the same addresses, content right"
REMAPPED += " (of {reserved_gib} GiB{refusal}; per GiB {sleep_s:.2f} s to go, {wake_s:.2f} s to come back)"
NOT_WHOLE = ", the GPU's whole size was refused: {refusal}"


def cuda_vmm_works(proof: Each[CudaVmm]) -> Finding:
    """VLLM's Sleep Mode stands on it: addresses are kept while the memory behind them is given back.

    Source: vLLM csrc/cumem_allocator.cpp; withcatai/node-llama-cpp#610 (shaky under WSL2, so it is tried).
    """
    return broken(proof) or met(
        REMAPPED,
        mib_freed=proof.mib_freed,
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


OF_NATIVE = "{of_native:.2f} of the same machine's stored native run"
NO_NATIVE = "no native run of this machine is stored to compare with"


def host_speed_is_known(speed: HostSpeed) -> Finding:
    """A share of bare metal is honest only against the same machine, booted natively.

    Source: Phoronix compared one machine with itself; its figure does not carry over to another.
    """
    if failed := broken(speed):
        return failed
    return undecided(NO_NATIVE) if speed.of_native is None else met(OF_NATIVE, of_native=speed.of_native)


WSL2_LACKS = "NVIDIA's guide rules it out under WSL2"
WSL2_LIMITS = "NVIDIA's guide calls it limited under WSL2; 0.5 to 5 GB were seen in the field"


def managed_memory_is_documented(platform: Platform) -> Finding:
    """Paper: concurrent managed memory is documented as missing on Windows, and so under WSL2.

    Remedy: native-linux
    Source: NVIDIA, CUDA on WSL user guide, section 5.
    """
    return not_under_wsl2(platform, WSL2_LACKS)


def pinned_memory_is_documented(platform: Platform) -> Finding:
    """Paper: pinned memory is documented as limited under WSL2; that it works at all is not in doubt.

    Remedy: native-linux
    Source: NVIDIA, CUDA on WSL user guide, section 5; vllm-project/vllm#41496.
    """
    return not_under_wsl2(platform, WSL2_LIMITS)


IN_TCC = "a card is in TCC mode on the Windows host: hidden from WSL2, and next to WDDM cards fatal to all"


def no_card_is_in_tcc(windows: WindowsDriver) -> Finding:
    """Paper: cards in TCC mode answer "GPU access blocked by the operating system" inside WSL2.

    Remedy: leave-tcc
    Source: microsoft/WSL#11865, #12859, #13027.
    """
    return unmet(IN_TCC, remedy="leave-tcc") if "TCC" in windows.models else met(NO_OBJECTION)


TRACK = Track(
    needs={
        Layer.HARDWARE: [gpu_is_there],
        Layer.PROOF: [cuda_computes],
    },
    wants={
        Layer.HARDWARE: [every_gpu_answers],
        Layer.DRIVER: [nvml_answers],
        Layer.PROOF: [every_gpu_computes, pinned_memory_works, cuda_vmm_works, managed_memory_works],
    },
    notes={
        Layer.HARDWARE: [
            sources_agree,
            other_gpus_are_named,
            gpu_is_whole,
            gpu_memory_is_free,
            gpu_has_no_other_users,
            memory_corrects_errors,
            pcie_link_is_full,
            near_memory_is_known,
        ],
        Layer.PLATFORM: [platform_is_named, gpu_access_is_known],
        Layer.KERNEL: [huge_pages_are_on, numa_is_known],
        Layer.PRIVILEGES: [memory_is_not_limited, memory_may_be_locked],
        Layer.DRIVER: [
            driver_versions_agree,
            fabric_is_ready,
            driver_model_is_known,
            gpu_driver_model_is_known,
            gpu_stays_initialised,
            mps_is_known,
            memory_kinds_are_known,
        ],
        Layer.PROOF: [pinned_copies_are_fast, host_speed_is_known],
    },
    expects={
        cuda_computes: {
            Layer.DRIVER: [
                driver_is_there,
                libcuda_is_real,
                no_card_is_in_tcc,
                cuda_initialises,
                gpu_may_be_used,
            ]
        },
        pinned_memory_works: {
            Layer.PLATFORM: [pinned_memory_is_documented],
            Layer.DRIVER: [host_memory_can_be_pinned],
        },
        cuda_vmm_works: {Layer.DRIVER: [vmm_calls_are_there, vmm_is_supported]},
        managed_memory_works: {
            Layer.PLATFORM: [managed_memory_is_documented],
            Layer.DRIVER: [managed_memory_is_whole],
        },
    },
    gates={gpu_is_there: [Layer.DRIVER, Layer.ENGINE, Layer.PROOF]},
)
