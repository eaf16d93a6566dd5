"""The pair of GPUs that a replica is tried on: one that was seen to copy, both ways and by peer access."""

from __future__ import annotations

from typing import Self

import msgspec

from warmspare.model.facts import Cause, Known, Readings
from warmspare.probes import gpus
from warmspare.trials.api import NotTried
from warmspare.trials.given import Gpu
from warmspare.trials.peer_copy import PeerCopy, proven


class BestPair(msgspec.Struct, frozen=True, kw_only=True):
    """The direction with the fastest copy: the writer's GPU is `source`, the reader owns memory of `target`."""

    source: Gpu
    target: Gpu

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that the trial uses."""
        return (self.source, self.target)

    @classmethod
    def of(cls, readings: Readings, _subject: str) -> Self:
        """Of the pairs that copy both ways, the fastest direction.

        Raises:
            NotTried: no pair was seen to.
        """
        speeds = {pair: _speed(readings, pair) for pair in gpus.PAIR.subjects(readings)}
        both_ways = {pair: speed for pair, speed in speeds.items() if speed and speeds["→".join(_ends(pair)[::-1])]}
        if not both_ways:
            raise NotTried(Cause.SKIPPED, "no pair of GPUs has been seen to copy")
        best = max(both_ways, key=lambda pair: (both_ways[pair], pair))
        source, target = (Gpu.of(readings, name) for name in _ends(best))
        return cls(source=source, target=target)


def _ends(pair: str) -> list[str]:
    return pair.split("→")


def _speed(readings: Readings, pair: str) -> float | None:
    """GB/s of a copy whose every byte was checked and went by peer access; None if there is no such proof."""
    reading = readings.get(PeerCopy, pair)
    return reading.value.gb_per_s if proven(reading) and isinstance(reading, Known) else None
