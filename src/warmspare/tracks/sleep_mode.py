"""Can a vLLM engine sleep and wake, and stay safe while it sleeps?"""

from __future__ import annotations

from warmspare.model.findings import Finding, met, unmet
from warmspare.model.tracks import Layer, Track
from warmspare.tracks.cuda_requirements import vmm_is_supported
from warmspare.tracks.driver_requirements import cuda_initialises, vmm_calls_are_there
from warmspare.tracks.engine_requirements import (
    engine_python_is_known,
    torch_is_for_cuda,
    vllm_is_there,
    vllm_sleep_faults_are_known,
    vllm_starts_under_wsl2,
    vllm_survives_requests_asleep,
)
from warmspare.tracks.gpu_requirements import gpu_access_is_known, gpu_lets_a_standby_in, gpu_memory_is_free
from warmspare.tracks.host_requirements import host_memory_holds_the_gpu, huge_pages_are_on
from warmspare.tracks.shared import (
    broken,
    driver_is_there,
    gpu_is_there,
    memory_is_not_limited,
    platform_is_named,
)
from warmspare.trials.awaited import SleepCycles

HELD = "slept in {sleep_s:.2f} s, freed {mib_freed} MiB, woke in {wake_s:.2f} s with the same tokens"

OTHER_TOKENS = "the engine that woke gave other tokens"
NOTHING_FREED = "the engine slept, and no VRAM was seen freed"


def sleep_cycles_hold(proof: SleepCycles) -> Finding:
    """`/health` says 200 asleep and wedged alike: only freed VRAM and the same tokens after waking count.

    Source: vllm-project/vllm#15483, #24879, #44395 (fixed in 0.17.0 and 0.24.0).
    """
    if failed := broken(proof):
        return failed
    if not proof.tokens_equal:
        return unmet(OTHER_TOKENS)
    if not proof.mib_freed:
        return unmet(NOTHING_FREED)
    return met(HELD, sleep_s=proof.sleep_s, mib_freed=proof.mib_freed, wake_s=proof.wake_s)


TRACK = Track(
    needs={
        Layer.HARDWARE: [gpu_is_there],
        Layer.PROOF: [sleep_cycles_hold],
    },
    notes={
        Layer.HARDWARE: [gpu_memory_is_free, gpu_lets_a_standby_in, host_memory_holds_the_gpu],
        Layer.PLATFORM: [platform_is_named, gpu_access_is_known],
        Layer.KERNEL: [huge_pages_are_on],
        Layer.PRIVILEGES: [memory_is_not_limited],
        Layer.ENGINE: [engine_python_is_known, vllm_sleep_faults_are_known],
    },
    expects={
        sleep_cycles_hold: {
            Layer.DRIVER: [driver_is_there, cuda_initialises, vmm_calls_are_there, vmm_is_supported],
            Layer.ENGINE: [
                vllm_is_there,
                torch_is_for_cuda,
                vllm_survives_requests_asleep,
                vllm_starts_under_wsl2,
            ],
        }
    },
    gates={gpu_is_there: [Layer.DRIVER, Layer.ENGINE, Layer.PROOF]},
)
