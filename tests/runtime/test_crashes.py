"""A controller killed before or after any write of the journal and any driver call: the next command tells the truth.

Real processes, a real journal, a modelled driver. The controller is a child that kills itself with SIGKILL, so that
nothing of it is cleared away, at the point that the test draws.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driver_model import GPUS, Driver, Flaw, tools_on
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from warmspare.control import process
from warmspare.runtime import journal as journals
from warmspare.runtime.moving import move
from warmspare.runtime.outcomes import NotActed, Recovered
from warmspare.runtime.recovery import recover
from warmspare.runtime.resuming import resume
from warmspare.runtime.store import Store
from warmspare.runtime.suspending import Options, suspend
from warmspare.runtime.unit import Tools

Do = Callable[[Tools], str]
KILLED, REFUSED, HARMED = 9, 1, 5
ENDS_S = 20.0
MOST_POINTS = 60
FLAWS: tuple[Flaw, ...] = ("", "managed", "busy", "restore hangs", "peers")


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return Driver(tmp_path)


class Countdown:
    """Kills this process when it has been called so often."""

    def __init__(self, calls: int) -> None:
        """So often it only counts."""
        self._left = calls

    def __call__(self, _point: str) -> None:
        """One point has been come to."""
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


def watched_store(watch: Callable[[str], None]) -> type[Store]:
    """A store that tells before and after whatever makes something of it lasting."""

    class Watched(Store):
        def write(self, sql: str, *values: object) -> int:
            watch("before a write")
            row = super().write(sql, *values)
            watch("after a write")
            return row

        @contextlib.contextmanager
        def alone(self) -> Iterator[None]:
            with super().alone():
                yield
                watch("before a commit")
            watch("after a commit")

        def lock(self, number: int) -> int | None:
            held = super().lock(number)
            watch("after a lock")
            return held

        def drop(self, number: int) -> None:
            super().drop(number)
            watch("after a lock was removed")

    return Watched


def in_a_controller(driver: Driver, folder: Path, do: Do, killed_at: int) -> int:
    """Clear up and act in a child; how it ended: 0, `REFUSED`, `HARMED` or `KILLED`."""
    child = os.fork()
    if child == 0:
        code = 70
        with contextlib.suppress(BaseException):
            watch = Countdown(killed_at)
            setattr(journals, "Store", watched_store(watch))  # noqa: B010 # a name that it only imports
            with tools_on(driver, folder, lambda _: None, watch) as tools:
                try:
                    recover(tools)
                    do(tools)
                    code = 0
                except NotActed as failure:
                    code = HARMED if failure.is_harm else REFUSED
        os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return KILLED if status == -signal.SIGKILL else status


def is_refused(tools: Tools, driver: Driver, pid: int, tree: set[int]) -> None:
    """A suspend is refused, and says why: who is lost first, since nothing can be done with a tree that has one."""
    lost = [one for one in sorted(tree) if driver.state(one) == "failed"]
    why = rf"process {lost[0]} \(.*\) is lost" if lost else rf"process {pid} \(.*\) is locked"
    with pytest.raises(NotActed, match=why):
        suspend(tools, pid, Options())


class Crashes(RuleBasedStateMachine):
    """A tree of processes, and controllers that come and are killed."""

    def __init__(self) -> None:
        """A folder, a driver, and nothing done yet."""
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.driver = Driver(self.folder)
        self.ended: set[int] = set()
        self.said: list[str] = []

    @initialize(size=st.integers(1, 3), flaw=st.sampled_from(FLAWS))
    def begins(self, size: int, flaw: Flaw) -> None:
        """A tree, one of which may have a flaw."""
        self.pids = self.stack.enter_context(self.driver.tree(size, flaws=("", flaw) if size > 1 else (flaw,)))

    def acts(self, do: Do, killed_at: int) -> None:
        """A controller comes, and may be killed."""
        code = in_a_controller(self.driver, self.folder / "state", do, killed_at)
        assert code in (0, REFUSED, HARMED, KILLED)

    @rule(killed_at=st.integers(0, MOST_POINTS))
    def suspends(self, killed_at: int) -> None:
        """It suspends."""
        self.acts(lambda tools: suspend(tools, self.pids[0], Options()), killed_at)

    @rule(killed_at=st.integers(0, MOST_POINTS))
    def resumes(self, killed_at: int) -> None:
        """It resumes."""
        self.acts(lambda tools: resume(tools, self.pids[0], Options(force=True)), killed_at)

    @rule(killed_at=st.integers(0, MOST_POINTS), gpu=st.sampled_from(["0", "1"]))
    def moves(self, killed_at: int, gpu: str) -> None:
        """It moves."""
        self.acts(lambda tools: move(tools, self.pids[0], gpu, Options()), killed_at)

    @rule()
    @precondition(lambda self: len(self.pids) > 1)
    def a_child_ends(self) -> None:
        """Somebody else ends one of them."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pids[-1], signal.SIGKILL)
        with process.holding(self.pids[-1]) as descriptor:
            assert descriptor is None or process.ready([descriptor], ENDS_S)
        self.ended.add(self.pids[-1])

    @rule()
    def clears_up(self) -> None:
        """What the next command says is what the driver says."""
        with self.tools() as tools:
            for found in recover(tools):
                assert found.sentence in self.said
                self.is_true(found)
            assert not tools.journal.interrupted()
            assert not recover(tools)
            for pid in self.living():
                if self.driver.state(pid) in ("locked", "failed"):
                    is_refused(tools, self.driver, pid, self.living() if pid == self.pids[0] else {pid})

    @invariant()
    def nobody_was_killed(self) -> None:
        """Whoever nobody ended is there."""
        for pid in set(getattr(self, "pids", ())) - self.ended:
            os.kill(pid, 0)

    def teardown(self) -> None:
        """Look once more, and end them."""
        with self.stack:
            if hasattr(self, "pids"):
                self.comes_to_an_end()

    def comes_to_an_end(self) -> None:
        """Without a flaw everything runs again that was not lost, and said to be."""
        self.clears_up()
        for pid in self.pids:
            self.driver.set(pid, flaw="")
        failed = {pid for pid in self.living() if self.driver.state(pid) == "failed"}
        if not failed:
            with self.tools() as tools:
                resume(tools, self.pids[0], Options(force=True))
            assert {self.driver.state(pid) for pid in self.living()} == {"running"}

    def tools(self) -> contextlib.AbstractContextManager[Tools]:
        """To look at what is left, unkilled."""
        return tools_on(self.driver, self.folder / "state", self.said.append)

    def living(self) -> set[int]:
        """Those that nobody ended."""
        return set(self.pids) - self.ended

    def is_true(self, found: Recovered) -> None:
        """What was said of an operation is so."""
        states = {pid: self.driver.state(pid) for pid in found.operation.cuda if pid in self.living()}
        match found.operation.action, found.outcome:
            case "suspend", "done":
                assert set(states.values()) <= {"checkpointed"}
            case (("resume" | "move"), "done"):
                assert set(states.values()) <= {"running"}
            case _, "undone":
                assert "locked" not in states.values()
                assert "failed" not in states.values()
                if "was brought back" in found.sentence or "runs" in found.sentence:
                    assert {states[pid] for pid in states if found.operation.touched(pid)} <= {"running"}
            case _, ("lost" | "stranded"):
                for pid, state in states.items():
                    if state in ("locked", "failed"):
                        assert f"process {pid} " in found.sentence
            case _:
                pytest.fail(f"{found.outcome}: {found.sentence}")


