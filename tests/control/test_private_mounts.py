"""Mounts of our own: what is in /run is still there, what is mounted is seen by nobody else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """\
import os, socket, subprocess, sys
from pathlib import Path
from warmspare.control import private_mounts
run, place = Path("/run"), Path(sys.argv[1])
(run / "theirs").mkdir()
(run / "kept").mkdir()
(run / "kept/file").write_text("a")
(run / "plain").write_text("b")
(run / "link").symlink_to("kept")
listening, there = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
listening.bind("/run/socket")
listening.listen()
private_mounts.enter(frozenset({"theirs"}))
(run / "new").mkdir()
there.connect("/run/socket")
print(sorted(os.listdir("/run")), (run / "link/file").read_text(), (run / "plain").read_text())
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
(place / "inside").touch()
print("waits", flush=True)
sys.stdin.read()
"""


@pytest.mark.root
def test_what_is_mounted_inside_is_not_seen_outside(tmp_path: Path) -> None:
    # A /run of the test's own, so that the machine's is left alone.
    own = 'mount -t tmpfs tmpfs /run && exec "$@"'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", own, "sh"]
    program = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with subprocess.Popen([*command, *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as inside:
        assert inside.stdout
        assert inside.stdout.readline() == "['kept', 'link', 'new', 'plain', 'socket'] a b\n"
        assert inside.stdout.readline() == "waits\n"
        assert list(tmp_path.iterdir()) == []
        assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert inside.returncode == 0


@pytest.mark.root
def test_without_the_right_it_is_an_error() -> None:
    program = "from warmspare.control import private_mounts; private_mounts.enter()"
    powerless = ["setpriv", "--inh-caps", "-sys_admin", "--bounding-set", "-sys_admin"]
    ran = subprocess.run(
        [*powerless, sys.executable, "-c", program], capture_output=True, text=True, check=False, env={**os.environ}
    )
    assert "PermissionError: [Errno 1] Operation not permitted: 'unshare'" in ran.stderr
