"""Can a vLLM engine sleep and wake, and stay safe while it sleeps?"""

from __future__ import annotations

from warmspare.model.tracks import Layer, Track
from warmspare.tracks import known_issue_requirements as known
from warmspare.tracks.cuda_requirements import vmm_is_supported
from warmspare.tracks.driver_requirements import cuda_initialises, vmm_calls_are_there
from warmspare.tracks.engine_requirements import engine_python_is_known, torch_is_for_cuda, vllm_is_there
from warmspare.tracks.gpu_requirements import gpu_access_is_known, gpu_lets_a_standby_in, gpu_memory_is_free
from warmspare.tracks.host_requirements import host_memory_holds_the_gpu, huge_pages_are_on
from warmspare.tracks.shared import driver_is_there, gpu_is_there, memory_is_not_limited, platform_is_named
from warmspare.tracks.sleep_notes import (
    engine_gives_its_memory_back,
    engine_starts,
    engines_take_turns,
    graphs_survive_sleep,
    host_memory_for_sleep_is_had,
    repeated_sleep_is_harmless,
    requests_in_flight_are_told,
    sleep_leaves_no_growth,
    state_is_told_honestly,
    wake_without_room_recovers,
)
from warmspare.tracks.sleep_requirements import (
    data_parallel_sleeps,
    level_2_comes_back,
    requests_survive_sleep,
    sleep_cycles_hold,
    tensor_parallel_sleeps,
    the_level_used_comes_back,
)

TRACK = Track(
    needs={
        Layer.HARDWARE: [gpu_is_there],
        Layer.PROOF: [sleep_cycles_hold, requests_survive_sleep],
    },
    wants={Layer.PROOF: [data_parallel_sleeps, tensor_parallel_sleeps, the_level_used_comes_back]},
    notes={
        Layer.HARDWARE: [gpu_memory_is_free, gpu_lets_a_standby_in, host_memory_holds_the_gpu],
        Layer.PLATFORM: [platform_is_named, gpu_access_is_known],
        Layer.KERNEL: [huge_pages_are_on],
        Layer.PRIVILEGES: [memory_is_not_limited],
        Layer.ENGINE: [engine_python_is_known, known.other_known_issues_do_not_apply],
        Layer.PROOF: [
            engine_starts,
            graphs_survive_sleep,
            sleep_leaves_no_growth,
            host_memory_for_sleep_is_had,
            level_2_comes_back,
            requests_in_flight_are_told,
            repeated_sleep_is_harmless,
            state_is_told_honestly,
            engines_take_turns,
            wake_without_room_recovers,
            engine_gives_its_memory_back,
        ],
    },
    expects={
        sleep_cycles_hold: {
            Layer.DRIVER: [driver_is_there, cuda_initialises, vmm_calls_are_there, vmm_is_supported],
            Layer.ENGINE: [
                vllm_is_there,
                torch_is_for_cuda,
                known.sleep_cycles_hold_by_known_issues,
                known.sleep_cycles_hold_by_known_issues_of_the_gpu,
            ],
        },
        requests_survive_sleep: {Layer.ENGINE: [known.requests_survive_sleep_by_known_issues]},
        data_parallel_sleeps: {Layer.ENGINE: [known.data_parallel_sleeps_by_known_issues]},
        tensor_parallel_sleeps: {Layer.ENGINE: [known.tensor_parallel_sleeps_by_known_issues]},
        the_level_used_comes_back: {Layer.ENGINE: [known.the_level_used_comes_back_by_known_issues]},
    },
    gates={gpu_is_there: [Layer.DRIVER, Layer.ENGINE, Layer.PROOF]},
)
