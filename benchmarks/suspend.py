"""Suspend and resume of a process by our levers against the bare calls of the driver, in turn.

    python benchmarks/suspend.py [--gib 8] [--runs 5]

One process holds the memory. In each run it is suspended and resumed twice: by the four calls, made by ctypes in this
process, and by `control/together`, whose calls are made in a worker and whose states are asked again. What the
worker's start and its cuInit take is told apart: it is paid once a command, whatever the size.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from holder import Holder
from paired import summary

from warmspare.control import cuda_abi as abi
from warmspare.control import together
from warmspare.control.checkpointer import Checkpointer
from warmspare.control.cuda_driver import Driver

PHASES = ("lock", "checkpoint", "restore", "unlock")


def bare(driver: Driver, pid: int) -> dict[str, float]:
    """Seconds of each call, nothing else around it."""
    calls: dict[str, Callable[[], None]] = {
        "lock": lambda: driver.call("cuCheckpointProcessLock", pid, ctypes.byref(abi.LockArgs(timeout_ms=10_000))),
        "checkpoint": lambda: driver.call("cuCheckpointProcessCheckpoint", pid, None),
        "restore": lambda: driver.call("cuCheckpointProcessRestore", pid, None),
        "unlock": lambda: driver.call("cuCheckpointProcessUnlock", pid, None),
    }
    return {name: _seconds(call) for name, call in calls.items()}


def ours(levers: Checkpointer, pid: int) -> dict[str, float]:
    """Wall seconds from before each half to after it, the questions about its state included."""
    took: dict[str, float] = {}
    down = _seconds(
        lambda: took.update(_halves(together.suspend(levers, [pid], lambda *_: None), "lock", "checkpoint"))
    )
    up = _seconds(lambda: took.update(_halves(together.resume(levers, [pid], lambda *_: None), "restore", "unlock")))
    return {**took, "suspend as a whole": down, "resume as a whole": up}


def _halves(took: together.Took, first: str, second: str) -> dict[str, float]:
    return {first: took.first_s, second: took.second_s}


def _seconds(act: Callable[[], object]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def main(gib: float, runs: int) -> int:
    """Measure and print; 1 if the process lost something."""
    driver = Driver()
    with tempfile.TemporaryDirectory() as folder, Holder(gib, Path(folder)) as holder, Checkpointer() as levers:
        levers.initialise()
        print(f"{gib:g} GiB; worker's start {levers.started_s:.3f} s, its cuInit {levers.initialised_s:.3f} s")
        rows = [(bare(driver, holder.pid), ours(levers, holder.pid)) for _ in range(runs + 1)][1:]
        right = holder.is_right()
    for name in PHASES:
        print(summary(f"{name}, bare", [one[name] for one, _ in rows], "s"))
        print(summary(f"{name}, ours", [other[name] for _, other in rows], "s"))
    halves = (("suspend", ("lock", "checkpoint")), ("resume", ("restore", "unlock")))
    for name, phases in halves:
        alone = [sum(one[phase] for phase in phases) for one, _ in rows]
        whole = [other[f"{name} as a whole"] for _, other in rows]
        print(summary(f"{name}, ours / bare", [b / a for a, b in zip(alone, whole, strict=True)], "x"))
        print(summary(f"{name}, bare", [gib / a for a in alone], "GiB/s"))
    print("the bytes are right" if right else "the bytes are WRONG")
    return 0 if right else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=8.0)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    sys.exit(main(options.gib, options.runs))
