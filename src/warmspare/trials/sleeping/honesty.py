"""What the engine says of itself in each state: /health, /is_sleeping and its metric."""

from __future__ import annotations

from typing import Literal

import msgspec

from warmspare.model.facts import Count, Outcome, Proof, Text
from warmspare.trials.sleeping.bench import ORDER_S, Bench
from warmspare.trials.sleeping.level_2 import woken_from_level_2
from warmspare.trials.sleeping.parts import LEVEL_2, Part
from warmspare.trials.sleeping.serving import WORD_S, left_serving

State = Literal["awake", "asleep", "partly", "level_2"]


class SleepHonesty(Proof, frozen=True, kw_only=True):
    """What was answered awake, asleep at level 1, partly awake (weights without KV cache), and asleep at level 2.

    `health_*` is an HTTP status. `metric_*` is the sleep state by the metrics: `awake`, `weights_offloaded` or
    `discard_all`; None where they name none.
    """

    health_awake: Count | None = None
    health_asleep: Count | None = None
    health_partly: Count | None = None
    health_level_2: Count | None = None
    is_sleeping_awake: bool | None = None
    is_sleeping_asleep: bool | None = None
    is_sleeping_partly: bool | None = None
    is_sleeping_level_2: bool | None = None
    metric_awake: Text | None = None
    metric_asleep: Text | None = None
    metric_partly: Text | None = None
    metric_level_2: Text | None = None


def sleep_honesty(bench: Bench) -> SleepHonesty:
    """Each state in turn, and the three questions in it."""
    steps, engine = bench.steps, bench.engine
    with left_serving(bench):
        told = _told(bench, "awake")
        steps("sleep", engine.sleep, 1, within_s=ORDER_S)
        told |= _told(bench, "asleep")
        steps("wake its weights alone", engine.wake, ("weights",), within_s=ORDER_S)
        told |= _told(bench, "partly")
        # By its tag: engines before 0.28.0 may map a second time what is awake if they are told to wake all of it.
        steps("wake the rest", engine.wake, ("kv_cache",), within_s=ORDER_S)
        steps("sleep at level 2", engine.sleep, 2, within_s=ORDER_S)
        told |= _told(bench, "level_2")
        woken_from_level_2(bench)
    return msgspec.convert({"outcome": Outcome(kind="done")} | told, SleepHonesty)


def _told(bench: Bench, state: State) -> dict[str, int | bool | str | None]:
    """What it says of itself in a state."""
    steps, engine = bench.steps, bench.engine
    return {
        f"health_{state}": steps(f"{state}: ask /health", engine.health, WORD_S),
        f"is_sleeping_{state}": steps(f"{state}: ask /is_sleeping", engine.is_sleeping, WORD_S),
        f"metric_{state}": steps(f"{state}: ask its metrics", engine.sleep_state),
    }


PARTS = (Part(SleepHonesty, sleep_honesty, LEVEL_2),)
