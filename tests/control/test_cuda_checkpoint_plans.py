"""What a plan does to suspending: in who is asked, in who asks, in the bytes, and in what is told."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import checkpoint_scenes as scenes
import pytest
from checkpoint_players import (
    BEFORE,
    CHECKPOINTED,
    FAILED,
    LEAVES,
    LOCKED,
    NO_SYSTEM,
    PATIENCE_S,
    RIGHT,
    RUNNING,
    STEPS,
    WRONG_STATE,
    Asker,
    one,
    used,
)  # fmt: skip

from conftest import CI
from scenes import environment, played
from standins import Drivers, compilers
from warmspare.control.criu import Criu
from worlds import end, gone, wait_for

pytestmark = pytest.mark.skipif(not compilers() and not CI, reason="needs a C compiler, or the wheel ziglang")
World = Callable[..., dict[str, str]]
each_step = pytest.mark.parametrize("step", STEPS)


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    return Drivers(tmp_path_factory.mktemp("standins"))


@pytest.fixture
def world(drivers: Drivers, tmp_path: Path) -> World:
    """A world of the test's own."""
    return lambda *plan, **more: drivers.world(tmp_path.name, *plan, **more)


def lines(path: Path) -> list[Any]:
    """The whole lines of a diary."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def beats(path: Path, count: int) -> list[Any]:
    """The lines, once there are so many."""
    deadline = time.monotonic() + PATIENCE_S
    while len(found := lines(path)) < count:
        assert time.monotonic() < deadline, found
        time.sleep(scenes.BEAT_S)
    return found


@each_step
def test_a_refusal_leaves_everything_as_it_was(world: World, step: str) -> None:
    with one(world(f"{step.lower()} target nth1: returns 999")) as (target, asker):
        asker.all(*BEFORE[step])
        before = asker.state
        assert (asker.do(step), asker.state, asker.do(step)) == (999, before, 0)
        asker.all(*STEPS[STEPS.index(step) + 1 :])
        assert target("check") == RIGHT


@each_step
def test_a_failure_loses_the_process(world: World, step: str) -> None:
    with one(world(f"failed {step.lower()} nth1: returns 999")) as (_, asker):
        asker.all(*BEFORE[step])
        assert (asker.do(step), asker.state, asker.do(step)) == (999, FAILED, WRONG_STATE)


@each_step
def test_one_that_hangs_in_it_answers_nothing_more(world: World, step: str) -> None:
    env = world(f"{step.lower()} target nth1: hangs")
    with one(env) as (target, asker), Asker(env, target.pid) as second:
        asker.all(*BEFORE[step])
        asker.put(step)
        assert not asker.answers()
        asker.process.kill()
        second.begin("GetState")
        assert not second.answers()
        target.process.kill()
        target.process.wait()
        assert second.hear()[0] == NO_SYSTEM


@each_step
def test_one_that_dies_of_it_is_gone(world: World, step: str) -> None:
    env = world(f"{step.lower()} target nth1: crashes")
    idle = used(env)
    with one(env) as (target, asker):
        asker.all(*BEFORE[step])
        assert asker.do(step) == NO_SYSTEM
        assert target.process.wait(PATIENCE_S) == -signal.SIGSEGV
        assert used(env) == idle


@pytest.mark.parametrize("fate", ["returns 46", "hangs", "crashes"])
@each_step
def test_a_call_that_refuses_hangs_or_crashes_asks_nothing(world: World, step: str, fate: str) -> None:
    env = world(f"cuCheckpointProcess{step} nth1: {fate}")
    with one(env) as (target, asker), Asker(env, target.pid) as second:
        second.all(*BEFORE[step])
        before = second.state
        asker.begin(step)
        if fate == "returns 46":
            assert asker.hear() == 46
        elif fate == "hangs":
            assert not asker.answers()
        else:
            assert asker.process.wait(PATIENCE_S) == -signal.SIGSEGV
        assert second.state == before


@each_step
def test_who_asks_may_die_when_it_is_done(world: World, step: str) -> None:
    env = world(f"cuCheckpointProcess{step} done nth1: crashes")
    with one(env) as (target, asker), Asker(env, target.pid) as prepares:
        assert prepares.all(*BEFORE[step]) == [0] * len(BEFORE[step])
        asker.begin(step)
        assert asker.process.wait(PATIENCE_S) == -signal.SIGSEGV
        assert prepares.state == LEAVES[step]


@pytest.mark.parametrize(("gpu", "wrong"), [(0, [512] * 3), (1, RIGHT)])
def test_a_page_of_a_gpus_memory_comes_back_wrong(world: World, gpu: int, wrong: list[int]) -> None:
    with one(world(f"wrong page of restore gpu{gpu}: gives 3")) as (target, asker):
        assert (asker.all(*STEPS), target("check")) == ([0] * 4, wrong)


def test_memory_may_stay_on_the_gpu_though_success_was_said(world: World) -> None:
    env = world("kept vram gpu0: gives 1")
    idle, _ = used(env)
    with one(env) as (target, asker):
        held = used(env)
        assert held[0] > idle
        for _ in "12":
            assert (asker.all("Lock", "Checkpoint"), used(env)) == ([0, 0], held)
            assert (asker.all("Restore", "Unlock"), used(env)) == ([0, 0], held)
        assert target("check") == RIGHT


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("state *: gives 3", [FAILED, FAILED, FAILED]),
        ("state checkpointed *: gives 0", [RUNNING, LOCKED, RUNNING]),
        ("state locked nth1: gives 4", [RUNNING, 4, CHECKPOINTED]),
    ],
)
def test_a_state_may_be_told_wrong(world: World, line: str, told: list[int]) -> None:
    with one(world(line)) as (_, asker):
        assert [asker.state, *(asker.all(step) and asker.state for step in ("Lock", "Checkpoint"))] == told


def test_a_state_may_be_refused_or_never_told(world: World) -> None:
    with one(world("state running nth1: returns 46", "state running nth2: hangs")) as (_, asker):
        assert asker.do("GetState")[0] == 46
        asker.begin("GetState")
        assert not asker.answers()


@pytest.mark.parametrize(("first", "dies"), [("synchronize", True), ("wait", True), ("more", False)])
def test_a_wait_as_the_first_call_after_a_checkpoint_may_crash(world: World, first: str, *, dies: bool) -> None:
    with one(world("sync after resume: crashes")) as (target, asker):
        target("synchronize")
        assert asker.all(*STEPS) == [0] * 4
        target.tell(first)
        if dies:
            assert target.process.wait(PATIENCE_S) == -signal.SIGSEGV
        else:
            target.hear()
            target("synchronize")
            assert target("check") == RIGHT


def test_who_asks_second_waits_for_the_first(world: World) -> None:
    env = world()
    with one(env) as (target, asker), Asker(env, target.pid) as second:
        target("hold")
        asker.put("Lock")
        second.begin("GetState")
        assert not second.answers()
        target("let_go")
        assert (asker.hear(), second.hear()) == (0, [0, LOCKED])


def test_those_who_wait_to_ask_are_answered_one_by_one(world: World) -> None:
    env = world("state locked nth6: gives 9")
    with one(env) as (target, asker), contextlib.ExitStack() as stack:
        others = [stack.enter_context(Asker(env, target.pid)) for _ in range(6)]
        target("hold")
        asker.put("Lock")
        for other in others:
            other.begin("GetState")
        assert not asker.answers()
        target("let_go")
        assert asker.hear() == 0
        assert sorted(other.hear() for other in others) == [[0, LOCKED]] * 5 + [[0, 9]]


@pytest.mark.parametrize(("major", "has"), [(565, False), (570, True)])
def test_a_driver_before_570_lacks_the_calls(world: World, major: int, *, has: bool) -> None:
    assert played(world(cuda=major), scenes.has) == [has] * 6


def test_a_survey_that_asked_about_a_process_would_die_of_it(world: World) -> None:
    with one(world("cuCheckpoint*: crashes")) as (_, asker):
        asker.begin("GetState")
        assert asker.process.wait(PATIENCE_S) == -signal.SIGSEGV


@pytest.fixture
def diary(world: World, tmp_path: Path) -> Iterator[tuple[dict[str, str], Path, subprocess.Popen[bytes]]]:
    """A target that nobody is connected to, and what it writes."""
    env, path = world(), tmp_path / "diary"
    command = [sys.executable, scenes.__file__, scenes.diarist.__name__, str(path)]
    none = subprocess.DEVNULL
    with subprocess.Popen(
        command, env=environment(env), cwd=tmp_path, stdin=none, stdout=none, stderr=none, start_new_session=True
    ) as process:
        yield env, path, process
        end(process.pid)


@pytest.mark.root
@pytest.mark.criu
def test_a_checkpointed_process_comes_back_from_disk(
    diary: tuple[dict[str, str], Path, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    env, path, process = diary
    criu, images = Criu.found(), tmp_path / "images"
    images.mkdir()
    assert criu
    wait_for(path, process)
    beats(path, 3)
    with Asker(env, process.pid) as asker:
        assert asker.all("Lock", "Checkpoint") == [0, 0]
        (held, _), before = used(env), lines(path)
        ended = criu.dump(process.pid, images)
        assert ended.status == 0, ended
        assert process.wait(PATIENCE_S) == -signal.SIGKILL
        assert asker.do("GetState") == [NO_SYSTEM, -1]
        with one(env) as (other, also):  # its place is not given to another
            assert also.all("Lock", "Checkpoint") == [0, 0]
            ended = criu.restore(images)
            assert ended.status == 0, ended
            try:
                assert (asker.state, lines(path)) == (CHECKPOINTED, before)
                assert asker.do("GetRestoreThreadId")[0] == 0
                assert (asker.all("Restore", "Unlock"), also.all("Restore", "Unlock")) == ([0, 0], [0, 0])
                after = beats(path, len(before) + 3)
                assert after[len(before) :][0] == [len(before) + 1, RIGHT]
                assert used(env)[0] > held
                assert other("check") == RIGHT
            finally:
                end(process.pid)
                assert gone(process.pid)
