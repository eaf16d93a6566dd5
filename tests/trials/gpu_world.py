"""A trial on the stand-in driver's GPUs, in a corner of its own: how it ends, and what it leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace

from leftovers import Corner
from standins import Drivers, gpu_ids
from warmspare import catalogue
from warmspare.model.facts import Absent, Known, Outcome, Proof
from warmspare.trials.api import StepEvent, Trial
from warmspare.trials.given import Gpu
from warmspare.trials.run import Run, run
from warmspare.trials.suspendable import Move, Suspendable

TRIALS: Final = {trial.name: trial for trial in catalogue.trials()}
DONE: Final = Outcome(kind="done")
HURRY_S: Final = 4.0
"""A deadline for what never ends, on a machine that is idle."""
FIGURES: Final = {"pcie_gb_per_s": 63.0, "nvlink_gb_per_s": None, "numa_nodes": (), "memory_mib": 1024}


def gpu(n: int) -> Gpu:
    """One of the stand-in's GPUs."""
    return Gpu(subject=f"gpu{n}", id=gpu_ids()[n], nvml=n, **FIGURES)  # type: ignore[arg-type]


GIVEN: Final[dict[str, object]] = {
    "gpu_suspend": gpu(1),
    "criugpu_roundtrip": Suspendable(subject="gpu1", id=gpu_ids()[1], nvml=1, **FIGURES),  # type: ignore[arg-type]
    "gpu_move": Move(source=gpu(1), target=gpu(2), all_ids=gpu_ids()),
}


class World:
    """Where the trials of one test run."""

    def __init__(self, drivers: Drivers, folder: Path, patch: pytest.MonkeyPatch) -> None:
        """Nothing is there yet."""
        self.corner = Corner(folder / "scratch")
        self._drivers, self._name, self._patch = drivers, folder.name, patch

    def enter(self, *plan: str, lacks: tuple[str, ...] = ()) -> None:
        """Let this process, and what it starts, find a driver that goes by this plan."""
        for name, value in {**self.corner.env, **self._drivers.world(self._name, *plan, lacks=lacks)}.items():
            self._patch.setenv(name, value)
        self._patch.setattr(tempfile, "tempdir", str(self.corner.scratch))

    @staticmethod
    def change(*plan: str) -> None:
        """Let the driver go by another plan from now on."""
        folder = os.environ["LD_LIBRARY_PATH"].split(os.pathsep)[0]
        Path(folder, "plan").write_text("".join(f"{line}\n" for line in plan))

    def run(
        self, name: str, deadline_s: float | None = None, progress: Callable[[StepEvent], None] = lambda _: None
    ) -> Run:
        """Run a trial."""
        trial: Trial = TRIALS[name]
        return run(replace(trial, deadline_s=deadline_s) if deadline_s else trial, progress, GIVEN[name])

    def run_to_hang(self, name: str, step: str) -> Run:
        """Run a trial that hangs at this step, with a deadline that it gets there by: a hang outlasts any."""
        deadline_s = HURRY_S
        steps: set[str] = set()
        ended = self.run(name, deadline_s, lambda event: steps.add(event.name))
        while step not in steps and deadline_s < TRIALS[name].deadline_s:
            assert ended.left == ()
            deadline_s *= 2
            ended = self.run(name, deadline_s, lambda event: steps.add(event.name))
        return ended

    def clear(self) -> None:
        """End what a test has left on purpose."""
        for pid in self.corner.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def value(ended: Run) -> Proof | Absent:
    """The proof, or the absence."""
    return ended.reading.value if isinstance(ended.reading, Known) else ended.reading


def outcome(ended: Run) -> tuple[str, str | None, str | None]:
    """How the trial's levers ended: kind, step, code."""
    proof = value(ended)
    assert isinstance(proof, Proof), proof
    return proof.outcome.kind, proof.outcome.step, proof.outcome.code
