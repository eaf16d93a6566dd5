"""Our levers on processes of the stand-in driver: what each promises, what each failure is called, all or none."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Final

import checkpoint_scenes as scenes
import pytest
from checkpoint_players import LATE, NO_SYSTEM, RIGHT, WRONG_STATE, Player

from standins import Drivers, gpu_ids
from warmspare.control import cuda_abi as abi
from warmspare.control import together
from warmspare.control.checkpointer import Action, Checkpointer, CheckpointFailed, Done
from warmspare.control.together import NotDone

OUT_OF_MEMORY: Final = abi.OUT_OF_MEMORY
NOBODY: Final = 2**22 + 1
World = Callable[..., AbstractContextManager[Player]]


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    return Drivers(tmp_path_factory.mktemp("standins"))


@pytest.fixture
def enter(drivers: Drivers, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the driver of all that follows be the one of this plan."""

    def into(*plan: str, lacks: tuple[str, ...] = ()) -> None:
        for name, value in drivers.world(request.node.name.replace(":", "-"), *plan, lacks=lacks).items():
            monkeypatch.setenv(name, value)

    return into


@pytest.fixture
def levers() -> Iterator[Checkpointer]:
    with Checkpointer() as found:
        yield found


def player() -> Player:
    return Player({}, scenes.target)


