"""What the engine says of itself in each state: /health, /is_sleeping and its metric."""

from __future__ import annotations

from warmspare.model.facts import Count, Proof, Text


class SleepHonesty(Proof, frozen=True, kw_only=True):
    """What was answered awake, asleep at level 1, partly awake (weights without KV cache), and asleep at level 2.

    `health_*` is an HTTP status. `metric_*` is the sleep state by the metrics: `awake`, `weights_offloaded`,
    `discard_all`, `none` for no state at all; None where the engine has no such metric.
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
