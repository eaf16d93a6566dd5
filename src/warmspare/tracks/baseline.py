"""How is the GPU reached here, and do CUDA, pinned and managed memory work?"""

from __future__ import annotations

from warmspare.model.findings import Finding, met, unmet
from warmspare.model.tracks import Layer, Track
from warmspare.probes.platform import Platform, WindowsDriver
from warmspare.tracks.cuda_proofs import (
    cuda_computes,
    cuda_vmm_works,
    every_gpu_computes,
    host_copies_arrive,
    managed_memory_works,
    pinned_memory_works,
)
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
    driver_is_there,
    driver_model_is_known,
    gpu_is_there,
    memory_is_not_limited,
    memory_may_be_locked,
    not_under_wsl2,
    platform_is_named,
)
from warmspare.tracks.speed_requirements import host_speed_is_known

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
        Layer.PROOF: [host_copies_arrive, host_speed_is_known],
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
