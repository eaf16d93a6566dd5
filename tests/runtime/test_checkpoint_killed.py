"""The controller killed -9 at each point of a checkpoint and a restore: no process is lost, and the truth is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import killed
import pytest
from saved_scenes import Saved, as_parent

from conftest import CI, Tool
from leftovers import until
from standins import Drivers, compilers
from warmspare.control.target import tree

pytestmark = [pytest.mark.root, pytest.mark.criu]
BEFORE_IT_HAS_ITS_NAME = {
    "journalled": ("runtime.journal:Journal.begin", "after"),
    "before CRIU": ("control.criu:Criu.dumping", "before"),
    "CRIU at work": ("control.criu:Criu.dumping", "after"),
    "CRIU has ended": ("control.criu:Running.wait", "after"),
    "checksums are there": ("runtime.following:Follower.sums", "after"),
    "before its name": ("runtime.publishing:_rename", "before"),
}
WITH_ITS_NAME = {
    "it has its name": ("runtime.publishing:_rename", "after"),
    "before the end": ("runtime.frozen:end", "before"),
    "one has ended": ("runtime.frozen:send", "after"),
    "all have ended": ("runtime.frozen:end", "after"),
}
BEFORE_IT_RUNS = {
    "CRIU at work": ("runtime.cradle:Cradle.__init__", "after"),
    "CRIU has ended": ("runtime.cradle:Cradle.wait", "after"),
    "journalled": ("runtime.journal:Journal.begin", "after"),
}
LET_GO = {
    "let go": ("runtime.cradle:Cradle.let_go", "after"),
    "before the end": ("runtime.restoring:done", "before"),
}


@pytest.fixture(autouse=True)
def _parent() -> Iterator[None]:
    with as_parent():
        yield


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "image"


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    """Where temporary files go; a restore that was killed leaves none there."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    yield folder
    assert until(lambda: not list(folder.iterdir())), list(folder.iterdir())


class Killed:
    """Runs the tool to its death at a point; then the next command, which clears up."""

    def __init__(self, tool: Tool, environment: dict[str, str], env: dict[str, str]) -> None:
        """Run it in the test's environment, with this too."""
        self._tool, self._whole, self._env = tool, {**environment, **env}, env

    def at(self, point: tuple[str, str], *args: str) -> None:
        """Run the tool to its death at this point."""
        command = [sys.executable, killed.__file__, *point, *args]
        ended = subprocess.run(command, env=self._whole, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == -signal.SIGKILL, ended.stderr

    def next(self, *args: str) -> subprocess.CompletedProcess[str]:
        """A command that acts, on something that is not there."""
        return self._tool(*(args or ("restore", "/nowhere/at/all")), env=self._env)


@pytest.fixture
def kill(tool: Tool, environment: dict[str, str], temporary: Path) -> Killed:
    return Killed(tool, environment, {"TMPDIR": str(temporary)})


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".warmspare")]


@pytest.mark.parametrize("point", BEFORE_IT_HAS_ITS_NAME)
def test_without_an_image_it_runs_on(kill: Killed, tmp_path: Path, image: Path, point: str) -> None:
    with Saved("tree", tmp_path) as saved:
        kill.at(BEFORE_IT_HAS_ITS_NAME[point], "checkpoint", str(saved.pid), str(image), "--no-gpu", "--force")
        told = kill.next()
        assert f"not checkpointed, process {saved.pid} ({saved.name}) runs on: it was interrupted\n" in told.stderr
        assert saved.goes_on()
        assert (image.exists(), left(tmp_path)) == (False, [])
        again = kill.next("checkpoint", str(saved.pid), str(image), "--no-gpu", "--force")
        assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("point", WITH_ITS_NAME)
