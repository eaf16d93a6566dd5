"""Sleep Mode tried on an engine that goes by vLLM's name, well or in each known way not; and that nothing is left."""

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

from engines import Fake, a_model, used_mib
from leftovers import Corner, environ
from standins import Drivers, gpu_ids
from warmspare.control import process
from warmspare.model.facts import Absent, Known, Proof, fact_name
from warmspare.trials.api import StepEvent, at_place
from warmspare.trials.engine_given import EngineHost
from warmspare.trials.given import EngineAsk, Gpu
from warmspare.trials.run import Run, run
from warmspare.trials.sleeping.cycles import SleepCycles
from warmspare.trials.sleeping.level_2 import SleepLevel2
from warmspare.trials.sleeping.oracle import SleepOracle
from warmspare.trials.sleeping.room import SleepRoom
from warmspare.trials.sleeping.start import EngineStart

P = TypeVar("P", bound=Proof)
TRIAL: Final = at_place(f"{sleep_first_parts.__name__}:first_parts")
DEADLINE_S: Final = 150.0
CYCLES: Final = 3
GIB: Final = 2**30


def gpu(n: int) -> Gpu:
    figures: dict[str, Any] = {"pcie_gb_per_s": None, "nvlink_gb_per_s": None, "numa_nodes": (), "memory_mib": None}
    return Gpu(subject=f"gpu{n}", id=gpu_ids()[n], nvml=n, **figures)


def host(ask: EngineAsk | None = None, *, vllm: str = "0.26.0", full: bool = False, gpus: int = 1) -> EngineHost:
    return EngineHost(
        gpus=tuple(gpu(n) for n in range(gpus)), python=sys.executable, vllm=vllm, ask=ask or EngineAsk(), full=full,
        cycles=CYCLES, deadline_s=DEADLINE_S, shape="tiny",
    )  # fmt: skip


class World:
    """A driver, a vLLM of this plan, and a corner for the trial."""

    def __init__(self, fake: Fake, corner: Corner, patch: pytest.MonkeyPatch) -> None:
        self.fake, self.corner = fake, corner
        path = os.pathsep.join((str(Path(__file__).parent), fake.env["PYTHONPATH"]))
        for name, value in {**fake.env, **corner.env, "PYTHONPATH": path}.items():
            patch.setenv(name, value)
        patch.setattr(tempfile, "tempdir", str(corner.scratch))
        self.used = self.used_mib()

    def used_mib(self) -> int:
        return used_mib(self.fake.whole_env, 0)

    def run(self, given: EngineHost | None = None, progress: Callable[[StepEvent], None] = lambda _: None) -> Run:
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
        assert self.corner.left_in_the_end() == {}
        assert self.used_mib() == self.used


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    return Drivers(tmp_path_factory.mktemp("standins"))


