"""Whether an engine serves: it is awake, and answers what it answered before. Every part ends by asking that."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from warmspare.control.vllm import Completion, EngineFailed
from warmspare.model.facts import Outcome

if TYPE_CHECKING:
    from warmspare.trials.sleeping.bench import Bench

WORD_S: Final = 5.0
"""How long an engine may take to say how it is."""


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


def lives(bench: Bench) -> bool:
    """Whether its core has not died, as far as /health knows; an engine that has ended does not answer that at all."""
    try:
        return bench.engine.health(WORD_S) == HTTPStatus.OK
    except EngineFailed:
        return False


@contextlib.contextmanager
def ends_told(bench: Bench) -> Iterator[None]:
    """Tell a refusal that was the last word of an engine for what it is.

    Raises:
        EngineFailed: as it came; or `died`, where /health is no longer 200.
    """
    try:
        yield
    except EngineFailed as failed:
        if failed.how != "refused" or not bench.runs or lives(bench):
            raise
        detail = f"{failed.detail}; then /health was not 200"
        raise EngineFailed(failed.code, detail, status=failed.status, how="died") from failed


@contextlib.contextmanager
def left_serving(bench: Bench) -> Iterator[None]:
    """See to it that the engine is awake and serves in the end, or that the bench knows that it is lost."""
    try:
        yield
    finally:
        # By no step of its own: an outcome names the step at which this ended.
        bench.awake()


def judged(bench: Bench, *problems: tuple[bool, str]) -> Outcome:
    """`done`, or `wrong` at the current step with the first problem that there is."""
    for is_one, detail in problems:
        if is_one:
            return Outcome(kind="wrong", step=bench.steps.current, detail=detail)
    return Outcome(kind="done")
