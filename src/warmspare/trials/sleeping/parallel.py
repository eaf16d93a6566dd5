"""Sleep Mode of one engine on two GPUs: by data parallelism, and by tensor parallelism."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from warmspare.control.vllm import Completion, EngineFailed
from warmspare.model.facts import Cause, Count, Outcome, Proof, Seconds, Subject
from warmspare.trials.api import NotTried
from warmspare.trials.sleeping.asleep import End, sent_asleep
from warmspare.trials.sleeping.bench import ANSWER_S, ORDER_S, Bench
from warmspare.trials.sleeping.launch import SOONER
from warmspare.trials.sleeping.parts import OTHER_ENGINES, Part
from warmspare.trials.sleeping.serving import WORD_S, Asked
from warmspare.trials.sleeping.vram import memory_of

GPUS: Final = 2
CYCLES: Final = 4
KEPT: Final = 2
"""Asleep, it must hold less of each GPU than this part of what it held awake: its graphs and communicators stay."""


class Share(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the engine held of one GPU, through NVML: before it, awake, in its last sleep, awake again."""

    subject: Subject
    mib_before: Count
    mib_awake: Count
    mib_asleep: Count
    mib_after: Count

    @property
    def mib_freed(self) -> int:
        """What its sleep gave back; 0 if it took more."""
        return max(0, self.mib_awake - self.mib_asleep)


class _OnTwo(Proof, frozen=True, kw_only=True):
    """What is told of an engine on two GPUs, however it is spread over them."""

    shares: tuple[Share, ...] | None = None
    cold_start_s: Seconds | None = None
    cycles: Count | None = None
    sleep_s: Seconds | None = None
    wake_s: Seconds | None = None
    tokens_equal: bool | None = None
    is_sleeping_awake: bool | None = None
    is_sleeping_asleep: bool | None = None
    request_asleep: End | None = None


class SleepDataParallel(_OnTwo, frozen=True, kw_only=True):
    """An engine with a replica on each of two GPUs. `done` where each freed its memory and all answers were right.

    The times are medians of the level-1 cycles. `is_sleeping_*` is what it said of itself; `request_asleep` is what
    became of a request while it slept.
    """


class SleepTensorParallel(_OnTwo, frozen=True, kw_only=True):
    """An engine spread over two GPUs. Its figures are those of `SleepDataParallel`."""


def sleep_data_parallel(bench: Bench) -> SleepDataParallel:
    """Cycles of an engine with two replicas, each of which is by itself what the first engine was."""
    flags = ("--data-parallel-size", str(GPUS), *SOONER)
    return msgspec.convert(_on_two(bench, flags, replicas=GPUS), SleepDataParallel)


def sleep_tensor_parallel(bench: Bench) -> SleepTensorParallel:
    """Cycles of an engine on two GPUs; with graphs, whose capture has failed in this way elsewhere, if the user has."""
    without = SOONER if set(SOONER) <= set(bench.host.ask.flags or ()) else ()
    flags = ("--tensor-parallel-size", str(GPUS), *without)
    return msgspec.convert(_on_two(bench, flags, replicas=1), SleepTensorParallel)


def _on_two(bench: Bench, flags: tuple[str, ...], replicas: int) -> dict[str, Any]:
    if len(bench.host.gpus) < GPUS:
        raise NotTried(Cause.SKIPPED, "it takes two GPUs that nobody uses")
    gpus = bench.host.gpus[:GPUS]
    before = [memory_of(gpu).used_mib for gpu in gpus]
    with bench.another(flags, gpus) as engine:
        return _cycled(engine, before, replicas)


def _cycled(bench: Bench, before: list[int], replicas: int) -> dict[str, Any]:
    """Cycles, each looked at on each GPU and through every replica; then a request while it sleeps."""
    steps, engine = bench.steps, bench.engine
    found: dict[str, Any] = {"cold_start_s": bench.cold_start_s, "cycles": CYCLES}
    if not steps("ask each replica awake", _all_right, bench, replicas):
        raise NotTried(Cause.INVALID, "its replicas answer differently, awake all the time: nothing can be compared")
    found["is_sleeping_awake"] = steps("ask whether it sleeps, awake", engine.is_sleeping, WORD_S)
    slept, woke, right = [], [], True
    awake = bench.used_mib()
    asleep = after = awake
    for _ in range(CYCLES):
        steps("sleep", engine.sleep, 1, within_s=ORDER_S)
        asleep = bench.used_mib()
        found["is_sleeping_asleep"] = steps("ask whether it sleeps", engine.is_sleeping, WORD_S)
        steps("wake", engine.wake, within_s=ORDER_S)
        slept.append(steps.took_s["sleep"])
        woke.append(steps.took_s["wake"])
        right = right and steps("ask it", _all_right, bench, replicas)
        after = bench.used_mib()
    shares = tuple(
        Share(subject=gpu.subject, mib_before=row[0], mib_awake=row[1], mib_asleep=row[2], mib_after=row[3])
        for gpu, *row in zip(bench.gpus, before, awake, asleep, after, strict=True)
    )
    found |= {
        "shares": shares,
        "sleep_s": round(statistics.median(slept), 4),
        "wake_s": round(statistics.median(woke), 4),
        "tokens_equal": right,
    }
    if problem := _problem(shares, found):
        return {**found, "outcome": Outcome(kind="wrong", step=steps.current, detail=problem)}
    asked = sent_asleep(bench)
    return {**found, "outcome": asked.outcome, "request_asleep": asked.end}


def _all_right(bench: Bench, replicas: int) -> bool:
    """Whether each replica answers what one answered at first.

    Asked at once, since a request goes to the replica that has the fewest; each then answers alone, as it did before.
    """
    bench.engine.reset_prefix_cache()
    asked = [Asked(bench, ANSWER_S) for _ in range(replicas)]
    answers = [one.answer(ANSWER_S + WORD_S) for one in asked]
    for answer in answers:
        if isinstance(answer, EngineFailed):
            raise answer
    return all(isinstance(answer, Completion) and bench.is_right(answer) for answer in answers)


def _problem(shares: Iterable[Share], found: dict[str, Any]) -> str | None:
    for share in shares:
        held, kept = share.mib_awake - share.mib_before, share.mib_asleep - share.mib_before
        if KEPT * kept >= held:
            return f"asleep it kept {kept} of {held} MiB of {share.subject}"
    return None if found["tokens_equal"] else "other tokens came after a wake"


PARTS = (
    Part(
        SleepDataParallel,
        sleep_data_parallel,
        OTHER_ENGINES,
        needs_full=True,
        own_engine=True,
        meant=lambda flags: flags.data_parallel > 1,
    ),
    Part(
        SleepTensorParallel,
        sleep_tensor_parallel,
        OTHER_ENGINES,
        needs_full=True,
        own_engine=True,
        meant=lambda flags: flags.tensor_parallel > 1,
    ),
)
