"""Level-1 sleep and wake, some times over: times, memory through NVML, and the same tokens before and after."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterable
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from warmspare.control import host_memory
from warmspare.control.host_memory import MIB
from warmspare.model.facts import Count, Outcome, Proof, Seconds
from warmspare.trials import awaken
from warmspare.trials.sleeping.bench import ORDER_S, RESERVE_S, Bench
from warmspare.trials.sleeping.parts import CYCLES, Part

FREED_OF_OURS: Final = 0.5
"""An engine of ours gives at least this part back of what it holds: it keeps its context, graphs and kernels, up to
2 GiB, and was given 4 GiB or more."""
FREED_AT_LEAST: Final = 0.1
"""And one that was found, of all that is in use of its GPUs: others may be on them."""

Mib = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
"""A difference of memory, which may be below nothing."""


class SleepCycles(Proof, frozen=True, kw_only=True):
    """Level 1, `cycles` times. `done` where each freed memory, the engine came back, and its answers were the same.

    `first_*` are the first cycle's times, which also gets the host's memory; `sleep_s` and `wake_s` medians of the
    others. `mib_*` are of all its GPUs together: before the engine (None if it was found), awake, in the last sleep and
    awake after it; `mib_freed` is the least that a sleep gave back. `residue_mib` is what it keeps asleep,
    `residue_growth_mib` how much more that was in the last sleep than in the first. `host_mib_taken` is what the first
    sleep took of the host. `logprobs_within` is the largest difference of all answers; `first_token_after_wake_s` a
    median.
    """

    cycles: Count | None = None
    first_sleep_s: Seconds | None = None
    first_wake_s: Seconds | None = None
    sleep_s: Seconds | None = None
    wake_s: Seconds | None = None
    mib_before: Count | None = None
    mib_awake: Count | None = None
    mib_asleep: Count | None = None
    mib_after: Count | None = None
    mib_freed: Mib | None = None
    freed_by: Literal["nvml"] | None = None
    residue_mib: Mib | None = None
    residue_growth_mib: Mib | None = None
    host_mib_taken: Mib | None = None
    tokens_equal: bool | None = None
    logprobs_within: Annotated[float, msgspec.Meta(ge=0)] | None = None
    first_token_warm_s: Seconds | None = None
    first_token_after_wake_s: Seconds | None = None


class _Cycle(NamedTuple):
    """One cycle's figures; memory in MiB of all its GPUs together."""

    sleep_s: float
    wake_s: float
    first_token_s: float
    mib_awake: int
    mib_asleep: int
    mib_after: int
    host_mib: int
    apart: float
    tokens_same: bool
    same: bool


def sleep_cycles(bench: Bench) -> SleepCycles:
    """Sleep → memory freed → wake → the same answer, `host.cycles` times, as long as all is well and there is time."""
    done: list[_Cycle] = []
    problem = None
    url = bench.host.ask.url
    with awaken.kept_awake(bench.steps.scratch, url) if url else contextlib.nullcontext():
        while problem is None and len(done) < bench.host.cycles and _has_time(bench, done):
            done.append(_cycle(bench, len(done) + 1))
            problem = _problem(bench, done[-1])
    outcome = Outcome(kind="done")
    if problem:
        lever, detail = problem
        outcome = Outcome(kind="wrong", step=f"{lever} {len(done)}", detail=detail)
    return _told(bench, done, outcome)


def _cycle(bench: Bench, number: int) -> _Cycle:
    steps, engine = bench.steps, bench.engine
    awake, host = sum(bench.used_mib()), host_memory.free_bytes()
    slept = steps(f"sleep {number}", engine.sleep, 1, within_s=ORDER_S)
    asleep, host_mib = sum(bench.used_mib()), (host - host_memory.free_bytes()) // MIB
    woke = steps(f"wake {number}", engine.wake, within_s=ORDER_S)
    answer = steps(f"ask it after wake {number}", bench.answer)
    return _Cycle(
        sleep_s=round(slept.took_s, 4),
        wake_s=round(woke.took_s, 4),
        first_token_s=round(answer.first_token_s, 4),
        mib_awake=awake,
        mib_asleep=asleep,
        mib_after=sum(bench.used_mib()),
        host_mib=host_mib,
        apart=bench.apart(answer),
        tokens_same=answer.tokens == bench.reference.tokens,
        same=bench.is_right(answer),
    )


def _problem(bench: Bench, cycle: _Cycle) -> tuple[str, str] | None:
    """Which lever of a cycle did not do what it said, and how that shows; its figures are told all the same."""
    freed = cycle.mib_awake - cycle.mib_asleep
    held = cycle.mib_awake - sum(bench.mib_before or ())
    if freed < held * (FREED_OF_OURS if bench.mib_before else FREED_AT_LEAST):
        return "sleep", f"asleep, it gave back {max(0, freed)} of {held} MiB"
    if not cycle.same:
        return "wake", f"it answers otherwise after it than before: log-probabilities are {cycle.apart:.2g} apart"
    return None


def _has_time(bench: Bench, done: list[_Cycle]) -> bool:
    """Whether another cycle fits, with as much left for what follows."""
    return not done or bench.steps.left_s > RESERVE_S + 2 * max(one.sleep_s + one.wake_s for one in done)


def _told(bench: Bench, done: list[_Cycle], outcome: Outcome) -> SleepCycles:
    first, last, later = done[0], done[-1], done[1:]
    before = None if bench.mib_before is None else sum(bench.mib_before)
    return SleepCycles(
        outcome=outcome,
        cycles=len(done),
        first_sleep_s=first.sleep_s,
        first_wake_s=first.wake_s,
        sleep_s=_median(one.sleep_s for one in later),
        wake_s=_median(one.wake_s for one in later),
        mib_before=before,
        mib_awake=first.mib_awake,
        mib_asleep=last.mib_asleep,
        mib_after=last.mib_after,
        mib_freed=min(one.mib_awake - one.mib_asleep for one in done),
        freed_by="nvml",
        residue_mib=None if before is None else last.mib_asleep - before,
        residue_growth_mib=last.mib_asleep - first.mib_asleep if later else None,
        host_mib_taken=first.host_mib,
        tokens_equal=all(one.tokens_same for one in done),
        logprobs_within=round(max(one.apart for one in done), 6),
        first_token_warm_s=bench.first_token_warm_s,
        first_token_after_wake_s=_median(one.first_token_s for one in done),
    )


def _median(figures: Iterable[float]) -> float | None:
    found = list(figures)
    return round(statistics.median(found), 4) if found else None


PARTS: Final = (Part(SleepCycles, sleep_cycles, CYCLES, found_too=True),)
