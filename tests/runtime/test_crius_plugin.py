"""CRIU's own CUDA plugin with our cuda-checkpoint: a real CRIU, the real plugin, and a stand-in driver."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from plugin_cycle import Cycle, gpu_is_shown, orphans_are_ours

from conftest import CI, PLUGIN
from standins import Drivers, compilers

pytestmark = [
    pytest.mark.root,
    pytest.mark.criu,
    pytest.mark.plugin,
    pytest.mark.skipif(not compilers() and not CI, reason="needs a C compiler, or the wheel ziglang"),
]
HELP: Final = "-h"
THREAD: Final = "--get-restore-tid --pid PID"
LOCK: Final = "--action lock --pid PID --timeout 10000"
CHECKPOINT: Final = "--action checkpoint --pid PID"
RESTORE: Final = "--action restore --pid PID"
UNLOCK: Final = "--action unlock --pid PID"


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    return Drivers(tmp_path_factory.mktemp("standins"))


@pytest.fixture
def cycle(drivers: Drivers, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cycle]:
    """A process that is up, in a world with the plan that a test names."""
    world = drivers.world(tmp_path.name, *getattr(request, "param", ()))
    with gpu_is_shown() as enter, orphans_are_ours():
        one = Cycle(tmp_path, world, enter)
        try:
            one.begin()
            yield one
        finally:
            one.end()


def test_the_plugin_is_of_the_criu_that_loads_it() -> None:
    told = subprocess.run([PLUGIN / "program" / "criu", "--version"], capture_output=True, text=True, check=True).stdout
    assert f"Version: {(PLUGIN / 'version').read_text()}" in told


def test_a_process_with_gpu_memory_survives_dump_and_restore(cycle: Cycle) -> None:
    status, log = cycle.dump()
    assert status == 0, log[-2000:]
    assert "cuda_plugin: initialized: cuda_plugin stage 0" in log
    assert f"cuda_plugin: Checkpointing CUDA devices on pid {cycle.pid}" in log
    assert "cuda_plugin: finished cuda_plugin stage 0 err 0" in log
    *calls, state, lock, thread, checkpoint = cycle.called()
    assert calls == [HELP, THREAD]
    assert state.startswith("--get-state --pid ")
    assert "PID" not in state  # by its restore thread's number
    # The plugin multiplied what it read in CRIU's memory: they agree where it is.
    assert [lock, thread, checkpoint] == [LOCK, THREAD, CHECKPOINT]

    status, log = cycle.restore()
    assert status == 0, log[-2000:]
    assert "cuda_plugin: initialized: cuda_plugin stage 2" in log
    assert cycle.called() == [HELP, THREAD, RESTORE, UNLOCK]
    assert cycle.ask("--get-state") == "running"
    assert [cycle.turn(), cycle.turn()] == ["turn 1 right", "turn 2 right"]


def test_one_that_is_left_running_runs_on(cycle: Cycle) -> None:
    status, log = cycle.dump("--leave-running")
    assert status == 0, log[-2000:]
    assert cycle.called()[-4:] == [CHECKPOINT, THREAD, RESTORE, UNLOCK]
    assert cycle.turn() == "turn 1 right"


def test_one_that_was_suspended_before_is_dumped_as_it_is(cycle: Cycle) -> None:
    cycle.ask("--toggle")
    status, log = cycle.dump()
    assert status == 0, log[-2000:]
    assert LOCK not in (called := cycle.called())
    assert CHECKPOINT not in called
    assert cycle.restore()[0] == 0
    assert cycle.turn() == "turn 1 right"


@pytest.mark.parametrize("cycle", [("lock target nth1: returns 600",)], indirect=True)
def test_a_lock_that_is_refused_fails_the_dump_and_the_process_runs_on(cycle: Cycle) -> None:
    status, log = cycle.dump()
    assert status != 0
    assert "PAUSE_DEVICES failed with cuda-checkpoint: cuCheckpointProcessLock: 600 CUDA_ERROR_NOT_READY" in log
    assert cycle.turn() == "turn 1 right"


@pytest.mark.parametrize("cycle", [("checkpoint target nth1: returns 801",)], indirect=True)
def test_after_a_checkpoint_that_is_refused_the_plugin_leaves_it_locked(cycle: Cycle) -> None:
    status, log = cycle.dump()
    assert status != 0
    assert "CHECKPOINT_DEVICES failed with cuda-checkpoint: cuCheckpointProcessCheckpoint: 801" in log
    assert cycle.called()[-1] == RESTORE  # which a locked process refuses, and then it does not unlock
    assert cycle.ask("--get-state") == "locked"
    cycle.ask("--action", "unlock")
    assert cycle.turn() == "turn 1 right"


def test_a_restore_that_is_not_told_the_thread_leaves_it_checkpointed_and_says_nothing(cycle: Cycle) -> None:
    assert cycle.dump()[0] == 0
    plan = Path(cycle.env["LD_LIBRARY_PATH"].split(":")[0], "plan")
    plan.write_text("cuCheckpointProcessGetRestoreThreadId *: returns 999\n")
    assert cycle.restore()[0] == 0
    plan.write_text("")
    assert cycle.ask("--get-state") == "checkpointed"
    cycle.ask("--toggle")
    assert cycle.turn() == "turn 1 right"
