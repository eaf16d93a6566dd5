"""Suspend a process on one GPU, restore it on another of the same kind, and see its memory and its bytes there."""

from __future__ import annotations

from warmspare.control.checkpointer import Checkpointer
from warmspare.model.facts import Count, Outcome, Proof, Seconds, Text
from warmspare.trials.api import Steps, trial
from warmspare.trials.free_memory import Watch
from warmspare.trials.gpu_beats import Canary
from warmspare.trials.gpu_cycle import WHOLE, resume, see_it_go_on, suspend
from warmspare.trials.on_gpu import MIB
from warmspare.trials.suspendable import Move


class GpuMove(Proof, frozen=True, kw_only=True):
    """The canary suspended on the first GPU of `pair` and resumed on the second, its bytes and counts.

    `mib_freed` were seen to leave the one, `mib_used` to come to the other.
    """

    pair: Text | None = None
    bytes_survived: bool | None = None
    mib_freed: Count | None = None
    mib_used: Count | None = None
    suspend_s: Seconds | None = None
    resume_s: Seconds | None = None


@trial(
    deadline=60,
    touches="at most 256 MiB, and a tenth of the free memory, of two GPUs, in a process of its own that is moved",
    restores=True,
)
def gpu_move(steps: Steps, move: Move) -> GpuMove:
    """Suspend here, restore there: memory used there, still free here, bytes equal, counts gone on."""
    with Checkpointer() as levers:
        canary = steps.prepare("start the canary", Canary, steps, move.source)
        steps.prepare("start CUDA in the worker", levers.initialise)
        here, there = (steps.prepare(f"see what is free on {gpu.subject}", Watch, gpu) for gpu in move.gpus)
        went = suspend(steps, levers, canary, move.source)
        came = resume(steps, levers, canary, move.there)
        least = int(canary.size * WHOLE)
        used = steps("see its memory there", there.fell, least, steps.patience_s)
        if used < least:
            steps.wrong(f"the driver said it was done, and {max(used, 0) // MIB} MiB are used on {move.target.subject}")
        if steps("see none of it here", here.rose, least, steps.patience_s) < least:
            steps.wrong(f"the driver said it was done, and its memory is still on {move.source.subject}")
        see_it_go_on(steps, canary)
    return GpuMove(
        outcome=Outcome(kind="done"),
        pair=f"{move.source.subject}→{move.target.subject}",
        bytes_survived=True,
        mib_freed=went.freed // MIB,
        mib_used=used // MIB,
        suspend_s=went.lock_s + went.checkpoint_s,
        resume_s=came.restore_s + came.unlock_s,
    )
