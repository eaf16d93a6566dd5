"""What becomes of a request in flight when its engine is put to sleep, in each of the three ways that vLLM has."""

from __future__ import annotations

from typing import Literal

import msgspec

from warmspare.model.facts import Count, Proof, Seconds, Text

Ended = Literal["aborted", "finished", "resumed", "cut", "broken", "lost"]
"""Ended before the engine slept, cut short and said so, or whole; whole after it woke; ended with fewer tokens than
were asked for and no word of an abort; its connection broken; or still open and silent long after the engine woke."""


class Way(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One request in flight. `ended` is None where the engine refused to sleep this way, with the HTTP `status`.

    `tokens_right`: what came is what came before, token by token, as far as it came. `sleep_s` is how long the engine
    took to say that it slept. `alive`: it was awake afterwards and answered another request rightly.
    """

    ended: Ended | None = None
    status: Count | None = None
    finish_reason: Text | None = None
    tokens_got: Count | None = None
    tokens_right: bool | None = None
    sleep_s: Seconds | None = None
    alive: bool = False


class RequestInFlight(Proof, frozen=True, kw_only=True):
    """Requests in flight: cut short (`abort`), waited for (`wait`) and frozen (`keep`).

    `done` where each stream ended, no token was wrong, and the engine lived.
    """

    abort: Way | None = None
    wait: Way | None = None
    keep: Way | None = None
