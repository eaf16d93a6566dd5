"""What becomes of a request in flight when its engine is put to sleep, in each of the three ways that vLLM has."""

from __future__ import annotations

import time
from typing import Final, Literal

import msgspec

from warmspare.control.vllm import EngineFailed
from warmspare.control.vllm_stream import Stream
from warmspare.model.facts import Count, Outcome, Proof, Seconds, Text
from warmspare.trials.sleeping.bench import ANSWER_S, ORDER_S, Bench
from warmspare.trials.sleeping.parts import REQUESTS, Part
from warmspare.trials.sleeping.serving import judged, left_serving
from warmspare.trials.sleeping.spots import is_right_as_far

LONG: Final = 384
"""Tokens asked for: half a second and more of a small model's, when telling it to sleep takes milliseconds."""
FEW: Final = 4
"""So many must have come before the engine is told to sleep."""
GRACE_S: Final = 1.0
"""How long after the engine said that it sleeps a stream may take to end."""

Ended = Literal["aborted", "finished", "resumed", "cut", "broken", "lost"]
"""Ended before the engine slept, cut short and said so, or whole; whole after it woke; ended with fewer tokens than
were asked for and no word of an abort; its connection broken; or still open and silent long after the engine woke."""


Mode = Literal["abort", "wait", "keep"]
MODES: Final[tuple[Mode, ...]] = ("abort", "wait", "keep")


class Way(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One request in flight. `ended` is None where the engine refused to sleep this way, with the HTTP `status`.

    `tokens_right`: what came is what came before, token by token, as far as it came. `sleep_s` is how long the engine
    took to say that it slept. `alive`: it was awake afterwards and answered another request rightly.
    """

    ended: Ended | None = None
    status: Count | None = None
    finish_reason: Text | None = None
    tokens_got: Count | None = None
    tokens_right: bool | None = None
    sleep_s: Seconds | None = None
    alive: bool = False


class RequestInFlight(Proof, frozen=True, kw_only=True):
    """Requests in flight: cut short (`abort`), waited for (`wait`) and frozen (`keep`).

    `done` where each stream ended, no token was wrong, and the engine lived.
    """

    abort: Way | None = None
    wait: Way | None = None
    keep: Way | None = None


class Came:
    """The tokens of a stream, as they come."""

    def __init__(self, stream: Stream) -> None:
        """Nothing has come yet."""
        self._stream = stream
        self._tokens: tuple[int, ...] = ()

    def few(self) -> None:
        """Wait for the first few.

        Raises:
            EngineFailed: they do not come.
        """
        while len(self._tokens) < FEW:
            piece = self._stream.wait_piece(ANSWER_S)
            if piece is None:
                raise self._stream.failure or EngineFailed(f"no token within {ANSWER_S:g} s", "a stream", how="hung")
            self._tokens += piece.tokens

    def tokens(self) -> tuple[int, ...]:
        """All that have come by now."""
        while piece := self._stream.wait_piece(0):
            self._tokens += piece.tokens
        return self._tokens


def request_in_flight(bench: Bench) -> RequestInFlight:
    """For each way: a long stream → a few tokens → sleep → how it ends → wake → how it goes on → its tokens."""
    with left_serving(bench):
        whole = bench.steps.prepare("ask for a long answer awake", bench.fresh, bench.prompt, LONG, ANSWER_S).tokens
        ways: dict[Mode, Way] = {}
        for mode in MODES:
            ways[mode] = _way(bench, mode, whole)
            if not ways[mode].alive:
                break
    problems = [(problem, f"{mode}: {detail}") for mode, way in ways.items() for problem, detail in _problems(way)]
    outcome = judged(bench, *problems)
    if bench.lost:
        outcome = Outcome(kind="died", step=bench.steps.current, detail=f"{outcome.detail}; {bench.lost}"[:300])
    return RequestInFlight(outcome=outcome, **ways)


def _problems(way: Way) -> tuple[tuple[bool, str], ...]:
    return (
        (not way.alive, "the engine did not survive it"),
        (way.ended in ("cut", "broken", "lost"), f"the stream was {way.ended}"),
        (way.tokens_right is False, "wrong tokens came"),
    )


def _way(bench: Bench, mode: Mode, whole: tuple[int, ...]) -> Way:
    steps, engine = bench.steps, bench.engine
    bench.engine.reset_prefix_cache()
    with engine.stream(bench.prompt, LONG) as stream:
        came = Came(stream)
        steps.prepare(f"{mode}: begin a stream", came.few)
        told = time.monotonic()
        try:
            steps(f"{mode}: sleep", engine.sleep, 1, mode=mode, within_s=ORDER_S)
        except EngineFailed as failed:
            if failed.status is None:
                raise
            return Way(status=failed.status, alive=not bench.awake())
        sleep_s = round(time.monotonic() - told, 4)
        reason = steps(f"{mode}: see how the stream ends", stream.ended, GRACE_S)
        ended_asleep = reason is not None
        woke = steps(f"{mode}: wake", _wakes, bench)
        if reason is None and woke:
            reason = steps(f"{mode}: see how the stream goes on", stream.ended, ANSWER_S)
        got = came.tokens()
    ended = _ended(reason, len(got), asleep=ended_asleep)
    alive = woke and not bench.awake()
    return Way(
        ended=ended,
        finish_reason=None if ended in ("broken", "lost") else reason,
        tokens_got=len(got),
        tokens_right=is_right_as_far(bench, got, whole) if alive else got == whole[: len(got)],
        sleep_s=sleep_s,
        alive=alive,
    )


def _wakes(bench: Bench) -> bool:
    """Wake it. What hinders it is found out, and told, by whoever asks whether it serves."""
    try:
        bench.engine.wake(within_s=ORDER_S)
    except EngineFailed:
        return False
    return True


def _ended(reason: str | None, tokens: int, *, asleep: bool) -> Ended:
    if reason is None:
        return "lost"
    if reason == "broken":
        return "broken"
    if reason == "abort":
        return "aborted"
    if tokens < LONG:
        return "cut"
    return "finished" if asleep else "resumed"


PARTS = (Part(RequestInFlight, request_in_flight, REQUESTS),)
