"""How many CPUs a process really gets: those it may run on, or less where a cgroup's quota ends its time.

Source: Documentation/admin-guide/cgroup-v2.rst (cpu.max), scheduler/sched-bwc.rst (cpu.cfs_quota_us).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path("/")


def cpus() -> int:
    """How many CPUs we may run on."""
    return len(os.sched_getaffinity(0))


def quota(root: Path = ROOT) -> float | None:
    """The least of the quotas of our cgroup and of those above it, in CPUs; None if there is none."""
    return min(_quotas(root), default=None)


def _quotas(root: Path) -> Iterator[float]:
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # a kernel without cgroups
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        folder = root / "sys/fs/cgroup" / ("cpu" if controllers else ".")
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            most, period = _limit(folder.joinpath(*parts[:depth]), v1=bool(controllers))
            if most.isdigit() and period.isdigit() and int(period):
                yield int(most) / int(period)


def _limit(group: Path, *, v1: bool) -> tuple[str, str]:
    """Microseconds of CPU time in a period, and the period; no number where there is no limit, or none we see."""
    try:
        if v1:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period"))
            return quota.strip(), period.strip()
        most, _, length = (group / "cpu.max").read_text(encoding="ascii").strip().partition(" ")
    except OSError:
        return "", ""
    return most, length
