"""Can a CUDA process be frozen, with its VRAM, and brought back intact?"""

from __future__ import annotations

from warmspare.model.findings import Finding, met, unmet
from warmspare.model.tracks import Layer, Track
from warmspare.probes.driver import Driver
from warmspare.probes.platform import Platform
from warmspare.tracks.criu_requirements import (
    criu_fits_this_kernel,
    criu_is_there,
    criu_suspends_seccomp,
    pid1_has_no_filter,
    plugin_is_there,
    process_survives_on_disk,
    seccomp_can_be_suspended,
)
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
    broken,
    driver_is_there,
    gpu_is_there,
    memory_is_not_limited,
    not_under_wsl2,
    platform_is_named,
)
from warmspare.trials.awaited import CriugpuRoundtrip, GpuSuspend

FIRST_DRIVER = 570
SURVIVED = "the canary's bytes survived; {mib_freed} MiB were freed in {suspend_s:.2f} s"
NOTHING_FREED = "the suspend said it was done, and no VRAM was seen freed"
CHANGED = "the canary's bytes changed"


def vram_survives(proof: GpuSuspend) -> Finding:
    """Proof outranks paper: the same bytes must be on the GPU after a resume.

    Remedy: newer-driver
    Source: CUDA driver API, group CUDA_CHECKPOINT; NVIDIA/cuda-checkpoint#51 (a lock alone proves nothing).
    """
    if failed := broken(proof):
        return failed
    if not proof.bytes_survived:
        return unmet(CHANGED, remedy="newer-driver")
    if not proof.mib_freed:
        return unmet(NOTHING_FREED)
    return met(SURVIVED, mib_freed=proof.mib_freed, suspend_s=proof.suspend_s)


TO_DISK = "dumped in {dump_s:.1f} s, restored in {restore_s:.1f} s, bytes and counter intact"


def gpu_process_survives_on_disk(proof: CriugpuRoundtrip) -> Finding:
    """Without this a process can be suspended in memory only, and does not outlive a reboot or a crash.

    Remedy: newer-driver
    """
    if failed := broken(proof):
        return failed
    if not proof.bytes_survived:
        return unmet(CHANGED, remedy="newer-driver")
    return met(TO_DISK, dump_s=proof.dump_s, restore_s=proof.restore_s)


NEW_ENOUGH = "driver {version} has the checkpoint API"
TOO_OLD = "driver {version} is older than the first with the checkpoint API (570)"
NO_VERSION = "the driver names no version: nothing documented speaks against it"


def driver_has_checkpoint_api(driver: Driver) -> Finding:
    """Paper: the checkpoint API came with driver 570 (CUDA 12.8), and GPU migration with 580.

    Remedy: newer-driver
    Source: NVIDIA/cuda-checkpoint README.
    """
    if driver.major is None:
        return met(NO_VERSION)
    if driver.major < FIRST_DRIVER:
        return unmet(TOO_OLD, version=driver.kernel_version, remedy="newer-driver")
    return met(NEW_ENOUGH, version=driver.kernel_version)


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
        Layer.PROOF: [vram_survives],
    },
    wants={
        Layer.CRIU: [criu_is_there, process_survives_on_disk],
        Layer.PROOF: [gpu_process_survives_on_disk],
    },
    notes={
        Layer.PLATFORM: [platform_is_named],
        Layer.KERNEL: [kernel_has_userfaultfd, kernel_has_pagemap_scan, kernel_has_pidfd, config_agrees],
        Layer.PRIVILEGES: [namespace_is_initial, memory_is_not_limited],
        Layer.CRIU: [plugin_is_there],
    },
    expects={
        vram_survives: {
            Layer.PLATFORM: [checkpoint_api_is_documented],
            Layer.DRIVER: [driver_is_there, driver_has_checkpoint_api],
        },
        process_survives_on_disk: {
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
