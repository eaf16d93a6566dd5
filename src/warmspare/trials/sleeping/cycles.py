"""Level-1 sleep and wake, some times over: times, memory through NVML, and the same tokens before and after."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from warmspare.model.facts import Count, Proof, Seconds

Mib = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
"""A difference of memory, which may be below nothing."""


class SleepCycles(Proof, frozen=True, kw_only=True):
    """Level 1, `cycles` times. `done` where each freed memory, the engine came back, and its answers were the same.

    `first_*` are the first cycle's times, which also gets the host's memory; `sleep_s` and `wake_s` medians of the
    others. `mib_*` are of all its GPUs together: before the engine (None if it was found), awake, in the last sleep and
    awake after it; `mib_freed` is the least that a sleep gave back. `residue_mib` is what it keeps asleep,
    `residue_growth_mib` how much more that was in the last sleep than in the first. `host_mib_taken` is what the first
    sleep took of the host. `logprobs_within` is the largest difference of all answers; `first_token_after_wake_s` a
    median.
    """

    cycles: Count | None = None
    first_sleep_s: Seconds | None = None
    first_wake_s: Seconds | None = None
    sleep_s: Seconds | None = None
    wake_s: Seconds | None = None
    mib_before: Count | None = None
    mib_awake: Count | None = None
    mib_asleep: Count | None = None
    mib_after: Count | None = None
    mib_freed: Mib | None = None
    freed_by: Literal["nvml"] | None = None
    residue_mib: Mib | None = None
    residue_growth_mib: Mib | None = None
    host_mib_taken: Mib | None = None
    tokens_equal: bool | None = None
    logprobs_within: Annotated[float, msgspec.Meta(ge=0)] | None = None
    first_token_warm_s: Seconds | None = None
    first_token_after_wake_s: Seconds | None = None
