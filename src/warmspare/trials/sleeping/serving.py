"""Whether an engine serves: it is awake, and answers what it answered before. Every part ends by asking that."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from warmspare.control.vllm import Completion, EngineFailed
from warmspare.model.facts import Outcome
from warmspare.trials.sleeping.bench import Bench

ANSWER_S: Final = 60.0
"""How long an engine that is awake may take to answer: some compile again after a wake."""
ORDER_S: Final = 120.0
"""How long it may take to sleep or to wake: 1.7 s for 16 GiB on an H100, and 20 GiB/s is not had everywhere."""
WORD_S: Final = 5.0
"""How long it may take to say how it is."""


class Asked:
    """A request on its way, in a thread of its own, since its answer may be long in coming."""

    def __init__(self, bench: Bench, within_s: float) -> None:
        """Ask what the bench always asks, and give up after so many seconds."""
        pool = ThreadPoolExecutor(1)
        self._answer = pool.submit(bench.engine.complete, bench.prompt, bench.tokens, within_s)
        pool.shutdown(wait=False)

    def answer(self, within_s: float) -> Completion | EngineFailed | None:
        """What it was answered, or how it was refused; None if it is still open after so many seconds."""
        try:
            return self._answer.result(within_s)
        except TimeoutError:
            return None
        except EngineFailed as failed:
            return None if failed.how == "hung" else failed


def not_serving(bench: Bench) -> str | None:
    """Why the engine does not serve, or None; one that says that it sleeps is woken first."""
    if bench.has_ended():
        return "the engine has ended"
    try:
        if bench.engine.is_sleeping(WORD_S):
            bench.engine.wake(within_s=ORDER_S)
        if bench.engine.is_sleeping(WORD_S):
            return "it still says that it sleeps after a wake"
        answer = bench.answer(ANSWER_S)
    except EngineFailed as failed:
        return str(failed)
    return None if bench.is_right(answer) else "it answers other tokens than before"


def serves(bench: Bench) -> bool:
    """Whether it is awake, or can be woken, and answers rightly."""
    return not_serving(bench) is None


@contextlib.contextmanager
def left_serving(bench: Bench) -> Iterator[None]:
    """See to it that the engine serves in the end, however this ends; the bench is told if it does not."""
    try:
        yield
    finally:
        # No step: the step at which this ended is what its outcome names.
        if bench.lost is None and (why := not_serving(bench)):
            bench.lost = why


def judged(bench: Bench, *problems: tuple[bool, str]) -> Outcome:
    """`done`, or `wrong` at the current step with the first problem that there is."""
    for is_one, detail in problems:
        if is_one:
            return Outcome(kind="wrong", step=bench.steps.current, detail=detail)
    return Outcome(kind="done")
