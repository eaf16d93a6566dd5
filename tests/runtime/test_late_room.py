"""Clearing up when the GPU memory that was freed has become another's: what is suspended is not put at risk."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from driver_model import GPUS, TOTAL_MIB, Driver, tools_on
from test_crashes import KILLED, in_a_controller

from warmspare.control.target import tree
from warmspare.runtime.outcomes import NotActed
from warmspare.runtime.publishing import Place
from warmspare.runtime.recovery import recover
from warmspare.runtime.restoring import IMAGE
from warmspare.runtime.resuming import resume
from warmspare.runtime.suspending import Options, suspend
from warmspare.runtime.unit import written


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return Driver(tmp_path)


def is_unharmed(driver: Driver, folder: Path, pids: tuple[int, ...], taken_by: int) -> None:
    """The next command leaves them suspended and says so; with room again they are resumed."""
    said: list[str] = []
    with tools_on(driver, folder, said.append) as tools:
        (found,) = recover(tools)
        assert found.outcome == "stranded", found.sentence
        assert f"warmspare resume {pids[0]}" in found.sentence
        with driver.states() as known:
            assert not any(known[str(pid)]["stranded"] for pid in pids), "a restore was tried without room"
        with pytest.raises(NotActed, match="MiB free"):
            resume(tools, pids[0], Options())
        driver.set(taken_by, state="checkpointed")
        resume(tools, pids[0], Options())
        assert {driver.state(pid) for pid in pids} == {"running"}


def test_a_suspend_is_not_undone_without_room(driver: Driver, tmp_path: Path) -> None:
    with driver.tree(2) as pids, driver.tree(1, mib=0) as (other,):
        for killed_at in range(60):  # until one is suspended and the other is not
            code = in_a_controller(driver, tmp_path / "state", lambda t: suspend(t, pids[0], Options()), killed_at)
            if [driver.state(pid) for pid in pids] == ["checkpointed", "locked"]:
                break
        assert code == KILLED
        driver.set(other, vram={GPUS[0]: TOTAL_MIB - 150})
        is_unharmed(driver, tmp_path / "state", pids, other)


def test_a_checkpoint_is_not_undone_without_room(driver: Driver, tmp_path: Path) -> None:
    with driver.tree(1) as pids, driver.tree(1, mib=0) as (other,):
        with tools_on(driver, tmp_path / "state", print) as tools:
            place = Place(parent=str(tmp_path), hidden=".warmspare-0", name="image", device=1, inode=1)
            place_text = msgspec.json.encode(place).decode()
            held = written({pids[0]: {GPUS[0]: 100}})
            with tools.journal.begin("checkpoint", tree(pids[0]), pids, place=place_text, **held) as entry:
                for action in ("lock", "checkpoint"):
                    entry.tell(action, pids[0], None)
                    entry.tell(action, pids[0], getattr(tools.levers, action)(pids[0]))
                entry.stage("dumping")
        driver.set(other, vram={GPUS[0]: TOTAL_MIB - 50})
        is_unharmed(driver, tmp_path / "state", pids, other)


@pytest.mark.parametrize("held_mib", [TOTAL_MIB - 50, 0])
def test_a_restore_goes_on_where_it_was_to_go_and_claims_its_room(
    driver: Driver, tmp_path: Path, held_mib: int
) -> None:
    with driver.tree(1) as pids, driver.tree(1, mib=0) as (other,):
        said: list[str] = []
        with tools_on(driver, tmp_path / "state", said.append) as tools:
            held = written({pids[0]: {GPUS[0]: 100}})
            on = json.dumps(dict(zip(GPUS, reversed(GPUS), strict=True)))
            with tools.journal.begin("restore", tree(pids[0]), pids, **{IMAGE: "/image", "gpus": on}, **held):
                driver.set(pids[0], state="checkpointed")
            driver.set(other, vram={GPUS[1]: held_mib})
            (found,) = recover(tools)
        with driver.states() as known:
            assert not known[str(pids[0])]["stranded"]
        if held_mib:
            assert (found.outcome, driver.state(pids[0])) == ("stranded", "checkpointed"), found.sentence
        else:
            assert (found.outcome, driver.on(pids[0])) == ("done", {GPUS[1]: 100}), found.sentence
