"""Suspend a process that holds known bytes on a GPU, see its memory freed, resume it, and see it go on."""

from __future__ import annotations

from typing import ClassVar

from warmspare.control.checkpointer import Checkpointer
from warmspare.model.facts import Count, Kind, Outcome, Proof, Seconds
from warmspare.probes.gpus import GPU
from warmspare.trials.api import Steps, trial
from warmspare.trials.free_memory import Instrument
from warmspare.trials.given import Gpu
from warmspare.trials.gpu_beats import Canary
from warmspare.trials.gpu_cycle import gib_per_s, resume, see_it_go_on, suspend
from warmspare.trials.on_gpu import MIB


class GpuSuspend(Proof, frozen=True, kw_only=True):
    """A CUDA canary suspended and resumed by the driver: its bytes compared, its graph and its count gone on.

    `suspend_s` (its lock, `lock_s`, and the checkpoint) and `resume_s` (restore and unlock) are what the driver's own
    calls took; apart from them `worker_start_s` is the start of the process that makes the calls, and `init_s` its
    cuInit. `mib_freed` was seen from outside (`freed_by`), as was that NVML no longer lists the process (`unlisted`;
    None if it did not list it before). The speeds are GiB/s of that memory, of the checkpoint and of the restore.
    """

    KIND: ClassVar[Kind] = GPU

    bytes_survived: bool | None = None
    mib_freed: Count | None = None
    freed_by: Instrument | None = None
    unlisted: bool | None = None
    lock_s: Seconds | None = None
    suspend_s: Seconds | None = None
    resume_s: Seconds | None = None
    suspend_gib_per_s: Seconds | None = None
    resume_gib_per_s: Seconds | None = None
    worker_start_s: Seconds | None = None
    init_s: Seconds | None = None


@trial(
    deadline=60,
    touches="at most 256 MiB, and a tenth of the free memory, of each GPU, in a process of its own that is suspended",
    quick=True,
    restores=True,
)
def gpu_suspend(steps: Steps, gpu: Gpu) -> GpuSuspend:
    """Lock → checkpoint → memory seen freed → restore → unlock → bytes equal, counts gone on."""
    with Checkpointer() as levers:
        canary = steps.prepare("start the canary", Canary, steps, gpu)
        steps.prepare("start CUDA in the worker", levers.initialise)
        went = suspend(steps, levers, canary, gpu)
        came = resume(steps, levers, canary)
        see_it_go_on(steps, canary)
        return GpuSuspend(
            outcome=Outcome(kind="done"),
            bytes_survived=True,
            mib_freed=went.freed // MIB,
            freed_by=went.freed_by,
            unlisted=went.unlisted,
            lock_s=went.lock_s,
            suspend_s=went.lock_s + went.checkpoint_s,
            resume_s=came.restore_s + came.unlock_s,
            suspend_gib_per_s=gib_per_s(went.freed, went.checkpoint_s),
            resume_gib_per_s=gib_per_s(went.freed, came.restore_s),
            worker_start_s=levers.started_s,
            init_s=levers.initialised_s,
        )
