"""The first parts of the trial of Sleep Mode on a fake engine, in a corner of their own: how they end, what is left."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import pytest
import sleep_first_parts

from engines import Fake, used_mib
from leftovers import Corner, environ
from standins import Drivers, gpu_ids
from warmspare.control import process
from warmspare.model.facts import Absent, Known, Proof, fact_name
from warmspare.trials.api import StepEvent, at_place
from warmspare.trials.engine_given import EngineHost
from warmspare.trials.given import EngineAsk, Gpu
from warmspare.trials.run import Run, run

P = TypeVar("P", bound=Proof)
TRIAL: Final = at_place(f"{sleep_first_parts.__name__}:first_parts")
DEADLINE_S: Final = 150.0
CYCLES: Final = 3


def gpu(n: int) -> Gpu:
    """One of the stand-in's GPUs."""
    figures: dict[str, Any] = {"pcie_gb_per_s": None, "nvlink_gb_per_s": None, "numa_nodes": (), "memory_mib": None}
    return Gpu(subject=f"gpu{n}", id=gpu_ids()[n], nvml=n, **figures)


def host(ask: EngineAsk | None = None, *, vllm: str = "0.26.0", full: bool = False, gpus: int = 1) -> EngineHost:
    """What the trial is given."""
    return EngineHost(
        gpus=tuple(gpu(n) for n in range(gpus)), python=sys.executable, vllm=vllm, ask=ask or EngineAsk(), full=full,
        cycles=CYCLES, deadline_s=DEADLINE_S, shape="tiny",
    )  # fmt: skip


class World:
    """A driver, a vLLM of this plan, and a corner for the trial."""

    def __init__(self, fake: Fake, corner: Corner, patch: pytest.MonkeyPatch) -> None:
        """Enter it."""
        self.fake, self.corner = fake, corner
        path = os.pathsep.join((str(Path(__file__).parent), fake.env["PYTHONPATH"]))
        for name, value in {**fake.env, **corner.env, "PYTHONPATH": path}.items():
            patch.setenv(name, value)
        patch.setattr(tempfile, "tempdir", str(corner.scratch))
        self.used = self.used_mib()

    def used_mib(self) -> int:
        """What is in use of the first GPU."""
        return used_mib(self.fake.whole_env, 0)

    def run(self, given: EngineHost | None = None, progress: Callable[[StepEvent], None] = lambda _: None) -> Run:
        """Run the trial."""
        return run(msgspec.structs.replace(TRIAL, deadline_s=DEADLINE_S), progress, given or host())

    def run_within(self, seconds: float) -> Run:
        """Run it with so much time."""
        ended = run(msgspec.structs.replace(TRIAL, deadline_s=seconds), lambda _: None, host())
        self.assert_nothing_left()
        return ended

    def plan(self, *lines: str) -> None:
        """Let the driver go by another plan from now on."""
        folder = os.environ["LD_LIBRARY_PATH"].split(os.pathsep)[0]
        kept = [line for line in Path(folder, "plan").read_text().splitlines() if not line.startswith("memory")]
        Path(folder, "plan").write_text("".join(f"{line}\n" for line in (*kept, *lines)))

    def tried(self, given: EngineHost | None = None) -> Run:
        """Run it; whatever became of it, nothing is left of it."""
        ended = self.run(given)
        assert ended.left == ()
        self.assert_nothing_left()
        return ended

    def assert_nothing_left(self) -> None:
        """No process, no folder, no memory."""
        assert self.corner.left_in_the_end() == {}
        assert self.used_mib() == self.used


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    """One build of the stand-ins for all tests of a file."""
    return Drivers(tmp_path_factory.mktemp("standins"))


@pytest.fixture
def world(drivers: Drivers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    """Enter a world of this plan."""

    def enter(*plan: str, vllm: str = "0.26.0") -> World:
        fake = Fake(drivers, tmp_path / f"world-{tmp_path.name}", *plan, vllm=vllm)
        return World(fake, Corner(tmp_path / "scratch"), monkeypatch)

    return enter


def value(ended: Run, proof: type[P]) -> P:
    """A proof that was told."""
    reading = ended.readings[fact_name(proof)]
    assert isinstance(reading, Known), reading
    assert isinstance(reading.value, proof)
    return reading.value


def absent(ended: Run, proof: type[Proof]) -> Absent:
    """Why one was not."""
    reading = ended.readings[fact_name(proof)]
    assert isinstance(reading, Absent), reading
    return reading


def outcome(ended: Run, proof: type[Proof]) -> tuple[str, str | None]:
    """How its levers ended: kind and step."""
    told = value(ended, proof).outcome
    return told.kind, told.step


def at_step(step: str, action: Callable[[], None], *, begun: bool = True) -> Callable[[StepEvent], None]:
    """Do something at the beginning, or at the end, of a step."""

    def see(event: StepEvent) -> None:
        if event.name == step and (event.took_s is None) is begun:
            action()

    return see


def interrupt(step: str, *, begun: bool = True) -> Callable[[StepEvent], None]:
    """Press Ctrl-C there."""

    def stop() -> None:
        raise KeyboardInterrupt

    return at_step(step, stop, begun=begun)


def kill_keeper() -> None:
    """End the keeper of this process's trial."""
    for pid in process.children(os.getpid()):
        if any(entry.startswith(f"{process.TAG}=".encode()) for entry in environ(pid)):
            os.kill(pid, signal.SIGKILL)
