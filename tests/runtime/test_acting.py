"""Suspend, resume and move of real processes over a modelled driver: what is done, and what is left when it fails."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from driver_model import GPUS, TOTAL_MIB, Driver, Flaw, tools_on

from warmspare.runtime.moving import move
from warmspare.runtime.operations import JournalFailed
from warmspare.runtime.outcomes import NotActed
from warmspare.runtime.resuming import resume
from warmspare.runtime.suspending import Options, suspend
from warmspare.runtime.unit import Tools

PLAIN = Options()


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return Driver(tmp_path)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def tools(driver: Driver, tmp_path: Path, said: list[str]) -> Iterator[Tools]:
    with tools_on(driver, tmp_path / "state", said.append) as made:
        yield made


def test_a_tree_is_suspended_and_resumed_as_one(driver: Driver, tools: Tools) -> None:
    with driver.tree(3) as pids:
        line = suspend(tools, pids[0], PLAIN)
        assert {driver.state(pid) for pid in pids} == {"checkpointed"}
        assert "with 3 CUDA processes" in line
        assert "300 MiB of gpu0 freed, by NVML" in line
        assert f"`warmspare resume {pids[0]}`" in line
        assert "suspended already" in suspend(tools, pids[0], PLAIN)
        assert "300 MiB" in resume(tools, pids[0], PLAIN)
        assert {driver.state(pid) for pid in pids} == {"running"}
        assert "nothing to resume" in resume(tools, pids[0], PLAIN)


def test_a_part_of_a_tree_is_resumed_with_its_own_need(driver: Driver, tools: Tools) -> None:
    with driver.tree(2) as pids:
        suspend(tools, pids[0], PLAIN)
        assert "100 MiB" in resume(tools, pids[1], PLAIN)
        assert [driver.state(pid) for pid in pids] == ["checkpointed", "running"]
        suspend(tools, pids[0], PLAIN)
        assert "200 MiB" in resume(tools, pids[0], PLAIN)


@pytest.mark.parametrize(
    ("flaw", "says"), [("managed", "managed memory"), ("busy", "--timeout"), ("killed", "has ended")]
)
def test_one_that_cannot_be_suspended_leaves_the_others_running(
    driver: Driver, tools: Tools, flaw: Flaw, says: str
) -> None:
    with driver.tree(3, flaws=("", flaw)) as pids:
        with pytest.raises(NotActed) as told:
            suspend(tools, pids[0], PLAIN)
        assert says in str(told.value)
        assert told.value.end == ("lost" if flaw == "killed" else "undone")
        assert {driver.state(pid) for pid in pids if pid != pids[1]} == {"running"}
        if flaw == "killed":
            assert f"process {pids[1]}" in str(told.value)
        else:
            assert driver.state(pids[1]) == "running"
    assert not tools.journal.interrupted()


def test_a_process_that_no_restore_brings_back_is_called_lost(driver: Driver, tools: Tools) -> None:
    with driver.tree(2, flaws=("", "peers")) as pids:
        suspend(tools, pids[0], PLAIN)
        with pytest.raises(NotActed, match=rf"process {pids[1]} \(.*\) is lost") as told:
            resume(tools, pids[0], PLAIN)
        assert told.value.end == "lost"
        assert driver.state(pids[0]) == "checkpointed"


def test_a_resume_without_room_is_refused_and_leaves_it_suspended(driver: Driver, tools: Tools) -> None:
    with driver.tree(1, mib=600) as (pid,), driver.tree(1, mib=600) as (other,):
        driver.set(other, state="checkpointed")
        suspend(tools, pid, PLAIN)
        driver.set(other, state="running")
        with pytest.raises(NotActed, match="400 MiB free, and 600 MiB are needed") as told:
            resume(tools, pid, PLAIN)
        assert told.value.end == "refused"
        driver.set(other, state="checkpointed")
        resume(tools, pid, PLAIN)
        assert driver.state(pid) == "running"


def test_one_suspended_by_somebody_else_wants_force_where_its_need_is_not_known(driver: Driver, tools: Tools) -> None:
    with driver.tree(1) as (pid,), driver.tree(1, mib=TOTAL_MIB - 1):
        driver.set(pid, state="checkpointed", vram={GPUS[1]: 100})
        with pytest.raises(NotActed, match="not known, since this tool did not suspend it"):
            resume(tools, pid, PLAIN)
        resume(tools, pid, Options(force=True))
        assert driver.state(pid) == "running"


def test_a_restore_that_hangs_strands_it_and_says_so(driver: Driver, tools: Tools) -> None:
    with driver.tree(1, flaws=("restore hangs",)) as (pid,):
        suspend(tools, pid, PLAIN)
        with pytest.raises(NotActed, match=f"process {pid} is stranded") as told:
            resume(tools, pid, PLAIN)
        assert told.value.end == "stranded"
        assert [one.pid for one in tools.journal.stranded()] == [pid]
        driver.set(pid, flaw="")
        resume(tools, pid, PLAIN)
        assert not tools.journal.stranded()


def test_one_locked_by_somebody_else_is_named_and_resume_unlocks_it(driver: Driver, tools: Tools) -> None:
    with driver.tree(1) as (pid,):
        driver.set(pid, state="locked")
        with pytest.raises(NotActed, match=f"is locked, and not by a command of yours.*`warmspare resume {pid}`"):
            suspend(tools, pid, PLAIN)
        resume(tools, pid, PLAIN)
        assert driver.state(pid) == "running"


@pytest.mark.parametrize("name", ["1", "gpu1", GPUS[1], GPUS[1].upper(), "0000:01:00.0", "00000000:01:00.0", "01:00.0"])
def test_it_is_moved_to_the_gpu_that_is_named(driver: Driver, tools: Tools, name: str) -> None:
    with driver.tree(2) as pids:
        line = move(tools, pids[0], name, PLAIN)
        assert "from gpu0 to gpu1" in line
        assert f"`warmspare move {pids[0]} --to {GPUS[0]}`" in line
        assert {driver.state(pid) for pid in pids} == {"running"}
        assert [driver.on(pid) for pid in pids] == [{GPUS[1]: 100}] * 2


def test_a_suspended_one_is_moved_by_the_journals_note(driver: Driver, tools: Tools) -> None:
    with driver.tree(1) as (pid,):
        suspend(tools, pid, PLAIN)
        move(tools, pid, "gpu1", PLAIN)
        assert (driver.state(pid), driver.on(pid)) == ("running", {GPUS[1]: 100})


def test_a_move_that_fails_brings_it_back_to_where_it_was(driver: Driver, tools: Tools) -> None:
    with driver.tree(2, flaws=("", "restore hangs")) as pids:
        with pytest.raises(NotActed) as told:
            move(tools, pids[0], "gpu1", PLAIN)
        assert told.value.end == "stranded"
        assert driver.on(pids[1]) == {GPUS[0]: 100}
        assert f"`warmspare resume {pids[1]}`" in str(told.value)


def test_a_move_to_where_it_is_or_to_no_gpu_is_told(driver: Driver, tools: Tools) -> None:
    with driver.tree(1) as (pid,):
        assert "is on gpu0 already" in move(tools, pid, "0", PLAIN)
        with pytest.raises(NotActed, match=r"no GPU is called 'gpu7'.*gpu0, gpu1"):
            move(tools, pid, "gpu7", PLAIN)


def test_asked_to_stop_it_undoes_what_it_did_and_passes_the_signal_on(
    driver: Driver, tools: Tools, said: list[str]
) -> None:
    with driver.tree(2) as pids:
        heard: list[int] = []
        before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))

        def shown(action: str, pid: int, end: object) -> None:
            if (action, pid) == ("checkpoint", pids[0]) and end is not None:
                os.kill(os.getpid(), signal.SIGTERM)

        try:
            with pytest.raises(NotActed, match="runs on: stopped by SIGTERM") as told:
                suspend(tools._replace(shown=shown), pids[0], PLAIN)
        finally:
            signal.signal(signal.SIGTERM, before)
        assert heard == [signal.SIGTERM]
        assert told.value.end == "undone"
        assert str(told.value) in said
        assert {driver.state(pid) for pid in pids} == {"running"}


def test_a_process_that_ends_before_the_first_call_is_no_harm_of_ours(driver: Driver, tools: Tools) -> None:
    with driver.tree(1) as (pid,):

        def ends(_gpus: tuple[str, ...]) -> None:
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

        with pytest.raises(NotActed, match=f"nothing was done: process {pid} .* has ended") as told:
            suspend(tools, pid, Options(proven=ends))
        assert told.value.end == "refused"


def test_nothing_is_done_where_nothing_can_be_written(driver: Driver, tools: Tools) -> None:
    with driver.tree(1) as (pid,):
        tools.journal._store._connection.execute("PRAGMA query_only = 1")  # noqa: SLF001
        with pytest.raises(JournalFailed, match=r"the journal .* cannot be used"):
            suspend(tools, pid, PLAIN)
        assert driver.state(pid) == "running"
