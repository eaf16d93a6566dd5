"""The pair of GPUs that a replica is tried on: one that was seen to copy, both ways and by peer access."""

from __future__ import annotations

from typing import Self

import msgspec

from warmspare.model.facts import Cause, Known, Readings
from warmspare.probes import gpus
from warmspare.trials.api import NotTried
from warmspare.trials.awaited import PeerCopy
from warmspare.trials.given import Gpu


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
        proven = {pair: speed for pair, speed in speeds.items() if speed and speeds["→".join(_ends(pair)[::-1])]}
        if not proven:
            raise NotTried(Cause.SKIPPED, "no pair of GPUs has been seen to copy")
        best = max(proven, key=lambda pair: (proven[pair], pair))
        source, target = (Gpu.of(readings, name) for name in _ends(best))
        return cls(source=source, target=target)


def _ends(pair: str) -> list[str]:
    return pair.split("→")


def _speed(readings: Readings, pair: str) -> float | None:
    """GB/s of a copy whose every byte was checked and went by peer access; None if there is no such proof."""
    match readings.get(PeerCopy, pair):
        case Known(value=PeerCopy(outcome=outcome, peer_access=True, gb_per_s=gb_per_s)) if outcome.kind == "done":
            return gb_per_s
    return None
