"""The pair of GPUs that state is moved between: one that was seen to copy, both ways and by peer access."""

from __future__ import annotations

from typing import ClassVar, Self

from warmspare.model.facts import Cause, Known, Proof, Readings
from warmspare.probes import gpus
from warmspare.trials.api import NotTried
from warmspare.trials.given import May, Pair
from warmspare.trials.peer_copy import PeerCopy, proven


class BestPair(Pair, frozen=True, kw_only=True):
    """The direction with the fastest copy: state goes from `source` to `target`."""

    RESTS_ON: ClassVar[tuple[type[Proof], ...]] = (PeerCopy,)

    @classmethod
    def of(cls, readings: Readings, _subject: str, _may: May | None = None) -> Self:
        """Of the pairs that copy both ways, the fastest direction.

        Raises:
            NotTried: no pair was seen to.
        """
        speeds = {pair: _speed(readings, pair) for pair in gpus.PAIR.subjects(readings)}
        both_ways = {pair: speed for pair, speed in speeds.items() if speed and speeds["→".join(_ends(pair)[::-1])]}
        if not both_ways:
            raise NotTried(Cause.SKIPPED, "no pair of GPUs has been seen to copy")
        best = max(both_ways, key=lambda pair: (both_ways[pair], pair))
        return super().of(readings, best)


def _ends(pair: str) -> list[str]:
    return pair.split("→")


def _speed(readings: Readings, pair: str) -> float | None:
    """GB/s of a copy whose every byte was checked and went by peer access; None if there is no such proof."""
    reading = readings.get(PeerCopy, pair)
    return reading.value.gb_per_s if proven(reading) and isinstance(reading, Known) else None
