"""Proofs that tracks rest on and whose trials are not in this version: their readings stay absent.

Each moves to a file of its own together with its trial. What a proof must hold is fixed here already, so
that recordings and requirements can speak of it.
"""

from __future__ import annotations

from warmspare.model.facts import Count, Proof, Seconds


class SleepCycles(Proof, frozen=True, kw_only=True):
    """Level-1 sleep and wake of a real engine: VRAM freed, same tokens and logprobs, requests survived."""

    tokens_equal: bool | None = None
    mib_freed: Count | None = None
    sleep_s: Seconds | None = None
    wake_s: Seconds | None = None
