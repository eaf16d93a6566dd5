"""Orders that make no sense: sleep while asleep, wake while awake, tags and levels that there are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from warmspare.control.vllm import EngineFailed
from warmspare.model.facts import Count, Outcome, Proof
from warmspare.trials.sleeping.bench import ANSWER_S, ORDER_S, Bench
from warmspare.trials.sleeping.parts import LEVEL_2, Part
from warmspare.trials.sleeping.serving import WORD_S, left_serving, lives

NO_TAG: Final = "warmspare-has-no-such-tag"
NO_LEVEL: Final = 7

Answer = Count | Literal["fatal", "hung"]
"""The HTTP status; or the engine did not survive it, or gave no answer in time."""


class SleepRepeated(Proof, frozen=True, kw_only=True):
    """How the engine answered each, and whether it was then what it was before. `done` where it served after each.

    `bad_tags` is a wake of an engine that sleeps, with a tag that there is not; `woke_by_bad_tags`: it took that for a
    wake. `bad_level` is `level=7`; `slept_at_bad_level`: it took that for a sleep; `bad_level_lost_weights`: woken, it
    was without its weights, which `reload_mends` if they can be had again. `serves_after`: in the end it was awake and
    answered rightly.
    """

    sleep_while_asleep: Answer | None = None
    wake_while_awake: Answer | None = None
    bad_tags: Answer | None = None
    woke_by_bad_tags: bool | None = None
    bad_level: Answer | None = None
    slept_at_bad_level: bool | None = None
    bad_level_lost_weights: bool | None = None
    reload_mends: bool | None = None
    serves_after: bool | None = None


def sleep_repeated(bench: Bench) -> SleepRepeated:
    """Each senseless order from a known state; after each the engine is brought back and must serve.

    The bad level comes last: engines that take any number drop their weights at this one, and with them buffers that no
    reload brings back.
    """
    found: dict[str, Any] = {}
    outcome = Outcome(kind="done")
    with left_serving(bench):
        for order in (_sleep_twice, _wake_twice, _wake_by_a_bad_tag, _sleep_at_a_bad_level):
            found |= order(bench)
            why = bench.awake()
            found["serves_after"] = why is None
            if why:
                fatal = "fatal" in found.values()
                outcome = Outcome(kind="died" if fatal else "wrong", step=bench.steps.current, detail=why[:300])
                break
    return msgspec.convert({**found, "outcome": outcome}, SleepRepeated)


def _sleep_twice(bench: Bench) -> dict[str, Any]:
    steps, engine = bench.steps, bench.engine
    steps("sleep", engine.sleep, 1, within_s=ORDER_S)
    answer = steps("sleep while asleep", _answer, bench, lambda: engine.sleep(1, within_s=ORDER_S).status)
    return {"sleep_while_asleep": answer}


def _wake_twice(bench: Bench) -> dict[str, Any]:
    steps, engine = bench.steps, bench.engine
    answer = steps("wake while awake", _answer, bench, lambda: engine.wake(within_s=ORDER_S).status)
    return {"wake_while_awake": answer}


def _wake_by_a_bad_tag(bench: Bench) -> dict[str, Any]:
    steps, engine = bench.steps, bench.engine
    steps("sleep again", engine.sleep, 1, within_s=ORDER_S)
    answer = steps("wake by a bad tag", _answer, bench, lambda: engine.wake((NO_TAG,), within_s=ORDER_S).status)
    if answer == "fatal":
        return {"bad_tags": answer}
    return {"bad_tags": answer, "woke_by_bad_tags": not steps("ask whether it sleeps", engine.is_sleeping, WORD_S)}


def _sleep_at_a_bad_level(bench: Bench) -> dict[str, Any]:
    steps, engine = bench.steps, bench.engine
    answer = steps("sleep at a bad level", _answer, bench, lambda: engine.sleep(NO_LEVEL, within_s=ORDER_S).status)
    if answer == "fatal":
        return {"bad_level": answer}
    slept = steps("ask whether it sleeps now", engine.is_sleeping, WORD_S)
    found = {"bad_level": answer, "slept_at_bad_level": slept}
    if not slept:
        return found
    steps("wake from the bad level", engine.wake, within_s=ORDER_S)
    lost = not bench.is_right(steps("ask it", bench.answer, ANSWER_S))
    if not lost:
        return {**found, "bad_level_lost_weights": False}
    steps("reload the weights", engine.reload_weights, within_s=ORDER_S)
    mends = bench.is_right(steps("ask it with its weights", bench.answer, ANSWER_S))
    return {**found, "bad_level_lost_weights": True, "reload_mends": mends}


def _answer(bench: Bench, order: Callable[[], int]) -> Answer:
    """How the engine answers an order that may be refused, and may end it."""
    try:
        return order()
    except EngineFailed as failed:
        if failed.status is not None and lives(bench):
            return failed.status
        return "hung" if failed.how == "hung" else "fatal"


PARTS = (Part(SleepRepeated, sleep_repeated, LEVEL_2, fatal_ok=True),)
