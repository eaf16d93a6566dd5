"""Sleep at level 2, which drops the weights: woken with them reloaded, and without."""

from __future__ import annotations

from warmspare.model.facts import Count, Proof, Seconds


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
