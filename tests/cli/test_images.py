"""`checkpoint`, `restore` and `inspect` as users call them: wrong words, an ordinary user, a signal in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Tool
from warmspare.control.process import find_program
from worlds import NOBODY, TOOL, as_nobody, fake, in_world, reachable, wait_for

BEAT = "import sys, time\nn = 0\nwhile True:\n    n += 1; print(n, file=open(sys.argv[1], 'a')); time.sleep(0.01)"
NEEDS = (
    "warmspare: CRIU needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN and CAP_SYS_PTRACE, which you have not:"
    " run it as root (suspend and resume need neither)\n"
)


@pytest.fixture
def beating(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that can be saved."""
    beats = tmp_path / "beats"
    command = [sys.executable, "-ISc", BEAT, str(beats)]
    with subprocess.Popen(command, stdin=-3, stdout=-3, stderr=-3, start_new_session=True) as started:
        wait_for(beats, started)
        yield started
        started.kill()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("checkpoint",), "Missing argument 'PID'; see warmspare checkpoint --help"),
        (("checkpoint", "1"), "Missing argument 'DIR'; see warmspare checkpoint --help"),
        (("checkpoint", "x", "y"), "'x' is not a valid integer range"),
        (("checkpoint", "0", "y"), "0 is not in the range 1<=x<=4194304"),
        (("checkpoint", "1", "y", "--criu", "/nowhere"), "/nowhere is not a program that can be run"),
        (("restore",), "Missing argument 'DIR'; see warmspare restore --help"),
        (("inspect",), "Missing argument 'DIR'; see warmspare inspect --help"),
    ],
)
def test_wrong_words_are_usage(tool: Tool, args: tuple[str, ...], says: str) -> None:
    refused = tool(*args)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert says in refused.stderr


@pytest.mark.root
def test_an_ordinary_user_is_told_what_is_missing_before_anything_is_done() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        env = {**os.environ, "WARMSPARE_STATE_DIR": f"{folder}/state", "HOME": folder}
        for args in (("checkpoint", "1", f"{folder}/image"), ("restore", f"{folder}/image")):
            ran = in_world(reachable(), *as_nobody(*TOOL, *args), env=env)
            assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", NEEDS)
        assert list(Path(folder).iterdir()) == []


@pytest.mark.root
@pytest.mark.criu
def test_inspect_needs_no_privilege_and_says_what_a_restore_would(tool: Tool, beating: subprocess.Popen[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "image")
        done = tool("checkpoint", str(beating.pid), str(image), "--no-gpu", "--force")
        assert done.returncode == 0, done.stderr
        beating.wait(20)
        told = json.loads(tool("inspect", str(image), "--json", "--verify").stdout)
        assert (told["restores_here"], told["verified"], told["refusals"]) == (True, True, [])
        assert told["manifest"]["processes"][0]["pid"] == beating.pid
        Path(folder).chmod(0o755)
        for path in (image, *image.iterdir()):
            os.chown(path, NOBODY, NOBODY)
        ran = in_world(reachable(), *as_nobody(*TOOL, "inspect", str(image)), env={**os.environ, "HOME": folder})
        assert ran.returncode == 1, ran.stderr
        assert "cannot be restored now: CRIU needs CAP_CHECKPOINT_RESTORE" in ran.stdout
        # It is no longer root's own, either.
        assert tool("inspect", str(image)).stderr.endswith(f"it belongs to user {NOBODY}, and we are 0\n")


@pytest.mark.root
def test_without_a_criu_that_works_nothing_is_done(
    tool: Tool, tmp_path: Path, beating: subprocess.Popen[bytes]
) -> None:
    broken = fake(tmp_path / "criu", "echo 'Error (criu/x.c:1): Operation not permitted' >&2; exit 1")
    image = tmp_path / "image"
    for args in (("checkpoint", str(beating.pid), str(image), "--no-gpu"), ("restore", str(image))):
        refused = tool(*args, "--criu", broken)
        assert refused.returncode == 1
        assert refused.stderr.startswith(
            f"warmspare: {broken} cannot work here (denied): Error (criu/x.c:1): Operation"
        )
    assert not image.exists()
    assert beating.poll() is None


@pytest.mark.root
@pytest.mark.criu
def test_asked_to_stop_in_the_middle_of_a_dump_it_brings_the_process_back(
    environment: dict[str, str], tmp_path: Path, beating: subprocess.Popen[bytes]
) -> None:
    mark, real = tmp_path / "dumping", find_program("criu", os.environ)
    slow = fake(tmp_path / "criu", f'[ "$1" != dump ] || {{ touch {mark}; sleep 1; }}\nexec {real} "$@"')
    image, beats = tmp_path / "image", tmp_path / "beats"
    command = [*TOOL, "checkpoint", str(beating.pid), str(image), "--no-gpu", "--force", "--criu", slow]
    with subprocess.Popen(command, env=environment, stdout=-1, stderr=-1, text=True) as tool:
        wait_for(mark, tool)
        tool.send_signal(signal.SIGINT)
        out, err = tool.communicate(timeout=60)
    assert (tool.returncode, out) == (128 + signal.SIGINT, ""), err
    assert f"not checkpointed, process {beating.pid} " in err
    assert "runs on: stopped by SIGINT" in err
    assert not image.exists()
    before, deadline = beats.stat().st_size, time.monotonic() + 20
    while beats.stat().st_size == before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert beats.stat().st_size > before
