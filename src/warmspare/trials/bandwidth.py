"""How fast work on a GPU is, by the GPU's own clock: warmed up, several samples, the median, and their spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Final, NamedTuple

from warmspare.control.cuda import Event, Stream

SAMPLES: Final = 5
SAMPLE_S: Final = 0.03
"""What one sample should take: long against starting work (microseconds), short against a trial."""
MOST: Final = 64
MOST_S: Final = 2.0
"""Where one piece takes long, there are fewer samples: a slow path is slow, and has not hung."""


class Speed(NamedTuple):
    """The median time of one piece of work in seconds, and by which part of it the samples lie apart."""

    took_s: float
    spread: float

    def gb_per_s(self, size: int) -> float:
        """Decimal gigabytes per second of work that moves `size` bytes."""
        return round(size / self.took_s / 1e9, 3) if self.took_s else 0.0


def measure(stream: Stream, start: Callable[[], object], sample_s: float = SAMPLE_S) -> Speed:
    """Time `start`, which puts one piece of work into the stream.

    One piece warms up, a second tells how many fill a sample; then `SAMPLES` samples of that many in a row, fewer
    where they would take more than `MOST_S`.
    """
    begin, end = Event(stream.context), Event(stream.context)
    _sample(stream, start, 1, (begin, end))
    once_s = _sample(stream, start, 1, (begin, end))
    times = min(MOST, max(1, round(sample_s / once_s))) if once_s > 0 else MOST
    count = max(1, min(SAMPLES, int(MOST_S / once_s))) if once_s > 0 else SAMPLES
    samples = sorted(_sample(stream, start, times, (begin, end)) / times for _ in range(count))
    begin.close()
    end.close()
    middle = statistics.median(samples)
    return Speed(middle, (samples[-1] - samples[0]) / middle if middle else 0.0)


def _sample(stream: Stream, start: Callable[[], object], times: int, events: tuple[Event, Event]) -> float:
    begin, end = events
    begin.record(stream)
    for _ in range(times):
        start()
    return end.record(stream).since_s(begin)
