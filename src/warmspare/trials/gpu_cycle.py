"""What the trials on a GPU canary do with it: suspend it, see its memory leave the GPU, resume it, see it go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, ParamSpec

from warmspare.control.checkpointer import Checkpointer, CheckpointFailed, Done
from warmspare.model.facts import Outcome
from warmspare.trials.api import LeverFailed, Steps
from warmspare.trials.free_memory import Instrument, Watch, lists
from warmspare.trials.given import Gpu
from warmspare.trials.gpu_beats import Canary
from warmspare.trials.on_gpu import GIB, MIB

A = ParamSpec("A")
WHOLE: Final = 0.9
"""The part of the pattern's size that must be seen to leave a GPU, or to come: others come and go meanwhile."""
END_S: Final = 0.5
"""How long the end of a canary that a driver's call has killed may take to be seen."""


class Suspended(NamedTuple):
    """What it took: the lock and the checkpoint in seconds, and what was seen freed from outside, in bytes.

    `unlisted`: NVML listed the process before, and no longer; None if it does not tell.
    """

    lock_s: float
    checkpoint_s: float
    freed: int
    freed_by: Instrument
    unlisted: bool | None


class Resumed(NamedTuple):
    """What it took, in seconds."""

    restore_s: float
    unlock_s: float


def suspend(steps: Steps, levers: Checkpointer, canary: Canary, gpu: Gpu) -> Suspended:
    """Lock, checkpoint, and see the memory leave the GPU: what the driver says of it is not enough."""
    watch = steps.prepare("see what is free", Watch, gpu)
    was_listed = lists(gpu.nvml, canary.pid)
    lock_s = pull(steps, canary, "lock", levers.lock, canary.pid, steps.patience_s / 2)
    checkpoint_s = pull(steps, canary, "checkpoint", levers.checkpoint, canary.pid, steps.patience_s)
    least = int(canary.size * WHOLE)
    freed = steps("see the memory freed", watch.rose, least, steps.patience_s / 3)
    if freed < least:
        told = f"{max(freed, 0) // MIB} MiB more are free, and it held {canary.size // MIB} of pattern alone"
        steps.wrong(f"the driver said it was done: {told}")
    unlisted = not lists(gpu.nvml, canary.pid) if was_listed else None
    return Suspended(lock_s, checkpoint_s, freed, watch.by, unlisted)


def resume(
    steps: Steps, levers: Checkpointer, canary: Canary, gpus: Mapping[str, str] = MappingProxyType({})
) -> Resumed:
    """Restore and unlock it. From here on the keeper ends it gently."""
    steps.restoring(canary.pid)
    restore_s = pull(steps, canary, "restore", levers.restore, canary.pid, steps.patience_s, gpus)
    return Resumed(restore_s, pull(steps, canary, "unlock", levers.unlock, canary.pid, steps.patience_s))


def see_it_go_on(steps: Steps, canary: Canary) -> None:
    """Its bytes are those from before, the graph counts on where it was, and so does the process."""
    if problem := steps("see it go on", canary.went_on):
        steps.wrong(problem)


def pull(steps: Steps, canary: Canary, name: str, lever: Callable[A, Done], *args: A.args, **kwargs: A.kwargs) -> float:
    """Pull one lever of the driver on the canary: its seconds. Where the canary dies of it, that is the outcome."""
    try:
        return steps(name, lever, *args, **kwargs).took_s
    except CheckpointFailed as failed:
        if (code := canary.ended(END_S)) is None:
            raise
        raise LeverFailed(Outcome(kind="died", step=name, code=code, detail=f"the canary; {failed}")) from failed


def gib_per_s(size: int, took_s: float) -> float | None:
    """The pace of a copy; None where it took no time that could be told."""
    return round(size / GIB / took_s, 3) if took_s else None
