"""Finding processes and programs that are ours, and ending them with all they started."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from filters import PIDFD_OPEN, refusing
from leftovers import until
from warmspare.control import process

SLEEP = shutil.which("sleep") or "/bin/sleep"


@contextlib.contextmanager
def running(*command: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs until the end of the test at the latest."""
    with subprocess.Popen(command, stdin=-3, stdout=-1, env={**os.environ, **env}) as started:
        try:
            yield started
        finally:
            started.kill()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "bin" / "criu"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_a_program_is_found_in_path(program: Path) -> None:
    assert process.find_program("criu", {"PATH": f"/nowhere:{program.parent}"}) == str(program)


def test_the_override_comes_first_and_is_made_absolute(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(program.parent)
    assert process.find_program("criu", {"PATH": "/bin", "WARMSPARE_CRIU": "./criu"}) == str(program)


@pytest.mark.parametrize("override", ["/nowhere/criu", "/", "\0"])
def test_an_override_that_is_no_program_is_not_replaced_by_another(program: Path, override: str) -> None:
    environment = {"PATH": str(program.parent), "WARMSPARE_CRIU": override}
    assert process.find_program("criu", environment) is None


@pytest.mark.parametrize("path", ["bin", ".", "", "./bin", "bin:", ":bin"])
def test_relative_entries_of_path_are_passed_over(program: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    name = f"only-here-{secrets.token_hex(4)}"
    monkeypatch.chdir(program.parent.parent)
    for place in (Path(name), program.with_name(name)):
        shutil.copy(program, place)
    assert process.find_program(name, {"PATH": path}) is None


@pytest.mark.parametrize("environment", [{}, {"PATH": ""}, {"PATH": "/nowhere"}])
def test_without_a_path_the_usual_folders_are_searched(environment: dict[str, str]) -> None:
    assert process.find_program("sh", environment) in ("/usr/bin/sh", "/bin/sh")


def test_folders_and_files_that_cannot_be_run_are_no_programs(program: Path, tmp_path: Path) -> None:
    (tmp_path / "a" / "criu").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "criu").write_text("#!/bin/sh\n")
    path = f"{tmp_path / 'a'}:{tmp_path / 'b'}:{program}:{program.parent}"
    assert process.find_program("criu", {"PATH": path}) == str(program)


@pytest.mark.parametrize("name", ["a) R 1 1 (b", ") )", "((", "a b c", "new\nline) Z 0"])
def test_a_name_cannot_lie_about_its_process(tmp_path: Path, name: str) -> None:
    shutil.copy(SLEEP, tmp_path / name)
    with running(str(tmp_path / name), "600") as evil:
        assert f"({name[:15]})" in Path(f"/proc/{evil.pid}/stat").read_text()
        seen = process.started(evil.pid)
        assert seen
        assert seen[0] == os.getpid()
        assert seen[1] >= (process.started(os.getpid()) or (0, 0))[1] > 0
        assert seen[2] in "RSD"
        assert evil.pid in process.children(os.getpid())


def test_a_zombie_is_still_there_and_a_reaped_process_is_not() -> None:
    with running(SLEEP, "0") as short:
        os.waitid(os.P_PID, short.pid, os.WEXITED | os.WNOWAIT)
        assert (process.started(short.pid) or ())[2:] == ("Z",)
        short.wait()
        assert process.started(short.pid) is None


def test_tagged_finds_exactly_the_token() -> None:
    token = secrets.token_hex(8)
    with (
        running(SLEEP, "600", **{process.TAG: token}) as ours,
        running(SLEEP, "600", **{process.TAG: f"{token}0"}) as longer,
        running(SLEEP, "600", **{f"X{process.TAG}": token}) as other,
    ):
        assert process.tagged(token) == [ours.pid]
        assert process.end_tagged(token) == []
        assert process.started(ours.pid) is None
        assert (longer.poll(), other.poll()) == (None, None)


TREE = """
import os, signal, subprocess, sys, time
from warmspare.control import process
process.become_subreaper()
spared = subprocess.Popen([{sleep!r}, "600"])
stubborn = "trap '' TERM HUP INT; echo $$; {sleep} 600 & setsid {sleep} 600 & wait"
shell = subprocess.Popen(["setsid", "sh", "-c", stubborn], stdout=-1)
shell.stdout.readline()
daemon = os.fork()
if daemon == 0:
    if os.fork() == 0:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_BLOCK, set(range(1, 65)))
        os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(0)
os.waitpid(daemon, 0)
print(process.end_descendants(frozenset([spared.pid])), process.children(os.getpid()) == [spared.pid], flush=True)
print(process.end_descendants(), process.children(os.getpid()), flush=True)
"""


def test_end_descendants_ends_daemons_stopped_and_stubborn_ones_and_spares_who_is_named() -> None:
    token = secrets.token_hex(8)
    code = TREE.format(sleep=SLEEP)
    with running(sys.executable, "-c", code, **{process.TAG: token}) as tree:
        assert tree.stdout
        assert tree.stdout.read().decode().splitlines() == ["[] True", "[] []"]
        assert tree.wait() == 0
    assert process.tagged(token) == []


BOUND = """
import os, sys, time
from warmspare.control import process
parent = os.getpid()
if os.fork() == 0:
    process.die_with_parent({parent})
    print("bound", flush=True)
    time.sleep(600)
os.waitpid(-1, 0) if {waits} else time.sleep(600)
"""


def test_a_bound_process_dies_with_its_parent() -> None:
    token = secrets.token_hex(8)
    with running(sys.executable, "-c", BOUND.format(parent="parent", waits=False), **{process.TAG: token}) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == b"bound\n"
        assert len(process.tagged(token)) == 2
        parent.kill()
        assert parent.stdout.read() == b""
        assert until(lambda: not process.tagged(token))


def test_a_process_whose_parent_is_gone_already_ends_at_once() -> None:
    with running(sys.executable, "-c", BOUND.format(parent="parent + 1", waits=True)) as parent:
        assert parent.stdout
        assert parent.stdout.read() == b""
        assert parent.wait() == 0


FILTERS = [(), refusing(PIDFD_OPEN, errno.ENOSYS), refusing(PIDFD_OPEN, errno.EPERM), refusing(424, errno.ENOSYS)]
"""None, and filters that refuse pidfd_open(2) as old kernels and containers do, or pidfd_send_signal(2)."""


@pytest.mark.parametrize("prefix", FILTERS)
def test_all_is_ended_with_and_without_pidfds(prefix: tuple[str, ...]) -> None:
    token = secrets.token_hex(8)
    code = TREE.format(sleep=SLEEP)
    with running(*prefix, sys.executable, "-c", code, **{process.TAG: token}) as tree:
        assert tree.stdout
        assert tree.stdout.read().decode().splitlines() == ["[] True", "[] []"]
        assert tree.wait() == 0
    with running(SLEEP, "600", **{process.TAG: token}) as ours:
        code = f"from warmspare.control import process; print(process.end_tagged({token!r}))"
        ended = subprocess.run([*prefix, sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert (ended.stdout, ours.wait(20)) == ("[]\n", -signal.SIGKILL)


FIRST = """
import os, subprocess
from warmspare.control import process
child = subprocess.Popen([{sleep!r}, "600"])
told, tell = os.pipe()
print(process.first([told], child.pid, 0.2))
os.write(tell, b"!")
print(process.first([told], child.pid, 20) == ({{told}}, False))
child.kill()
print(process.first([], child.pid, 20), process.first([told], child.pid, 20) == ({{told}}, True))
child.wait()
print(process.first([], child.pid, 20))
"""


@pytest.mark.parametrize("prefix", FILTERS)
def test_the_first_of_a_message_and_an_end_is_seen(prefix: tuple[str, ...]) -> None:
    command = [*prefix, sys.executable, "-c", FIRST.format(sleep=SLEEP)]
    seen = subprocess.run(command, capture_output=True, text=True, check=True)
    assert seen.stdout.splitlines() == ["(set(), False)", "True", "(set(), True) True", "(set(), True)"]


def test_descriptors_above_1023_are_waited_for() -> None:
    code = "import os, resource; from warmspare.control import process; told, tell = os.pipe();"
    code += " resource.setrlimit(resource.RLIMIT_NOFILE, (2048, 4096)); os.dup2(told, 1500); os.write(tell, b'!');"
    code += " print(process.ready([1500], 20))"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout == "{1500}\n"


@pytest.mark.root
def test_root_runs_nothing_that_anybody_may_have_put_there(program: Path) -> None:
    environment = {"PATH": f"{program.parent}:/bin"}
    program.parent.chmod(0o1777)
    assert process.find_program("criu", environment) is None
    assert process.find_program(str(program), environment) == str(program)
    assert process.find_program("criu", {**environment, "WARMSPARE_CRIU": str(program)}) == str(program)
    program.parent.chmod(0o775)
    assert process.find_program("criu", environment) == str(program)


@pytest.mark.root
def test_the_proc_of_another_pid_namespace_names_nobody_of_ours(tmp_path: Path) -> None:
    """Its numbers mean others here: nobody of them may be ended, and a check ends all the same."""
    token = secrets.token_hex(8)
    code = "from warmspare.control import process; import os;"
    code += f" print(process.end_tagged({token!r}), process.children(os.getpid()), process.end_descendants())"
    elsewhere = ("unshare", "--pid", "--fork", "--kill-child", sys.executable)
    with running(SLEEP, "600", **{process.TAG: token}) as outside:
        ended = subprocess.run([*elsewhere, "-c", code], capture_output=True, text=True, check=True)
        assert ended.stdout == "[] [] []\n"
        env = {**os.environ, process.TAG: token, "WARMSPARE_STATE_DIR": str(tmp_path)}
        command = [*elsewhere, "-m", "warmspare", "check", "--no-trials"]
        checked = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=30)
        assert checked.returncode in {1, 3}, checked.stderr
        assert outside.poll() is None
