"""The tool, its keeper or both are ended at every moment of a trial: nothing of ours is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from leftovers import Corner, environ, until
from warmspare.control import process
from warmspare.control.criu import Criu

pytestmark = [pytest.mark.root, pytest.mark.criu]

GATE = """\
#!/bin/sh
# A CRIU that stops at $MOMENT of its work, tells so, and goes on only when it is let.
at() { [ "$MOMENT" = "$1" ] && echo "$1" >"$REACHED" && read -r _ <"$GO_ON"; }
case $CRTOOLS_SCRIPT_ACTION in  # called by CRIU itself, while the processes are frozen
  post-dump) at "inside dump"; exit 0 ;;
  post-restore) at "inside restore"; exit 0 ;;
  ?*) exit 0 ;;
esac
case $1 in dump | restore) ;; *) exec "$REAL_CRIU" "$@" ;; esac
case $MOMENT in trying | start) exec sleep 600 ;; esac  # the tool cannot be done before it is ended
at "before $1"
"$REAL_CRIU" "$@" --action-script "$0"
status=$?
[ "$MOMENT" = silence ] && [ "$1" = restore ] && kill -STOP "$(cat restored.pid)"
at "after $1"
exit $status
"""
MOMENTS = ("before dump", "inside dump", "after dump", "before restore", "inside restore", "after restore")
STEPS = {"trying": "trying criu_roundtrip:", "start": "  start the canary", "silence": "  see it go on"}
"""Moments told by a line of the tool. In the silence the restored canary is stopped: the trial waits for it."""


class Tool:
    """A `check` in a process of its own, with a CRIU that stops where it is told to."""

    def __init__(self, folder: Path, moment: str, *prefix: str) -> None:
        """Start it."""
        self.corner = Corner(folder / "scratch")
        self.reached, self.go_on = folder / "reached", folder / "go on"
        os.mkfifo(self.reached)
        os.mkfifo(self.go_on)
        gate = folder / "criu"
        gate.write_text(GATE)
        gate.chmod(0o755)
        self.moment = moment
        own = {
            "MOMENT": moment,
            "REACHED": str(self.reached),
            "GO_ON": str(self.go_on),
            "REAL_CRIU": getattr(Criu.found(), "program", ""),
            "WARMSPARE_CRIU": str(gate),
            "WARMSPARE_STATE_DIR": str(folder / "state"),
        }
        self.env = {**os.environ, **self.corner.env, **own}
        command = [*prefix, sys.executable, "-m", "warmspare", "check", "criugpu", "-v"]
        self.process = subprocess.Popen(command, env=self.env, stdin=-3, stdout=-3, stderr=-1, text=True)

    def wait_for_the_moment(self) -> None:
        """Return when it is there, for as long as nobody lets it go on."""
        if self.moment in MOMENTS:
            assert self.reached.read_text() == f"{self.moment}\n"
            return
        assert self.process.stderr
        lines = []
        for line in self.process.stderr:
            if line.startswith(STEPS[self.moment]):
                return
            lines.append(line)
        pytest.fail(f"the tool ended before the moment came: {''.join(lines)}")

    @property
    def keeper(self) -> int:
        """The trial's keeper, the tool's only child by then."""
        (keeper,) = process.children(self.process.pid)
        return keeper

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Signal the tool and wait for its end: its status, and the rest of its standard error."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> tuple[int, str]:
        """Wait for its end: its status, and the rest of its standard error."""
        assert self.process.stderr
        rest = self.process.stderr.read()
        return self.process.wait(), rest

    def run_again(self) -> None:
        """The next run, whose CRIU refuses at once."""
        command = [sys.executable, "-m", "warmspare", "check", "criugpu"]
        subprocess.run(command, env={**self.env, "WARMSPARE_CRIU": "/bin/false"}, capture_output=True, check=False)


@pytest.fixture
def tool(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Tool]:
    """The tool at the moment that the test is given, and nothing left after it."""
    tool = Tool(tmp_path, *request.param)
    with tool.process:
        try:
            tool.wait_for_the_moment()
            yield tool
            assert tool.corner.left_in_the_end() == {}
        finally:
            for pid in tool.corner.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def at(*moments: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("tool", [(moment,) for moment in moments], ids=moments, indirect=True)


@at(*MOMENTS, *STEPS)
def test_killed_it_leaves_nothing(tool: Tool) -> None:
    assert tool.end(signal.SIGKILL)[0] == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@at("start", "inside dump", "inside restore", "silence")
def test_stopped_it_clears_away_before_it_ends_and_says_so(tool: Tool, number: signal.Signals) -> None:
    status, said = tool.end(number)
    assert tool.corner.left() == {}  # already: it says that everything is cleared away
    assert status == 128 + number
    assert said.splitlines()[-1] == f"warmspare: stopped by {number.name}; everything it started is cleared away"
    assert all(line.startswith(("trying ", "  ")) for line in said.splitlines()[:-1])


@at("trying", "before dump", "after dump", "before restore", "after restore")
def test_terminated_between_steps_it_clears_away_before_it_ends(tool: Tool) -> None:
    assert tool.end(signal.SIGTERM)[0] == 128 + signal.SIGTERM
    assert tool.corner.left() == {}


@at("inside dump")
def test_halted_and_then_killed_it_leaves_nothing(tool: Tool) -> None:
    os.kill(tool.process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, tool.process.pid, os.WSTOPPED | os.WNOWAIT)
    assert tool.end(signal.SIGKILL)[0] == -signal.SIGKILL


@at("before dump", "inside dump", "inside restore")
def test_when_the_keeper_is_killed_the_tool_clears_away_and_goes_on(tool: Tool) -> None:
    os.kill(tool.keeper, signal.SIGKILL)
    status, said = tool.ended()
    assert tool.corner.left() == {}
    assert status in (0, 1, 3, 4)
    assert "Traceback" not in said


@at("inside dump", "inside restore")
def test_when_the_keeper_is_terminated_the_tool_goes_on(tool: Tool) -> None:
    os.kill(tool.keeper, signal.SIGTERM)
    status, said = tool.ended()
    assert tool.corner.left() == {}
    assert status in (0, 1, 3, 4)
    assert "Traceback" not in said


@at("before dump")
def test_when_both_are_killed_the_canary_ends_by_itself_and_the_next_run_sweeps_the_rest(tool: Tool) -> None:
    canaries = [pid for pid in tool.corner.processes() if "canary.py" in command_line(pid)]
    assert len(canaries) == 2
    kill_both(tool)
    assert until(lambda: not any(command_line(pid) for pid in canaries))
    gate = tool.corner.processes()  # a CRIU that hangs is left
    assert [command_line(pid).split()[:2] for pid in gate] == [["/bin/sh", tool.env["WARMSPARE_CRIU"]]]
    (folder,) = tool.corner.folders()
    os.utime(folder, (0, 0))  # as if it were older than the grace in which a keeper may still lock it
    tool.run_again()
    assert tool.corner.left() == {}


@at("inside dump", "inside restore")
def test_when_both_are_killed_what_is_frozen_is_swept_by_the_next_run(tool: Tool) -> None:
    kill_both(tool)
    (folder,) = tool.corner.folders()
    os.utime(folder, (0, 0))
    tool.run_again()
    assert tool.corner.left() == {}


@at("after restore")
def test_when_both_are_killed_a_restored_canary_ends_by_itself_too(tool: Tool) -> None:
    kill_both(tool)
    tool.go_on.write_text("\n")
    assert until(lambda: not tool.corner.processes())
    assert len(tool.corner.folders()) == 1
    tool.run_again()
    assert tool.corner.left() == {}


@pytest.mark.parametrize("tool", [("before dump", "/usr/bin/nohup")], ids=["nohup"], indirect=True)
def test_under_nohup_a_hangup_stays_ignored(tool: Tool) -> None:
    tool.process.send_signal(signal.SIGHUP)
    tool.go_on.write_text("\n")
    status, said = tool.ended()
    assert status in (0, 1, 3, 4)
    assert said.splitlines()[-1] == STEPS["silence"]  # the last step: it was not cancelled


def kill_both(tool: Tool) -> None:
    """Kill the tool and the keeper with no moment between: the tool is stopped first."""
    keeper = tool.keeper
    os.kill(tool.process.pid, signal.SIGSTOP)
    os.kill(keeper, signal.SIGSTOP)
    os.kill(tool.process.pid, signal.SIGKILL)
    os.kill(keeper, signal.SIGKILL)
    tool.process.wait()
    assert until(lambda: process.TAG.encode() not in b"".join(environ(keeper)))


def command_line(pid: int) -> str:
    """A process's words; empty when it is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
