"""Time commands in turn, A B A B …, so that a ratio holds when the machine's speed drifts."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Sequence


def wall_s(command: Sequence[str], accepted: frozenset[int]) -> float:
    """Seconds that one run took.

    Raises:
        RuntimeError: it ended with a status that is not among `accepted`.
    """
    started = time.perf_counter()
    ended = subprocess.run(command, capture_output=True, check=False)
    took = time.perf_counter() - started
    if ended.returncode not in accepted:
        message = f"{' '.join(command)} ended with status {ended.returncode}: {ended.stderr.decode()[-300:]}"
        raise RuntimeError(message)
    return took


def pairs(
    one: Sequence[str], other: Sequence[str], runs: int, accepted: frozenset[int] = frozenset({0})
) -> list[tuple[float, float]]:
    """`runs` pairs of wall seconds, after one pair that is not counted."""
    found = [(wall_s(one, accepted), wall_s(other, accepted)) for _ in range(runs + 1)]
    return found[1:]


def summary(name: str, values: Sequence[float], unit: str) -> str:
    """Median, smallest and largest."""
    median = statistics.median(values)
    return f"{name:<34} median {median:8.3f} {unit}   min {min(values):8.3f}   max {max(values):8.3f}"