def test_with_an_image_it_is_ended(kill: Killed, tmp_path: Path, image: Path, point: str) -> None:
    with Saved("tree", tmp_path) as saved:
        kill.at(WITH_ITS_NAME[point], "checkpoint", str(saved.pid), str(image), "--no-gpu", "--force")
        told = kill.next()
        whole = f"the image {image} of process {saved.pid} ({saved.name}) is whole; its processes have been ended"
        assert f"{whole}\n" in told.stderr
        assert saved.is_gone()
        assert kill.next("restore", str(image)).returncode == 0
        assert saved.goes_on()


def test_one_that_was_continued_meanwhile_is_not_ended_behind_the_users_back(
    kill: Killed, tmp_path: Path, image: Path
) -> None:
    with Saved("single", tmp_path) as saved:
        kill.at(WITH_ITS_NAME["before the end"], "checkpoint", str(saved.pid), str(image), "--no-gpu", "--force")
        os.kill(saved.pid, signal.SIGCONT)
        assert saved.goes_on()
        assert "was continued meanwhile: end it, or remove the image" in kill.next().stderr
        assert saved.goes_on()


@pytest.mark.parametrize("where", ["here", "new"])
@pytest.mark.parametrize("point", BEFORE_IT_RUNS)
def test_what_was_restored_and_has_not_run_is_gone(
    kill: Killed, tmp_path: Path, image: Path, point: str, where: str
) -> None:
    with Saved("tree", tmp_path) as saved:
        assert kill.next("checkpoint", str(saved.pid), str(image), "--no-gpu", "--force").returncode == 0
        assert saved.is_gone()
        before = saved.beats.read_bytes()
        kill.at(BEFORE_IT_RUNS[point], "restore", str(image), *(["--new-pidns"] if where == "new" else []))
        assert until(lambda: len(tree(os.getpid())) == 1 or not reap())
        if point == "journalled":
            told = kill.next().stderr
            assert "was not restored: it was interrupted before it ran; the image" in told
        assert saved.beats.read_bytes() == before
        assert saved.is_gone()
        assert kill.next("restore", str(image)).returncode == 0
        assert saved.goes_on()


def reap() -> bool:
    """Reap whoever has ended; whether anybody is left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


@pytest.mark.parametrize("point", LET_GO)
def test_what_was_let_go_is_finished(kill: Killed, tmp_path: Path, image: Path, point: str) -> None:
    with Saved("tree", tmp_path) as saved:
        assert kill.next("checkpoint", str(saved.pid), str(image), "--no-gpu", "--force").returncode == 0
        assert saved.is_gone()
        kill.at(LET_GO[point], "restore", str(image))
        assert (
            f"process {saved.pid} ({saved.name}) runs again: its restore from {image} was finished"
            in kill.next().stderr
        )
        assert saved.goes_on()


@pytest.mark.skipif(not compilers() and not CI, reason="needs a C compiler, or the wheel ziglang")
def test_gpu_memory_too_is_brought_back_by_the_next_command(
    tool: Tool, environment: dict[str, str], tmp_path: Path, image: Path, temporary: Path
) -> None:
    folder = tmp_path / "standins"
    folder.mkdir()
    env = {**Drivers(folder).world("one"), "TMPDIR": str(temporary)}
    kill = Killed(tool, environment, env)
    with Saved("cuda", tmp_path, env) as saved:
        for point in (("control.together:suspend", "after"), *BEFORE_IT_HAS_ITS_NAME.values()):
            kill.at(point, "checkpoint", str(saved.pid), str(image), "--force")
            assert f"process {saved.pid} ({saved.name}) runs on: it was interrupted\n" in kill.next().stderr
            assert saved.goes_on(), point
        kill.at(WITH_ITS_NAME["it has its name"], "checkpoint", str(saved.pid), str(image), "--force")
        assert "is whole; its processes have been ended" in kill.next().stderr
        assert saved.is_gone()
        kill.at(("runtime.restoring:bring_back", "before"), "restore", str(image))
        assert f"its restore from {image} was finished" in kill.next().stderr
        assert saved.goes_on()
