"""Suspend a process that holds known bytes on a GPU, dump it to disk with CRIU, restore it, and see it go on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from warmspare.control.checkpointer import Checkpointer
from warmspare.control.criu import Criu, Ended
from warmspare.model.facts import Cause, Outcome, Proof, Seconds
from warmspare.trials.api import NotTried, Steps, trial
from warmspare.trials.gpu_beats import Canary
from warmspare.trials.gpu_cycle import resume, see_it_go_on, suspend
from warmspare.trials.on_gpu import GIB, MIB
from warmspare.trials.suspendable import Suspendable

SMALL_MIB: Final = 64
"""The pattern: on top of it the image holds what the driver itself keeps, some hundreds of MiB."""
ROOM_BYTES: Final = 2 * GIB


class CriugpuRoundtrip(Proof, frozen=True, kw_only=True):
    """The canary suspended by the driver, to disk with CRIU and back, and resumed: its bytes and counts.

    `dump_s` and `restore_s` are CRIU's, `suspend_s` and `resume_s` the driver's.
    """

    bytes_survived: bool | None = None
    criu: str | None = None
    dump_s: Seconds | None = None
    restore_s: Seconds | None = None
    suspend_s: Seconds | None = None
    resume_s: Seconds | None = None
    image_mib: Seconds | None = None


@trial(
    deadline=90,
    touches="at most 64 MiB, and a tenth of the free memory, of one GPU, a process of its own, and 2 GiB of disk",
    quick=True,
    restores=True,
)
def criugpu_roundtrip(steps: Steps, gpu: Suspendable) -> CriugpuRoundtrip:
    """The driver's half around CRIU's: what is dumped holds nothing of the GPU any more."""
    criu = Criu.found()
    if criu is None:
        raise NotTried(Cause.SKIPPED, "no CRIU was found")
    images = _folder(steps.scratch)
    with Checkpointer() as levers:
        canary = steps.prepare("start the canary", Canary, steps, gpu, SMALL_MIB)
        steps.prepare("start CUDA in the worker", levers.initialise)
        went = suspend(steps, levers, canary, gpu)
        _did(steps, steps("dump", criu.dump, canary.pid, images))
        if not steps("see it gone", canary.is_gone, steps.patience_s):
            steps.wrong("CRIU said the process was dumped, and it is still there")
        _did(steps, steps("restore the process", criu.restore, images))
        came = resume(steps, levers, canary)
        see_it_go_on(steps, canary)
    return CriugpuRoundtrip(
        outcome=Outcome(kind="done"),
        bytes_survived=True,
        criu=criu.program,
        dump_s=steps.took_s["dump"],
        restore_s=steps.took_s["restore the process"],
        suspend_s=went.lock_s + went.checkpoint_s,
        resume_s=came.restore_s + came.unlock_s,
        image_mib=round(sum(file.stat().st_size for file in images.iterdir()) / MIB, 2),
    )


def _did(steps: Steps, ended: Ended) -> None:
    if ended.status:
        steps.refused(ended.code, ended.line)


def _folder(scratch: Path) -> Path:
    """Where the image goes.

    Raises:
        NotTried: there is too little room, which would be no fault of CRIU's.
    """
    found = os.statvfs(scratch)
    if (free := found.f_bavail * found.f_frsize) < ROOM_BYTES:
        raise NotTried(Cause.SKIPPED, f"the image takes up to {ROOM_BYTES // MIB} MiB, and {free // MIB} are free")
    images = scratch / "images"
    images.mkdir()
    return images
