"""The tool, its keeper or both are ended at every moment of a suspend: nothing is left, or the next run ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from gpu_world import World

from leftovers import environ, until
from warmspare.control import process
from warmspare.trials import gentle, leftover

pytest_plugins = ("gpu_fixtures",)
TOOL: Final = """\
import sys
sys.path[:0] = sys.argv[2:]
import gpu_world
ended = gpu_world.run(gpu_world.TRIALS[sys.argv[1]], lambda e: print(e.name, e.took_s is None, flush=True),
                      gpu_world.GIVEN[sys.argv[1]])
print(*ended.left, sep="\\n")
"""
HERE: Final = Path(__file__).parent
STEPS: Final = ("start the canary", "lock", "checkpoint", "see the memory freed", "restore", "unlock", "see it go on")


class Tool:
    """A tool of its own that runs a trial and tells its steps."""

    def __init__(self, name: str) -> None:
        """Start it."""
        command = [sys.executable, "-c", TOOL, name, str(HERE), str(HERE.parent)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def reach(self, step: str) -> None:
        """Return when the step has begun."""
        assert self.process.stdout
        assert any(line == f"{step} True\n" for line in self.process.stdout), "the trial ended before"

    def end(self, number: signal.Signals) -> str:
        """Signal it, and give the rest of what it says."""
        self.process.send_signal(number)
        return self.process.communicate()[0]

    def end_with_its_keeper(self) -> None:
        """Kill both, with no moment between."""
        (keeper,) = process.children(self.process.pid)
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in (self.process.pid, keeper):
                os.kill(pid, number)
        self.process.communicate()
        assert until(lambda: not environ(keeper))  # until then its folder's lock is held


def make_old(world: World) -> None:
    """As if its folder were older than the grace in which a keeper may still lock it."""
    (folder,) = world.corner.scratch.iterdir()
    os.utime(folder, (0, 0))


@pytest.mark.parametrize("step", STEPS)
def test_when_the_tool_is_killed_the_keeper_clears_away(world: World, step: str) -> None:
    world.enter()
    tool = Tool("gpu_suspend")
    tool.reach(step)
    tool.end(signal.SIGKILL)
    assert world.corner.left_in_the_end() == {}


@pytest.mark.parametrize(
    "plan", ["lock target nth1: hangs", "checkpoint target nth1: hangs", "cuCheckpointProcessRestore nth1: hangs"]
)
def test_when_the_tool_is_killed_while_a_call_hangs_the_keeper_clears_away(world: World, plan: str) -> None:
    world.enter(plan)
    tool = Tool("gpu_suspend")
    tool.reach("restore" if "Restore" in plan else plan.partition(" ")[0])
    tool.end(signal.SIGKILL)
    assert world.corner.left_in_the_end() == {}


@pytest.mark.parametrize("step", STEPS)
def test_when_both_are_killed_the_next_run_clears_away(world: World, step: str) -> None:
    world.enter()
    tool = Tool("gpu_suspend")
    tool.reach(step)
    tool.end_with_its_keeper()
    make_old(world)
    assert leftover.sweep_stale() == []
    assert world.corner.left_in_the_end() == {}


def test_when_both_are_killed_a_canary_that_was_never_restored_ends_by_itself(world: World) -> None:
    world.enter("cuCheckpointProcessLock nth1: hangs")
    tool = Tool("gpu_suspend")
    tool.reach("lock")
    tool.end_with_its_keeper()
    assert until(lambda: not world.corner.processes())
    make_old(world)
    assert leftover.sweep_stale() == []


def test_when_both_are_killed_a_restored_canary_stays_until_it_is_suspended(world: World) -> None:
    world.enter("cuCheckpointProcessUnlock nth1: hangs")
    tool = Tool("gpu_suspend")
    tool.reach("unlock")
    tool.end_with_its_keeper()
    assert until(lambda: len(world.corner.processes()) == 1)
    (canary,) = world.corner.processes()
    make_old(world)
    world.change("checkpoint target *: returns 801")
    left = leftover.sweep_stale()
    assert left == [
        f"pid {canary}, which the driver restored: end it by `warmspare suspend {canary} && kill -9 {canary}`"
    ]
    assert world.corner.processes() == [canary]
    make_old(world)
    world.change()
    assert leftover.sweep_stale() == []
    assert world.corner.left() == {}


def test_what_cannot_be_ended_is_named_when_the_tool_is_stopped(world: World) -> None:
    world.enter("checkpoint target nth2: returns 801", "cuCheckpointProcessUnlock nth1: hangs")
    tool = Tool("gpu_suspend")
    tool.reach("unlock")
    tool.process.send_signal(signal.SIGINT)
    said = tool.process.communicate()[1]
    (canary,) = world.corner.processes()
    assert said.splitlines()[-1] == gentle.BY_HAND.format(pid=canary)  # a note on what stopped it
    make_old(world)
    assert leftover.sweep_stale() == []
    assert world.corner.processes() == []


def test_one_that_nvml_lists_still_is_left_alive_and_named(world: World) -> None:
    world.enter("kept vram gpu1 nth2: gives 1")  # suspended again, before its end, it gives nothing back
    tool = Tool("gpu_suspend")
    assert "which the driver restored: end it by `warmspare suspend" in tool.process.communicate()[0]
    world.clear()
    make_old(world)
    assert leftover.sweep_stale() == []
