"""Wake an engine when its memory has been taken meanwhile."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Final, Literal, NamedTuple

from warmspare.control import cuda_abi as abi
from warmspare.control.cuda import Buffer, Context, CudaError
from warmspare.control.vllm import EngineFailed
from warmspare.host import nvml
from warmspare.model.facts import Cause, Count, Outcome, Proof, Seconds, Text
from warmspare.trials import on_gpu
from warmspare.trials.api import NotTried
from warmspare.trials.free_memory import free_by_nvml
from warmspare.trials.given import Gpu
from warmspare.trials.sleeping import whose
from warmspare.trials.sleeping.bench import ANSWER_S, ORDER_S, Bench
from warmspare.trials.sleeping.parts import LAST, Part
from warmspare.trials.sleeping.serving import WORD_S, judged, left_serving, lives

LEFT: Final = 4
"""Of what the engine gave back, this part of it is left free: some of a wake goes well, as it does in an accident."""
LARGE: Final = 4 * on_gpu.GIB
SMALL: Final = 2 * on_gpu.MIB
"""Between these sizes are the pieces in which it is taken."""

Then = Literal["recovers", "wedged", "garbage", "dead"]
"""After the memory was given back and it was woken again: it answers rightly, not at all, wrongly; or it had ended."""


class WakeWithoutRoom(Proof, frozen=True, kw_only=True):
    """A wake with too little memory free. `done` where it failed with a status and a second one, with room, recovered.

    `mib_taken` by a process of the trial's. `status` and `said` are how the first wake was refused: status None if the
    engine broke off or gave no answer. `health_after` is /health between the two. `second_status` is the
    second wake's.
    """

    mib_taken: Count | None = None
    status: Count | None = None
    said: Text | None = None
    refused_s: Seconds | None = None
    health_after: Count | None = None
    second_status: Count | None = None
    then: Then | None = None
    recovers: bool | None = None


def wake_without_room(bench: Bench) -> WakeWithoutRoom:
    """Sleep → its memory is taken → wake, which must fail and say so → given back → wake → tokens.

    Raises:
        NotTried: under WSL2, where the driver may page the memory out instead; or somebody else is on the GPU.
    """
    steps, engine = bench.steps, bench.engine
    gpu = _alone(bench)
    with left_serving(bench):
        context = steps.prepare("open the GPU", on_gpu.opened, gpu)
        try:
            before = _free(gpu)
            steps("sleep", engine.sleep, 1, within_s=ORDER_S)
            freed = _free(gpu) - before
            if freed < LEFT * SMALL:
                steps.wrong(f"its sleep gave {max(0, freed) // on_gpu.MIB} MiB back: too little to take")
            taken = steps("take its memory", _take, context, gpu, freed // LEFT)
            begun = time.monotonic()
            first = steps("wake without room", _woken, bench)
            refused_s = round(time.monotonic() - begun, 4)
            health = _health(bench)
            for buffer in taken:
                buffer.free()
        finally:
            context.release()
        second = steps("wake with room", _woken, bench)
        then = steps("see whether it serves", _then, bench)
        if then != "recovers":
            bench.lost = f"woken without room, and then with room: {then}"
    return WakeWithoutRoom(
        outcome=_outcome(bench, first, then),
        mib_taken=sum(buffer.size for buffer in taken) // on_gpu.MIB,
        status=first.status,
        said=first.said,
        refused_s=refused_s,
        health_after=health,
        second_status=second.status,
        then=then,
        recovers=then == "recovers",
    )


class Woken(NamedTuple):
    """What a wake was answered: its HTTP status, None if there was none; what was said, if it was refused."""

    status: int | None
    said: str | None = None


def _alone(bench: Bench) -> Gpu:
    """The GPU to take memory of: on none of the engine's is a process that is not seen to be the engine's own."""
    if bench.host.wsl2:
        raise NotTried(Cause.SKIPPED, "never under WSL2: the driver pages memory out, and may stall the whole machine")
    top = bench.server.pid if bench.server else None
    own = {top, *whose.below(top)} if top else set()
    for gpu in bench.gpus:
        listed = nvml.all_pids(gpu.nvml) if gpu.nvml is not None else None
        # None of its own, though it runs there: the list is empty, or has another pid namespace's numbers.
        if not listed or not listed & own:
            raise NotTried(
                Cause.SKIPPED, f"cannot see who else is on {gpu.subject}: NVML lists no process of the engine"
            )
        if listed - own:
            raise NotTried(Cause.SKIPPED, f"another process is on {gpu.subject}")
    return bench.gpus[0]


def _free(gpu: Gpu) -> int:
    free = free_by_nvml(gpu.nvml)
    if free is None:
        raise NotTried(Cause.SKIPPED, f"NVML does not tell how much of {gpu.subject} is free")
    return free


def _take(context: Context, gpu: Gpu, leave: int) -> list[Buffer]:
    """Allocate until no more than `leave` bytes are free, in ever smaller pieces as it gets tight."""
    taken: list[Buffer] = []
    size = LARGE
    while size >= SMALL:
        if _free(gpu) - leave < size:
            size //= 2
            continue
        try:
            taken.append(context.allocate(size))
        except CudaError as error:
            if error.result != abi.OUT_OF_MEMORY:
                raise
            size //= 2
    return taken


def _woken(bench: Bench) -> Woken:
    """Tell it to wake; a refusal is what is looked for."""
    try:
        return Woken(bench.engine.wake(within_s=ORDER_S).status)
    except EngineFailed as failed:
        return Woken(failed.status, str(failed)[:300])


def _health(bench: Bench) -> int | None:
    try:
        return bench.engine.health(WORD_S)
    except EngineFailed:
        return None


def _then(bench: Bench) -> Then:
    """What is left of the engine: it is asked, and nothing is done for it any more."""
    try:
        answer = bench.answer(ANSWER_S)
    except EngineFailed:
        return "wedged" if lives(bench) else "dead"
    return "recovers" if bench.is_right(answer) else "garbage"


def _outcome(bench: Bench, first: Woken, then: Then) -> Outcome:
    if first.status is None:
        detail = f"a wake without room had no answer: {first.said}"[:300]
        return Outcome(kind="died" if then == "dead" else "hung", step="wake without room", detail=detail)
    if first.status == HTTPStatus.OK:
        return Outcome(
            kind="wrong", step="wake without room", detail=f"it said that it woke, without room; then: {then}"
        )
    return judged(bench, (then != "recovers", f"given its memory back and woken again: {then}"))


PARTS = (Part(WakeWithoutRoom, wake_without_room, LAST, needs_full=True, fatal_ok=True),)