TestCrashes = Crashes.TestCase
TestCrashes.settings = settings(
    max_examples=15,
    stateful_step_count=10,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a shrink would take minutes
)


@pytest.mark.parametrize("act", ["suspend", "resume", "move"])
def test_killed_at_every_single_point_nothing_is_lost(driver: Driver, tmp_path: Path, act: str) -> None:
    acts: dict[str, Do] = {
        "suspend": lambda tools: suspend(tools, pid, Options()),
        "resume": lambda tools: resume(tools, pid, Options()),
        "move": lambda tools: move(tools, pid, "gpu1", Options()),
    }
    folder = tmp_path / "state"
    seen = set()
    with driver.tree(2) as pids:
        pid = pids[0]
        for killed_at in range(MOST_POINTS):
            for one in pids:
                driver.set(one, state="running", vram={GPUS[0]: 100})
            if act == "resume":
                assert in_a_controller(driver, folder, acts["suspend"], 10**6) == 0
            code = in_a_controller(driver, folder, acts[act], killed_at)
            with tools_on(driver, folder, lambda _: None) as tools:
                found = recover(tools)
                states = {driver.state(one) for one in pids}
                assert len(states) == 1, (killed_at, states)
                seen |= {(one.outcome, *states) for one in found}
            if code == 0:
                break
            assert code == KILLED
        else:
            pytest.fail(f"{act} has more than {MOST_POINTS} points")
    expected = {
        "suspend": {("undone", "running"), ("done", "checkpointed")},
        "resume": {("undone", "checkpointed"), ("done", "running")},
        "move": {("undone", "running"), ("done", "running")},
    }
    assert expected[act] <= seen


def test_a_resume_killed_beside_one_that_is_lost_leaves_a_tree_whose_refusals_name_that_one(
    driver: Driver, tmp_path: Path
) -> None:
    folder, found = tmp_path / "state", set[tuple[str, ...]]()
    with driver.tree(2, flaws=("", "peers")) as pids:
        for killed_at in range(MOST_POINTS):
            for one in pids:
                driver.set(one, state="running", vram={GPUS[0]: 100})
            assert in_a_controller(driver, folder, lambda tools: suspend(tools, pids[0], Options()), 10**6) == 0
            code = in_a_controller(driver, folder, lambda tools: resume(tools, pids[0], Options()), killed_at)
            with tools_on(driver, folder, lambda _: None) as tools:
                recover(tools)
                states = tuple(map(driver.state, pids))
                for pid, tree in zip(pids, (set(pids), {pids[1]}), strict=True):
                    if driver.state(pid) in ("locked", "failed"):
                        is_refused(tools, driver, pid, tree)
            found.add(states)
            if code != KILLED:
                break
        assert code == HARMED
    assert {("locked", "failed"), ("checkpointed", "failed")} <= found
