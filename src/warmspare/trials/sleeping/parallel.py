"""Sleep Mode of one engine on two GPUs: by data parallelism, and by tensor parallelism."""

from __future__ import annotations

import msgspec

from warmspare.model.facts import Count, Proof, Seconds, Subject
from warmspare.trials.sleeping.asleep import End


class Share(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the engine held of one GPU, through NVML: awake, in its last sleep, and awake again."""

    subject: Subject
    mib_awake: Count
    mib_asleep: Count
    mib_after: Count

    @property
    def mib_freed(self) -> int:
        """What its sleep gave back; 0 if it took more."""
        return max(0, self.mib_awake - self.mib_asleep)


class SleepDataParallel(Proof, frozen=True, kw_only=True):
    """An engine with a replica on each of two GPUs. `done` where each freed its memory and all answers were right.

    The times are medians of the level-1 cycles. `is_sleeping_*` is what it said of itself; `request_asleep` is what
    became of a request while it slept.
    """

    shares: tuple[Share, ...] | None = None
    cold_start_s: Seconds | None = None
    cycles: Count | None = None
    sleep_s: Seconds | None = None
    wake_s: Seconds | None = None
    tokens_equal: bool | None = None
    is_sleeping_awake: bool | None = None
    is_sleeping_asleep: bool | None = None
    request_asleep: End | None = None


class SleepTensorParallel(Proof, frozen=True, kw_only=True):
    """An engine spread over two GPUs. Its figures are those of `SleepDataParallel`."""

    shares: tuple[Share, ...] | None = None
    cold_start_s: Seconds | None = None
    cycles: Count | None = None
    sleep_s: Seconds | None = None
    wake_s: Seconds | None = None
    tokens_equal: bool | None = None
    is_sleeping_awake: bool | None = None
    is_sleeping_asleep: bool | None = None
    request_asleep: End | None = None