@pytest.fixture
def world(drivers: Drivers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    """Enter a world of this plan."""

    def enter(*plan: str, vllm: str = "0.26.0") -> World:
        fake = Fake(drivers, tmp_path / f"world-{tmp_path.name}", *plan, vllm=vllm)
        return World(fake, Corner(tmp_path / "scratch"), monkeypatch)

    return enter


def value(ended: Run, proof: type[P]) -> P:
    reading = ended.readings[fact_name(proof)]
    assert isinstance(reading, Known), reading
    assert isinstance(reading.value, proof)
    return reading.value


def absent(ended: Run, proof: type[Proof]) -> Absent:
    reading = ended.readings[fact_name(proof)]
    assert isinstance(reading, Absent), reading
    return reading


def outcome(ended: Run, proof: type[Proof]) -> tuple[str, str | None]:
    told = value(ended, proof).outcome
    return told.kind, told.step


def test_a_healthy_engine(world: Callable[..., World]) -> None:
    ended = world().tried()
    kinds = {name: reading.value.outcome.kind for name, reading in ended.readings.items() if isinstance(reading, Known)}
    assert kinds == dict.fromkeys(ended.readings, "done")
    start, cycles, oracle = value(ended, EngineStart), value(ended, SleepCycles), value(ended, SleepOracle)
    assert (start.vllm, start.model, start.found, start.gpus) == ("0.26.0", "made tiny", False, ("gpu0",))
    assert start.cold_start_s and start.ready_s and start.ready_s < start.cold_start_s
    assert cycles.cycles == CYCLES
    assert cycles.mib_before is not None and cycles.mib_asleep is not None and cycles.mib_awake is not None
    assert cycles.mib_before < cycles.mib_asleep < cycles.mib_awake == cycles.mib_after
    assert cycles.mib_freed == cycles.mib_awake - cycles.mib_asleep
    assert (cycles.residue_mib, cycles.residue_growth_mib) == (cycles.mib_asleep - cycles.mib_before, 0)
    assert (cycles.tokens_equal, cycles.logprobs_within, cycles.freed_by) == (True, 0.0, "nvml")
    assert None not in (cycles.sleep_s, cycles.wake_s, cycles.first_token_after_wake_s, cycles.first_token_warm_s)
    assert (oracle.control, oracle.sees, oracle.originals_come_back) == ("faults", True, True)
    room_ = value(ended, SleepRoom)
    assert (room_.needed_mib, room_.had) == (1, True)


@pytest.mark.parametrize(
    ("word", "step", "tokens_equal"),
    [
        ("memory-not-freed", "sleep 1", True),
        ("memory-half-freed", "sleep 1", True),
        ("garbage-after-level-1", "wake 1", False),
        ("drift-after-wake", "wake 1", True),
    ],
)
def test_a_cycle_that_is_not_what_it_says(
    world: Callable[..., World], word: str, step: str, tokens_equal: bool
) -> None:
    ended = world(word).tried()
    cycles = value(ended, SleepCycles)
    assert (cycles.outcome.kind, cycles.outcome.step, cycles.cycles) == ("wrong", step, 1)
    assert cycles.tokens_equal is tokens_equal
    assert (cycles.logprobs_within == 0.0) is (step == "sleep 1")


def test_what_leaks_is_told(world: Callable[..., World]) -> None:
    cycles = value(world("leak-each-cycle").tried(), SleepCycles)
    assert cycles.outcome.kind == "done"
    assert cycles.residue_growth_mib


@pytest.mark.parametrize(
    ("word", "level_2", "perturbed"), [("blind", False, False), ("level-2-keeps-weights", False, True)]
)
def test_an_oracle_that_is_blind(world: Callable[..., World], word: str, level_2: bool, perturbed: bool) -> None:
    oracle = value(world(word).tried(), SleepOracle)
    assert (oracle.sees_level_2_without_reload, oracle.sees_a_perturbed_layer) == (level_2, perturbed)
    assert (oracle.outcome.kind, oracle.sees, oracle.originals_come_back) == ("done", False, True)


@pytest.mark.parametrize(
    ("word", "kind", "step", "code"),
    [
        ("fail-on-sleep", "refused", "sleep 1", "HTTP 500"),
        ("fail-on-wake@2", "refused", "wake 2", "HTTP 500"),
        ("crash-on-sleep", "refused", "sleep 1", "HTTP 500"),
        ("crash-on-wake", "refused", "wake 1", "HTTP 500"),
        ("dead-after-sleep-200", "refused", "wake 1", "HTTP 500"),
    ],
)
def test_an_engine_that_fails_in_a_cycle(
    world: Callable[..., World], word: str, kind: str, step: str, code: str
) -> None:
    ended = world(word).tried()
    told = value(ended, SleepCycles).outcome
    assert (told.kind, told.step, told.code) == (kind, step, code)
    if word == "fail-on-sleep":  # and it is awake
        assert outcome(ended, SleepOracle) == ("refused", "control: sleep at level 2")
    elif word == "fail-on-wake@2":  # the next wake goes well
        assert outcome(ended, SleepOracle) == ("done", None)
    else:
        assert absent(ended, SleepOracle).detail.startswith("not reached: the engine does not serve")


@pytest.mark.parametrize(
    ("word", "kind", "said"),
    [
        ("cannot-import", "died", "ImportError: libcudart.so.13"),
        ("die-at-start", "died", "failed to be inspected"),
        ("no-sleep-flag", "died", "unrecognized arguments: --enable-sleep-mode"),
        ("no-dev-endpoints", "refused", "POST /reset_prefix_cache"),
    ],
)
def test_an_engine_that_does_not_come_to_answer(world: Callable[..., World], word: str, kind: str, said: str) -> None:
    ended = world(word).tried()
    start = value(ended, EngineStart).outcome
    assert start.kind == kind
    assert said in start.detail
    for proof in (SleepCycles, SleepOracle, SleepLevel2):
        assert absent(ended, proof).detail == "not reached: the engine did not come to answer"


def test_an_engine_that_hangs_at_its_start_leaves_time_to_stop_it(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = world("hang-at-start").run_within(64.0)
    start = value(ended, EngineStart).outcome
    assert (start.kind, start.step) == ("hung", "start the engine")


def test_a_lost_engine_is_started_anew_with_full(world: Callable[..., World]) -> None:
    ended = world("crash-on-wake@3").tried(host(full=True))
    assert outcome(ended, SleepCycles) == ("refused", "wake 3")
    assert outcome(ended, SleepOracle) == ("done", None)
    assert outcome(ended, SleepLevel2)[0] in ("done", "refused")


def test_one_that_is_too_old_is_not_started(world: Callable[..., World]) -> None:
    ended = world(vllm="0.6.3").tried(host(vllm="0.6.3.post1"))
    for proof in (EngineStart, SleepCycles):
        assert absent(ended, proof).detail == "vLLM 0.6.3.post1 is too old: Sleep Mode is tried from 0.8 on"


def test_the_users_model_after_the_controls_on_one_that_is_made(world: Callable[..., World], tmp_path: Path) -> None:
    steps: list[str] = []
    model = a_model(tmp_path / "theirs")
    entered = world()
    ended = entered.run(host(EngineAsk(model=str(model))), lambda event: steps.append(event.name))
    entered.assert_nothing_left()
    assert steps.index("perturb a layer") < steps.index("sleep 1")
    assert value(ended, SleepOracle).sees
    assert (value(ended, EngineStart).model, value(ended, SleepCycles).cycles) == ("theirs", CYCLES)
    assert steps.count("spawn an engine") == 4  # for its beginning and its end, of two


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--port", "1"), "--port: this is set here"),
        (("--tensor-parallel-size", "4"), "these flags ask for 4 GPUs, and 1 may be used"),
    ],
)
def test_flags_that_cannot_be(world: Callable[..., World], flags: tuple[str, ...], said: str) -> None:
    assert absent(world().tried(host(EngineAsk(flags=flags))), EngineStart).detail == said


