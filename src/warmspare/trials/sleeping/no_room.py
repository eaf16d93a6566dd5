"""Wake an engine when its memory has been taken meanwhile."""

from __future__ import annotations

from typing import Literal

from warmspare.model.facts import Count, Proof, Seconds, Text

Then = Literal["recovers", "wedged", "garbage", "dead"]
"""After the memory was given back and it was woken again: it answers rightly, not at all, wrongly; or it had ended."""


class WakeWithoutRoom(Proof, frozen=True, kw_only=True):
    """A wake with too little memory free. `done` where it failed with a status and a second one, with room, recovered.

    `mib_taken` by a process of the trial's. `status` and `said` are how the first wake was refused: status None if the
    engine broke off or gave no answer. `health_after` is /health between the two. `second_status` is the
    second wake's.
    """

    mib_taken: Count | None = None
    status: Count | None = None
    said: Text | None = None
    refused_s: Seconds | None = None
    health_after: Count | None = None
    second_status: Count | None = None
    then: Then | None = None
    recovers: bool | None = None
