"""Two engines on one GPU, of which each wants more than half: while one is awake the other sleeps."""

from __future__ import annotations

from warmspare.model.facts import Count, Proof, Seconds


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