def test_no_gpu_has_room(world: Callable[..., World]) -> None:
    entered = world()
    entered.plan("memory gpu?: gives 900")
    found = absent(entered.run(), EngineStart)
    assert found.detail == "gpu0 has 900 MiB free, and the smallest engine takes 1024 MiB"


@pytest.mark.parametrize("when", ["start the engine", "sleep 2", "control: load the perturbed weights"])
@pytest.mark.parametrize("begun", [True, False])
def test_nothing_is_left_after_ctrl_c(world: Callable[..., World], when: str, begun: bool) -> None:
    entered = world("copy-ms=50")
    with pytest.raises(KeyboardInterrupt):
        entered.run(progress=_interrupt(when, begun=begun))
    entered.assert_nothing_left()


def test_nothing_is_left_when_the_keeper_is_killed(world: Callable[..., World]) -> None:
    entered = world("copy-ms=50", "orphan-core")
    entered.run(progress=_at("sleep 2", _kill_keeper))
    entered.assert_nothing_left()


def _at(step: str, action: Callable[[], None], *, begun: bool = True) -> Callable[[StepEvent], None]:
    """Do something at the beginning, or at the end, of a step."""

    def see(event: StepEvent) -> None:
        if event.name == step and (event.took_s is None) is begun:
            action()

    return see


def _interrupt(step: str, *, begun: bool = True) -> Callable[[StepEvent], None]:
    def stop() -> None:
        raise KeyboardInterrupt

    return _at(step, stop, begun=begun)


def _kill_keeper() -> None:
    for pid in process.children(os.getpid()):
        if any(entry.startswith(f"{process.TAG}=".encode()) for entry in environ(pid)):
            os.kill(pid, signal.SIGKILL)
