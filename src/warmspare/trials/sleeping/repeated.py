"""Orders that make no sense: sleep while asleep, wake while awake, tags and levels that there are not."""

from __future__ import annotations

from typing import Literal

from warmspare.model.facts import Count, Proof

Answer = Count | Literal["fatal", "hung"]
"""The HTTP status; or the engine did not survive it, or gave no answer in time."""


class SleepRepeated(Proof, frozen=True, kw_only=True):
    """How the engine answered each, and whether it was then what it was before. `done` where none did harm.

    `bad_tags` is a wake of an engine that sleeps, with a tag that there is not; `woke_by_bad_tags`: it took that for a
    wake. `bad_level` is `level=7`; `slept_at_bad_level`: it took that for a sleep; `bad_level_lost_weights`: woken, it
    was without its weights, which `reload_mends` if they can be had again. `serves_after`: in the end it was awake and
    answered rightly.
    """

    sleep_while_asleep: Answer | None = None
    wake_while_awake: Answer | None = None
    bad_tags: Answer | None = None
    woke_by_bad_tags: bool | None = None
    bad_level: Answer | None = None
    slept_at_bad_level: bool | None = None
    bad_level_lost_weights: bool | None = None
    reload_mends: bool | None = None
    serves_after: bool | None = None
