"""Stopped by a signal: the tool ends last, and says that all is cleared away only when it is."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from leftovers import Corner
from worlds import TOOL, fake, wait_for


def started(corner: Corner, tmp_path: Path, criu: str) -> subprocess.Popen[str]:
    """A check of criugpu in its own corner."""
    env = {**os.environ, **corner.env, "WARMSPARE_CRIU": criu, "WARMSPARE_STATE_DIR": str(tmp_path / "state")}
    return subprocess.Popen([*TOOL, "check", "criugpu"], env=env, stdout=-3, stderr=-1, text=True)


@pytest.mark.parametrize("after_s", [0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0])
def test_three_quick_signals_do_not_end_it_before_what_it_started(tmp_path: Path, after_s: float) -> None:
    corner = Corner(tmp_path / "scratch")
    criu = fake(tmp_path / "criu", "[ $1 != --version ] || echo Version: 4.1; [ $1 != dump ] || exec sleep 600")
    with started(corner, tmp_path, criu) as tool:
        time.sleep(after_s)
        for _ in range(3):
            tool.send_signal(signal.SIGINT)
            time.sleep(0.003)
        status = tool.wait(60)
        assert (corner.processes(), corner.folders()) == ([], [])
        assert tool.stderr
        said = tool.stderr.read()
    if "Traceback" not in said:  # it had not begun to listen: Python itself stopped it
        assert status == 128 + signal.SIGINT
        assert said.endswith("warmspare: stopped by SIGINT; everything it started is cleared away\n")


@pytest.mark.root
def test_what_could_not_be_cleared_away_is_named(tmp_path: Path) -> None:
    corner, mark = Corner(tmp_path / "scratch"), tmp_path / "mounted"
    # A folder that something is mounted on cannot be removed.
    script = f"[ $1 = dump ] || exit 0; mount -t tmpfs none .; echo $PWD >{mark}.new; mv {mark}.new {mark}; sleep 600"
    with started(corner, tmp_path, fake(tmp_path / "criu", script)) as tool:
        wait_for(mark, tool)
        mounted = mark.read_text().strip()
        try:
            tool.terminate()
            assert tool.wait(60) == 128 + signal.SIGTERM
            assert tool.stderr
            (folder,) = corner.folders()
            last = tool.stderr.read().splitlines()[-1]
            assert last == f"warmspare: stopped by SIGTERM; this could not be cleared away: {folder}"
            assert corner.processes() == []
        finally:
            subprocess.run(["umount", "--lazy", mounted], check=True)
