"""A server that would open an io_uring: CRIU refuses it as it is, and saves it when it was started by the launcher."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from saved_scenes import Saved, as_parent

from conftest import CI, Tool
from filters import refusing
from leftovers import until
from warmspare.control.criu import Criu, Options, log_of
from warmspare.control.target import tree
from warmspare.model.criu_log import explain

pytestmark = [pytest.mark.root, pytest.mark.criu]
NO_CALL = 1000
"""The number of no system call: a filter for it is in nobody's way."""
FORCE = ("--no-gpu", "--force")
LAUNCHER = (sys.executable, "-m", "warmspare", "savable", "--")


@pytest.fixture(autouse=True)
def _parent() -> Iterator[None]:
    with as_parent():
        yield


@pytest.fixture(autouse=True)
def _rings() -> None:
    if Path("/proc/sys/kernel/io_uring_disabled").read_text().strip() != "0" and not CI:
        pytest.skip("this kernel gives nobody an io_uring")


def filters(pid: int) -> str:
    """The kernel's word: 0 none, 2 a filter. Source: proc_pid_status(5)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="latin-1")
    return next(line.split()[1] for line in status.splitlines() if line.startswith("Seccomp:"))


def rings(pid: int) -> list[str]:
    links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]  # noqa: PTH115 # no path
    return [link for link in links if "io_uring" in link]


def test_without_the_launcher_criu_refuses_and_the_ring_is_named(tool: Tool, tmp_path: Path) -> None:
    with Saved("served", tmp_path) as saved:
        assert rings(saved.pid)
        refused = tool("checkpoint", str(saved.pid), str(tmp_path / "image"), *FORCE)
        assert refused.returncode == 1
        assert "has an io_uring open" in refused.stderr
        assert refused.stderr.endswith("start the program by `warmspare savable -- COMMAND`\n")
        images = tmp_path / "images"
        images.mkdir()
        criu = Criu.found()
        assert criu
        ended = criu.dumping(saved.pid, images, Options()).wait(60)
        assert ended is not None
        assert ended.status != 0
        assert explain(log_of(images, "dump"))[0] == "io_uring"
        assert saved.goes_on()


def test_with_it_the_tree_goes_on_after_a_restore_and_is_still_denied(tool: Tool, tmp_path: Path) -> None:
    image = tmp_path / "image"
    with Saved("served", tmp_path, under=LAUNCHER) as saved:
        assert len(saved.pids) == 2
        assert [filters(pid) for pid in saved.pids] == ["2", "2"]
        done = tool("checkpoint", str(saved.pid), str(image), *FORCE)
        assert done.returncode == 0, done.stderr
        assert saved.is_gone()
        restored = tool("restore", str(image))
        assert restored.returncode == 0, restored.stderr
        assert saved.goes_on()  # it asks for a ring at each beat, and so do its thread and its child
        assert until(lambda: [one.pid for one in tree(saved.pid)] == saved.pids)
        assert [filters(pid) for pid in saved.pids] == ["2", "2"]
        again = tool("checkpoint", str(saved.pid), str(tmp_path / "second"), *FORCE)
        assert again.returncode == 0, again.stderr


def test_a_criu_behind_a_filter_of_its_own_cannot_suspend_the_launchers_and_says_so(tmp_path: Path) -> None:
    dump = (*refusing(NO_CALL, errno.EPERM), sys.executable, "-m", "warmspare", "checkpoint")
    for under, status, says in ((LAUNCHER, 1, "(seccomp): "), ((), 0, "is saved to")):
        folder = tmp_path / f"{status}"
        folder.mkdir()
        with Saved("served" if under else "single", folder, under=under) as saved:
            done = subprocess.run(
                [*dump, str(saved.pid), str(folder / "image"), *FORCE],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
                env={**os.environ, "WARMSPARE_STATE_DIR": str(folder / "state")},
            )
            assert (done.returncode, says in done.stdout + done.stderr) == (status, True), done.stderr
            assert saved.goes_on() if status else saved.is_gone()
