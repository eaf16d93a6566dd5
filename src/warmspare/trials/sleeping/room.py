"""Whether the host has the memory that a sleep at level 1 takes: its weights lie there for as long as it sleeps."""

from __future__ import annotations

from typing import Literal

from warmspare.model.facts import Count, Proof


class SleepRoom(Proof, frozen=True, kw_only=True):
    """Memory for `needed_mib`, 1.5 times the weights: `had` by what the kernel has available, or by touching it.

    `how` is what decided: a control group's `limit`, what is `available`, or that so much was `touched` by a process
    that ended at once (or could not be, and was ended: memory that grows on demand shows less than it has).
    """

    needed_mib: Count | None = None
    had: bool | None = None
    how: Literal["limit", "available", "touched"] | None = None
    limit_mib: Count | None = None
    available_mib: Count | None = None
