"""Sleep at level 2, which drops the weights: woken with them reloaded, and without."""

from __future__ import annotations

import time

from warmspare.model.facts import Count, Proof, Seconds
from warmspare.trials.sleeping.bench import ANSWER_S, ORDER_S, Bench
from warmspare.trials.sleeping.parts import LEVEL_2, Part
from warmspare.trials.sleeping.serving import judged, left_serving


class SleepLevel2(Proof, frozen=True, kw_only=True):
    """Level 2, woken in four steps: weights, `reload_weights`, KV cache, prefix cache. `done`: right tokens again.

    `wake_s` is all four together, of which `reload_s` is the second. `mib_freed` was seen through NVML. Another sleep
    was woken as a whole and without a reload: `garbage_without_reload` says that other tokens were answered with 200
    then; `mended_by_reload`, that a reload brought the right ones back.
    """

    sleep_s: Seconds | None = None
    wake_s: Seconds | None = None
    reload_s: Seconds | None = None
    mib_freed: Count | None = None
    tokens_equal_after_reload: bool | None = None
    garbage_without_reload: bool | None = None
    mended_by_reload: bool | None = None


def sleep_level_2(bench: Bench) -> SleepLevel2:
    """Sleep → memory freed → wake in four steps → tokens; then sleep → plain wake → tokens → reload → tokens."""
    steps, engine = bench.steps, bench.engine
    with left_serving(bench):
        awake_mib = bench.used_mib()
        steps("sleep at level 2", engine.sleep, 2, within_s=ORDER_S)
        freed = sum(awake_mib) - sum(bench.used_mib())
        wake_s = woken_from_level_2(bench)
        right = bench.is_right(steps("ask it", bench.answer, ANSWER_S))
        sleep_s = steps.took_s["sleep at level 2"]
        garbage = mended = None
        if right:
            garbage, mended = _without_reload(bench)
    return SleepLevel2(
        outcome=judged(
            bench,
            (not right, "other tokens came after level 2, though the weights were reloaded"),
            (mended is False, "a wake without a reload is not mended by a reload"),
        ),
        sleep_s=sleep_s,
        wake_s=wake_s,
        reload_s=steps.took_s["reload the weights"],
        mib_freed=max(0, freed),
        tokens_equal_after_reload=right,
        garbage_without_reload=garbage,
        mended_by_reload=mended,
    )


def woken_from_level_2(bench: Bench) -> float:
    """Wake it in the four steps that level 2 takes; how many seconds they took together."""
    steps, engine = bench.steps, bench.engine
    begun = time.monotonic()
    steps("wake the weights", engine.wake, ("weights",), within_s=ORDER_S)
    steps("reload the weights", engine.reload_weights, within_s=ORDER_S)
    steps("wake the KV cache", engine.wake, ("kv_cache",), within_s=ORDER_S)
    steps("reset the prefix cache", engine.reset_prefix_cache)
    return round(time.monotonic() - begun, 4)


def _without_reload(bench: Bench) -> tuple[bool, bool]:
    """Whether other tokens are answered after a plain wake, and whether a reload brings the right ones back."""
    steps, engine = bench.steps, bench.engine
    steps("sleep at level 2 again", engine.sleep, 2, within_s=ORDER_S)
    steps("wake it without a reload", engine.wake, within_s=ORDER_S)
    garbage = not bench.is_right(steps("ask it without a reload", bench.answer, ANSWER_S))
    steps("reload the weights after all", engine.reload_weights, within_s=ORDER_S)
    return garbage, bench.is_right(steps("ask it after all", bench.answer, ANSWER_S))


PARTS = (Part(SleepLevel2, sleep_level_2, LEVEL_2),)
