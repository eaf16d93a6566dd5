"""What the trials of suspending show: memory freed and brought back, to disk and back, to another GPU."""

from __future__ import annotations

from typing import Final

from warmspare.model.findings import Finding, met, unmet
from warmspare.model.requirements import Each, Some
from warmspare.tracks.shared import broken
from warmspare.trials.criugpu_roundtrip import CriugpuRoundtrip
from warmspare.trials.gpu_move import GpuMove
from warmspare.trials.gpu_suspend import GpuSuspend

SURVIVED = (
    "{mib_freed} MiB were freed ({seen}) in {suspend_s:.2f} s and back in {resume_s:.2f} s; bytes and counts were"
)
SURVIVED += " as before"
SEEN_BY: Final = {"nvml": "seen by NVML", "cuda": "seen by CUDA in another process"}
NOTHING_FREED = "the suspend said it was done, and no VRAM was seen freed"
CHANGED = "the canary's bytes changed"


def vram_survives(proof: Some[GpuSuspend]) -> Finding:
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
    return met(
        SURVIVED,
        mib_freed=proof.mib_freed,
        seen=SEEN_BY[proof.freed_by or "nvml"],
        suspend_s=proof.suspend_s,
        resume_s=proof.resume_s,
    )


def every_gpu_suspends(proof: Each[GpuSuspend]) -> Finding:
    """A server may run on any of the GPUs: what survives on one must survive on the others too.

    Remedy: newer-driver
    Source: CUDA driver API, group CUDA_CHECKPOINT.
    """
    return vram_survives(proof)


TO_DISK = "dumped in {dump_s:.1f} s, restored in {restore_s:.1f} s ({image_mib} MiB), bytes and counts as before"


def gpu_process_survives_on_disk(proof: CriugpuRoundtrip) -> Finding:
    """Without this a process can be suspended in memory only, and does not outlive a reboot or a crash.

    Remedy: newer-driver
    Source: criu(8); CRIU's CUDA plugin does the same two halves.
    """
    if failed := broken(proof):
        return failed
    if not proof.bytes_survived:
        return unmet(CHANGED, remedy="newer-driver")
    return met(TO_DISK, dump_s=proof.dump_s, restore_s=proof.restore_s, image_mib=round(proof.image_mib or 0))


MOVED = "suspended and resumed over {pair}: {mib_used} MiB were seen there and none here, bytes and counts as before"


def gpu_moves(proof: GpuMove) -> Finding:
    """A suspended process may be resumed on another GPU of the same kind: room is made without its end.

    Remedy: newer-driver
    Source: CUDA driver API, CUcheckpointRestoreArgs (from driver 580 on).
    """
    if failed := broken(proof):
        return failed
    if not proof.bytes_survived:
        return unmet(CHANGED, remedy="newer-driver")
    return met(MOVED, pair=proof.pair, mib_used=proof.mib_used)