class Heard:
    """What `together` tells, as words."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.said: list[str] = []

    def __call__(self, action: Action, pid: int, end: Done | CheckpointFailed | None) -> None:
        """Take one down."""
        how = "…" if end is None else end.state if isinstance(end, Done) else end.how
        self.said.append(f"{action} {pid} {how}")


def test_a_cycle_ends_where_it_began(enter: Callable[..., None], levers: Checkpointer) -> None:
    enter()
    with player() as target:
        assert levers.state(target.pid) == "running"
        ends = [levers.lock(target.pid), levers.checkpoint(target.pid), levers.restore(target.pid)]
        ends.append(levers.unlock(target.pid))
        assert [one.state for one in ends] == ["locked", "checkpointed", "locked", "running"]
        assert target("check") == RIGHT
    assert levers.started_s
    assert levers.initialised_s


def test_one_that_uses_no_cuda_is_told_from_one_that_does(enter: Callable[..., None], levers: Checkpointer) -> None:
    enter()
    with player() as target:
        assert levers.restore_thread(target.pid) not in (None, target.pid)
    assert levers.restore_thread(os.getpid()) is None
    with pytest.raises(CheckpointFailed) as failed:
        levers.restore_thread(NOBODY)
    assert (failed.value.how, failed.value.result, failed.value.pid) == ("refused", NO_SYSTEM, NOBODY)


def test_a_wrong_state_is_refused_with_the_raw_code_and_the_state_as_it_is(
    enter: Callable[..., None], levers: Checkpointer
) -> None:
    enter()
    with player() as target, pytest.raises(CheckpointFailed) as failed:
        levers.checkpoint(target.pid)
    error = failed.value
    assert (error.action, error.how, error.result, error.state) == ("checkpoint", "refused", WRONG_STATE, "running")
    assert (error.code, error.detail) == ("401 CUDA_ERROR_ILLEGAL_STATE", "cuCheckpointProcessCheckpoint")


def test_a_lock_gives_up_after_its_time(enter: Callable[..., None], levers: Checkpointer) -> None:
    enter()
    with player() as target:
        target("hold")
        with pytest.raises(CheckpointFailed) as failed:
            levers.lock(target.pid, 0.05)
        assert (failed.value.result, failed.value.state) == (LATE, "running")
        target("let_go")


def test_a_call_that_hangs_costs_its_worker_and_the_next_has_another(
    enter: Callable[..., None], levers: Checkpointer
) -> None:
    enter("cuCheckpointProcessCheckpoint nth1: hangs")
    with player() as target:
        levers.lock(target.pid)
        with pytest.raises(CheckpointFailed) as failed:
            levers.checkpoint(target.pid, 0.2)
        assert (failed.value.how, failed.value.state) == ("hung", "locked")
        assert levers.state(target.pid) == "locked"


def test_a_stopped_process_does_not_answer_and_says_so(enter: Callable[..., None], levers: Checkpointer) -> None:
    enter()
    with player() as target:
        target.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, target.pid, os.WSTOPPED)
        with pytest.raises(CheckpointFailed) as failed:
            levers.state(target.pid, 0.2)
        assert (failed.value.how, failed.value.state) == ("hung", None)
        target.process.send_signal(signal.SIGCONT)


def test_a_call_that_crashes_is_told_with_its_signal(enter: Callable[..., None], levers: Checkpointer) -> None:
    enter("cuCheckpointProcessLock nth1: crashes")
    with player() as target:
        with pytest.raises(CheckpointFailed) as failed:
            levers.lock(target.pid)
        assert (failed.value.how, failed.value.code) == ("died", f"signal {signal.SIGSEGV.value}")
        assert failed.value.state == "running"


def test_success_that_left_another_state_is_wrong(enter: Callable[..., None], levers: Checkpointer) -> None:
    enter("cuCheckpointProcessCheckpoint nth1: returns 0", "state checkpointed *: gives 1")
    with player() as target:
        levers.lock(target.pid)
        with pytest.raises(CheckpointFailed) as failed:
            levers.checkpoint(target.pid)
    assert (failed.value.how, failed.value.state) == ("wrong", "locked")


def test_a_state_without_a_name_is_no_state(enter: Callable[..., None], levers: Checkpointer) -> None:
    enter("state *: gives 77")
    with player() as target:
        assert levers.state_or_none(target.pid) is None
        with pytest.raises(CheckpointFailed, match="state 77"):
            levers.state(target.pid)


def test_what_a_driver_lacks_is_named(enter: Callable[..., None], levers: Checkpointer) -> None:
    enter(lacks=("cuCheckpointProcessRestore",))
    assert levers.lacking() == ("cuCheckpointProcessRestore",)


def test_memory_is_claimed_and_let_go(enter: Callable[..., None], levers: Checkpointer) -> None:
    enter("memory gpu0: gives 64")
    gpu, mib = gpu_ids()[0], 2**20
    levers.claim(gpu, 40 * mib, 64 * mib)
    with pytest.raises(CheckpointFailed) as failed:
        levers.claim(gpu, 40 * mib, 24 * mib)
    assert failed.value.result == OUT_OF_MEMORY
    levers.release()
    levers.claim(gpu, 40 * mib, 64 * mib)


def test_all_are_locked_before_the_first_is_checkpointed(enter: Callable[..., None], levers: Checkpointer) -> None:
    enter()
    with player() as one, player() as other:
        pids, heard = [one.pid, other.pid], Heard()
        took = together.suspend(levers, pids, heard)
        ends = [line for line in heard.said if not line.endswith("…")]
        assert ends == [*(f"lock {pid} locked" for pid in pids), *(f"checkpoint {pid} checkpointed" for pid in pids)]
        assert heard.said[0::2] == [line.rsplit(" ", 1)[0] + " …" for line in ends]
        assert took.all_s > 0
        together.resume(levers, pids, heard)
        assert (one("check"), other("check")) == (RIGHT, RIGHT)


@pytest.mark.parametrize(
    ("fate", "action"),
    [("Lock nth2: returns 304", "lock"), ("Checkpoint nth2: returns 801", "checkpoint")],
)
def test_where_one_cannot_be_suspended_all_run_on(
    enter: Callable[..., None], levers: Checkpointer, fate: str, action: str
) -> None:
    enter(f"cuCheckpointProcess{fate}")
    with player() as one, player() as other:
        pids = [one.pid, other.pid]
        with pytest.raises(NotDone) as failed:
            together.suspend(levers, pids, Heard())
        assert (failed.value.failure.action, failed.value.failure.pid) == (action, other.pid)
        assert (failed.value.undone, failed.value.states) == (True, dict.fromkeys(pids, "running"))
        assert (one("check"), other("check")) == (RIGHT, RIGHT)


def test_where_one_cannot_be_restored_the_others_are_suspended_again(
    enter: Callable[..., None], levers: Checkpointer
) -> None:
    enter("cuCheckpointProcessRestore nth2: returns 2")
    with player() as one, player() as other:
        pids = [one.pid, other.pid]
        together.suspend(levers, pids, Heard())
        with pytest.raises(NotDone) as failed:
            together.resume(levers, pids, Heard())
        assert (failed.value.undone, failed.value.states) == (True, dict.fromkeys(pids, "checkpointed"))
        together.resume(levers, pids, Heard())
        assert (one("check"), other("check")) == (RIGHT, RIGHT)


def test_one_that_cannot_be_unlocked_does_not_keep_the_others(enter: Callable[..., None], levers: Checkpointer) -> None:
    enter("cuCheckpointProcessUnlock nth1: returns 999")
    with player() as one, player() as other:
        pids = [one.pid, other.pid]
        together.suspend(levers, pids, Heard())
        with pytest.raises(NotDone) as failed:
            together.resume(levers, pids, Heard())
        assert (failed.value.undone, failed.value.states) == (False, {one.pid: "locked", other.pid: "running"})
        together.resume(levers, pids, Heard())
        assert (one("check"), other("check")) == (RIGHT, RIGHT)


def test_a_process_that_died_is_told_and_the_others_run_on(enter: Callable[..., None], levers: Checkpointer) -> None:
    enter()
    with player() as one, player() as other:
        other.process.kill()
        other.process.wait()
        with pytest.raises(NotDone) as failed:
            together.suspend(levers, [one.pid, other.pid], Heard())
        assert failed.value.states == {one.pid: "running", other.pid: None}
        assert one("check") == RIGHT
