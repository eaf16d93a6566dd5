"""Two engines on one GPU, of which each wants more than half: while one is awake the other sleeps."""

from __future__ import annotations

import contextlib
import statistics
import time
from typing import Final

from warmspare.model.facts import Count, Proof, Seconds
from warmspare.trials.sleeping.bench import ANSWER_S, ORDER_S, Bench
from warmspare.trials.sleeping.launch import SOONER
from warmspare.trials.sleeping.parts import OTHER_ENGINES, Part
from warmspare.trials.sleeping.serving import judged

SWAPS: Final = 4
SHARE: Final = 0.6
"""Of what is free, each takes this: with both awake there would be no room."""
KEPT: Final = 4
"""The first must keep less than this part of that asleep, so that the second finds as much free."""


class EnginesTakeTurns(Proof, frozen=True, kw_only=True):
    """Two engines that take turns. `done` where every answer of either was right.

    `mib_each` is what each holds awake, `mib_asleep` what the first still holds asleep, both through NVML.
    `second_start_s` is the start of the second, to its first token, while the first slept. `swap_s` is the median of a
    swap: one put to sleep and the other awake.
    """

    mib_each: tuple[Count, ...] | None = None
    mib_asleep: Count | None = None
    second_start_s: Seconds | None = None
    swaps: Count | None = None
    swap_s: Seconds | None = None
    tokens_equal: bool | None = None


def engines_take_turns(bench: Bench) -> EnginesTakeTurns:
    """A starts and sleeps → B starts → B sleeps and A wakes → A sleeps and B wakes, and again; tokens each time."""
    steps = bench.steps
    with contextlib.ExitStack() as stack:
        before = bench.used_mib()[0]
        first = stack.enter_context(bench.another(SOONER, share=SHARE))
        awake = first.used_mib()[0]
        steps("put it to sleep", first.engine.sleep, 1, within_s=ORDER_S)
        asleep = first.used_mib()[0]
        if KEPT * (asleep - before) > awake - before:
            steps.wrong(f"asleep it keeps {asleep - before} of {awake - before} MiB: no room for another")
        second = stack.enter_context(bench.another(SOONER, share=SHARE))
        holds = (awake - before, second.used_mib()[0] - asleep)
        pair, took, right = [second, first], [], []
        for _ in range(SWAPS):
            begun = time.monotonic()
            down, up = pair
            steps("put one to sleep", down.engine.sleep, 1, within_s=ORDER_S)
            steps("wake the other", up.engine.wake, within_s=ORDER_S)
            took.append(time.monotonic() - begun)
            right.append(up.is_right(steps("ask it", up.answer, ANSWER_S)))
            pair.reverse()
    return EnginesTakeTurns(
        outcome=judged(bench, (not all(right), f"{right.count(False)} of {SWAPS} answers after a swap were others")),
        mib_each=holds,
        mib_asleep=max(0, asleep - before),
        second_start_s=second.cold_start_s,
        swaps=SWAPS,
        swap_s=round(statistics.median(took), 4),
        tokens_equal=all(right),
    )


PARTS = (Part(EnginesTakeTurns, engines_take_turns, OTHER_ENGINES, needs_full=True, own_engine=True),)
