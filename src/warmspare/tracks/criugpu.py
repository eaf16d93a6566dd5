"""Can a CUDA process be frozen, with its VRAM, and brought back intact?"""

from __future__ import annotations

from warmspare.model.findings import Finding
from warmspare.model.tracks import Layer, Track
from warmspare.probes.platform import Platform
from warmspare.tracks.container_proofs import container_survives, container_with_gpu_survives
from warmspare.tracks.container_requirements import (
    container_tools_are_known,
    container_was_given_the_driver,
    containers_can_have_gpus,
    docker_checkpoints_are_on,
)
from warmspare.tracks.criu_requirements import (
    criu_can_work_here,
    criu_fits_this_kernel,
    criu_is_there,
    criu_suspends_seccomp,
    pid1_has_no_filter,
    plugin_is_there,
    process_survives_on_disk,
    seccomp_can_be_suspended,
)
from warmspare.tracks.driver_requirements import (
    checkpoint_calls_are_there,
    cuda_initialises,
    gpu_stays_initialised,
)
from warmspare.tracks.gpu_requirements import a_whole_gpu_is_left, gpu_access_is_known, gpu_memory_is_free
from warmspare.tracks.host_requirements import host_memory_holds_the_gpu
from warmspare.tracks.kernel_requirements import (
    config_agrees,
    kernel_can_choose_pids,
    kernel_has_kcmp,
    kernel_has_map_files,
    kernel_has_memfd,
    kernel_has_pagemap_scan,
    kernel_has_pidfd,
    kernel_has_userfaultfd,
    kernel_lists_sockets,
    may_checkpoint,
    may_trace,
    namespace_is_initial,
)
from warmspare.tracks.shared import (
    driver_is_there,
    gpu_is_there,
    memory_is_not_limited,
    not_under_wsl2,
    platform_is_named,
)
from warmspare.tracks.suspend_proofs import (
    every_gpu_suspends,
    gpu_moves,
    gpu_process_survives_on_disk,
    vram_survives,
)
from warmspare.tracks.suspend_requirements import (
    checkpoint_works_on_this_gpu,
    driver_abilities_are_known,
    driver_has_checkpoint_api,
    not_every_program_survives,
    programs_are_no_mps_clients,
    programs_hold_no_rings,
    restored_processes_can_be_ended,
)
from warmspare.tracks.workload_requirements import nccl_ranks_survive, workloads_survive

WSL2_DRIVER = "no published run shows the checkpoint API under WSL2 (an unproven negative: a trial may overturn it)"


def checkpoint_api_is_documented(platform: Platform) -> Finding:
    """Paper: NVIDIA says "restricted to Linux", and nobody reported GPU-PV either way.

    Remedy: native-linux
    Source: CUDA driver API, group CUDA_CHECKPOINT.
    """
    return not_under_wsl2(platform, WSL2_DRIVER)


TRACK = Track(
    needs={
        Layer.HARDWARE: [gpu_is_there],
        Layer.DRIVER: [checkpoint_calls_are_there],
        Layer.PROOF: [vram_survives],
    },
    wants={
        Layer.CRIU: [criu_is_there, process_survives_on_disk],
        Layer.PROOF: [every_gpu_suspends, gpu_process_survives_on_disk],
    },
    notes={
        Layer.HARDWARE: [gpu_memory_is_free, host_memory_holds_the_gpu],
        Layer.PLATFORM: [
            platform_is_named,
            gpu_access_is_known,
            container_was_given_the_driver,
            container_tools_are_known,
            containers_can_have_gpus,
            docker_checkpoints_are_on,
        ],
        Layer.KERNEL: [
            kernel_has_userfaultfd,
            kernel_has_pagemap_scan,
            kernel_has_pidfd,
            config_agrees,
            programs_hold_no_rings,
        ],
        Layer.PRIVILEGES: [namespace_is_initial, memory_is_not_limited],
        Layer.CRIU: [plugin_is_there, container_survives, container_with_gpu_survives],
        Layer.DRIVER: [
            driver_abilities_are_known,
            not_every_program_survives,
            restored_processes_can_be_ended,
            gpu_stays_initialised,
        ],
        Layer.PROOF: [gpu_moves, workloads_survive, nccl_ranks_survive],
    },
    expects={
        vram_survives: {
            Layer.PLATFORM: [checkpoint_api_is_documented],
            Layer.DRIVER: [
                driver_is_there,
                cuda_initialises,
                driver_has_checkpoint_api,
                checkpoint_works_on_this_gpu,
                a_whole_gpu_is_left,
                programs_are_no_mps_clients,
            ],
        },
        process_survives_on_disk: {
            Layer.PLATFORM: [criu_can_work_here],
            Layer.KERNEL: [
                kernel_has_memfd,
                kernel_has_kcmp,
                kernel_has_map_files,
                kernel_can_choose_pids,
                kernel_lists_sockets,
            ],
            Layer.PRIVILEGES: [may_checkpoint, may_trace, pid1_has_no_filter, seccomp_can_be_suspended],
            Layer.CRIU: [criu_fits_this_kernel, criu_suspends_seccomp],
        },
    },
    gates={gpu_is_there: [Layer.DRIVER, Layer.ENGINE, Layer.PROOF]},
)
