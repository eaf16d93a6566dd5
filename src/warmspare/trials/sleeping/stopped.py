"""The engine stopped: whether its GPUs have all their memory back, by NVML and not because its processes are gone."""

from __future__ import annotations

import time
from typing import Final

from warmspare.host import nvml
from warmspare.model.facts import Cause, Count, Outcome, Proof, Seconds
from warmspare.trials.api import NotTried
from warmspare.trials.sleeping.bench import Bench
from warmspare.trials.sleeping.parts import END, Part

WITHIN_S: Final = 20.0
"""How long the driver may take to clear up after processes that are gone."""
LOOKS_S: Final = 0.1
LEFT_MIB: Final = 64
"""What may be more in use than before: the driver's own, for processes that only look."""


class EngineStop(Proof, frozen=True, kw_only=True):
    """What is in use of the engine's GPUs, summed, before its start and after its end; `done` where that is the same.

    `back_s` is from the order to stop until it was so; None where another part had stopped the engine before.
    """

    mib_before: Count | None = None
    mib_after: Count | None = None
    back_s: Seconds | None = None


def engine_stop(bench: Bench) -> EngineStop:
    """Stop the engine, and look until its memory is back.

    Raises:
        NotTried: it was never started, or another process is on its GPUs, whose memory cannot be told from it.
    """
    if bench.mib_before is None:
        raise NotTried(Cause.SKIPPED, "no engine was started")
    begun = time.monotonic() if bench.server else None
    bench.steps("stop the engine", bench.stop)
    before = sum(bench.mib_before)
    after = bench.steps("see its memory back", _settled, bench, before)
    back_s = round(time.monotonic() - begun, 3) if begun else None
    if after - before <= LEFT_MIB:
        return EngineStop(outcome=Outcome(kind="done"), mib_before=before, mib_after=after, back_s=back_s)
    _alone(bench)
    detail = f"{after - before} MiB more than before its start are in use {WITHIN_S:g} s after its end"
    outcome = Outcome(kind="wrong", step=bench.steps.current, detail=detail)
    return EngineStop(outcome=outcome, mib_before=before, mib_after=after)


def _settled(bench: Bench, before: int) -> int:
    """What is in use once it is no more than before, or when the time is over."""
    deadline = time.monotonic() + WITHIN_S
    while (used := sum(bench.used_mib())) - before > LEFT_MIB and time.monotonic() < deadline:
        time.sleep(LOOKS_S)  # nothing tells when a driver has cleared up
    return used


def _alone(bench: Bench) -> None:
    """Of memory that another process may hold nothing is said."""
    for gpu in bench.gpus:
        if gpu.nvml is None or nvml.all_pids(gpu.nvml) != frozenset():
            raise NotTried(Cause.SKIPPED, f"other processes are on {gpu.subject}, or NVML does not tell")


PARTS: Final = (Part(EngineStop, engine_stop, END),)
