"""What becomes of a request that reaches an engine while it sleeps."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Final, Literal

from warmspare.control.vllm import Completion, EngineFailed
from warmspare.model.facts import Count, Outcome, Proof, Seconds
from warmspare.trials.sleeping.bench import ANSWER_S, ORDER_S, Bench
from warmspare.trials.sleeping.parts import REQUESTS, Part
from warmspare.trials.sleeping.serving import Asked, judged, left_serving, lives

LISTEN_S: Final = 2.0
"""How long the engine is given to refuse a request, or to die of it, before it is woken."""

End = Literal["served", "served_asleep", "refused", "lost", "fatal"]
"""Served once the engine was awake, or while it said that it slept; refused, then or at the wake, by an engine that
lives; never answered; or the engine did not survive it: it has ended, or its /health is not 200."""


class RequestAsleep(Proof, frozen=True, kw_only=True):
    """A request to an engine that sleeps at level 1. The outcome is `done` if it was served or refused.

    `status` is the HTTP status it was answered with, None if it got none. It was answered `waited_s` after the engine
    was told to wake, None if before. `tokens_equal` of its own answer, `serves_after` of another request that followed.
    """

    end: End | None = None
    status: Count | None = None
    waited_s: Seconds | None = None
    tokens_equal: bool | None = None
    serves_after: bool | None = None


def request_asleep(bench: Bench) -> RequestAsleep:
    """What becomes of a request while the engine sleeps; it is left serving, or lost."""
    with left_serving(bench):
        return sent_asleep(bench)


def sent_asleep(bench: Bench) -> RequestAsleep:
    """Sleep → a request, which must be refused or stay open → wake → its answer → another request."""
    steps, engine = bench.steps, bench.engine
    steps("sleep", engine.sleep, 1, within_s=ORDER_S)
    asked = Asked(bench, LISTEN_S + ORDER_S + ANSWER_S)
    early = steps("send a request to it asleep", asked.answer, LISTEN_S)
    if isinstance(early, EngineFailed):
        return _refused(bench, early)
    if early is not None:
        return _served_asleep(bench, early)
    told = time.monotonic()
    try:
        steps("wake", engine.wake, within_s=ORDER_S)
    except EngineFailed as failed:
        why = bench.awake()
        if why and not lives(bench):
            return _fatal(bench, failed, why)
        return RequestAsleep(outcome=steps.broke(failed), serves_after=not why)
    answer = steps("wait for its answer", asked.answer, ANSWER_S)
    return _answered(bench, answer, round(time.monotonic() - told, 4))


def _served_asleep(bench: Bench, answer: Completion) -> RequestAsleep:
    """No service: an engine that computes still has its memory, or computes with what is no longer its own."""
    right = bench.is_right(answer)
    outcome = Outcome(
        kind="wrong", step=bench.steps.current, detail="it answered a request while it said that it slept"
    )
    return RequestAsleep(
        outcome=outcome,
        end="served_asleep",
        status=HTTPStatus.OK.value,
        tokens_equal=right,
        serves_after=not bench.awake(),
    )


def _refused(bench: Bench, failed: EngineFailed, waited_s: float | None = None) -> RequestAsleep:
    """A refusal is one only if the engine lives; a status may also be the last that it says."""
    why = bench.awake()
    if why and not lives(bench):
        return _fatal(bench, failed, why)
    broke = failed.status is None
    return RequestAsleep(
        outcome=judged(bench, (broke, f"its connection broke: {failed}"), (bool(why), f"after its refusal {why}")),
        end="lost" if broke else "refused",
        status=failed.status,
        waited_s=waited_s,
        serves_after=not why,
    )


def _answered(bench: Bench, answer: Completion | EngineFailed | None, waited_s: float) -> RequestAsleep:
    """What came after the wake: tokens, a refusal, or nothing; and whether the engine serves."""
    if isinstance(answer, EngineFailed):
        return _refused(bench, answer, waited_s)
    why = bench.awake()
    if answer is None:
        silent = f"no answer within {ANSWER_S:g} s of the wake; {why or 'other requests are answered'}"
        outcome = Outcome(kind="hung", step=bench.steps.current, detail=silent[:300])
        return RequestAsleep(outcome=outcome, end="fatal" if why and not lives(bench) else "lost", serves_after=not why)
    right = bench.is_right(answer)
    return RequestAsleep(
        outcome=judged(
            bench, (not right, "it was answered other tokens than one to an engine awake"), (bool(why), str(why))
        ),
        end="served",
        status=HTTPStatus.OK.value,
        waited_s=waited_s,
        tokens_equal=right,
        serves_after=not why,
    )


def _fatal(bench: Bench, failed: EngineFailed, why: str) -> RequestAsleep:
    """The engine did not survive it: what it said last, and why it does not serve."""
    outcome = Outcome(kind="died", step=bench.steps.current, code=failed.code, detail=f"{failed}; {why}"[:300])
    return RequestAsleep(outcome=outcome, end="fatal", status=failed.status, serves_after=False)


PARTS = (Part(RequestAsleep, request_asleep, REQUESTS),)
