"""What becomes of a request that reaches an engine while it sleeps."""

from __future__ import annotations

from typing import Literal

from warmspare.model.facts import Count, Proof, Seconds

End = Literal["served", "refused", "lost", "fatal"]
"""Served once the engine was awake; refused, and the engine lives; never answered; or the engine did not survive it."""


class RequestAsleep(Proof, frozen=True, kw_only=True):
    """A request to an engine that sleeps at level 1. The outcome is `done` if it was served or refused.

    `status` is the HTTP status it was answered with, None if it got none. It was answered `waited_s` after the engine
    was told to wake, or for a refusal after it was sent. `tokens_equal` of its own answer, `serves_after` of another
    request that followed.
    """

    end: End | None = None
    status: Count | None = None
    waited_s: Seconds | None = None
    tokens_equal: bool | None = None
    serves_after: bool | None = None
