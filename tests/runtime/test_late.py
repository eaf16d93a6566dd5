"""Clearing up a checkpoint that was broken off: nobody else's processes are touched, and nobody waits unawares."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from driver_model import Driver, tools_on

from leftovers import until
from warmspare.control.target import Target, target, tree
from warmspare.runtime import frozen, late
from warmspare.runtime.publishing import Place
from warmspare.runtime.recovery import recover

TRACES = """
import ctypes, sys, time
assert ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), 0, 0) == 0  # PTRACE_SEIZE
print("ready", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def family() -> Iterator[tuple[Target, Target]]:
    """A process and its child, which is stopped."""
    with subprocess.Popen(["sh", "-c", "sleep 60 & wait"]) as root:
        assert until(lambda: len(tree(root.pid)) == 2)
        both = tree(root.pid)
        os.kill(both[1].pid, signal.SIGSTOP)
        assert until(lambda: getattr(target(both[1].pid), "state", "") == "T")
        yield both[0], both[1]
        for one in (root.pid, both[1].pid):
            os.kill(one, signal.SIGKILL)


def cleared_up(folder: Path, *targets: Target) -> list[str]:
    """What is said when a checkpoint of these was broken off before there was an image."""
    said: list[str] = []
    with tools_on(Driver(folder), folder / "state", said.append) as tools:
        place = Place(parent=str(folder), hidden=".warmspare-0", name="image", device=1, inode=1)
        with tools.journal.begin("checkpoint", targets, (), place=msgspec.json.encode(place).decode()):
            pass
        recover(tools)
    return said


def test_the_tree_that_has_got_the_number_is_not_touched(tmp_path: Path, family: tuple[Target, Target]) -> None:
    root, child = family
    (said,) = cleared_up(tmp_path, msgspec.structs.replace(root, started=root.started - 1))
    assert f"process {root.pid} (sh) has ended" in said
    assert getattr(target(child.pid), "state", "") == "T"


def test_a_process_that_stops_a_moment_after_criu_has_ended_is_waited_for(family: tuple[Target, Target]) -> None:
    looks: list[str] = []

    def look() -> tuple[Target, ...]:
        if len(looks) == 2:  # the signal is on its way
            os.kill(family[0].pid, signal.SIGSTOP)
        seen = target(family[0].pid)
        assert seen
        looks.append(seen.state)
        return (seen,)

    assert [one.state for one in frozen.settled(look)] == ["T"]
    assert len(looks) >= 3
    os.kill(family[0].pid, signal.SIGCONT)
    assert until(lambda: not frozen.is_still(look()[0]))
    assert not frozen.is_still(frozen.settled(look, 0.05)[0])
    assert frozen.settled(tuple) == ()


def test_whoever_is_waited_for_is_named(
    tmp_path: Path, family: tuple[Target, Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, child = family
    monkeypatch.setattr(late, "SOON_S", 0.1)
    command = [sys.executable, "-c", TRACES, str(child.pid), "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tracer:
        assert tracer.stdout
        assert tracer.stdout.readline() == "ready\n"
        waiting, _ = cleared_up(tmp_path, root, child)
    assert f"waiting for process {tracer.pid} (" in waiting
