"""Two engines on one GPU, of which each wants more than half: while one is awake the other sleeps."""

from __future__ import annotations

import statistics
import time
from typing import Final

from warmspare.model.facts import Count, Proof, Seconds
from warmspare.trials.sleeping.bench import Bench
from warmspare.trials.sleeping.serving import ANSWER_S, ORDER_S, judged

SWAPS: Final = 4


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


def engines_take_turns(steps, host) -> EnginesTakeTurns:
    """A starts and sleeps → B starts → B sleeps and A wakes → A sleeps and B wakes, and again; tokens each time."""


def _swapped(steps: Steps, down: Bench, up: Bench) -> bool:
    """Put one to sleep, then wake the other; whether that one answers rightly."""
    steps("put one to sleep", down.engine.sleep, 1, within_s=ORDER_S)
    steps("wake the other", up.engine.wake, within_s=ORDER_S)
    return up.is_right(steps("ask it", up.answer, ANSWER_S))
