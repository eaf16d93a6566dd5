"""The launcher that denies io_uring: exactly these calls, to all that it starts, for anybody; else nothing starts."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Tool
from filters import refusing
from warmspare.control import savable
from worlds import as_nobody, reachable

CALLS = """\
import ctypes, json, os
libc = ctypes.CDLL(None, use_errno=True)
def asked(number):
    return libc.syscall(number, -1, 0, 0, 0, 0) == -1 and ctypes.get_errno()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps([os.getuid(), int(status["Seccomp"]), {n: asked(n) for n in range(424, 430)}]))
"""
PRCTL = {"x86_64": 157, "aarch64": 167}[os.uname().machine]


def asked(*launcher: str, command: tuple[str, ...] = (sys.executable, "-c", CALLS)) -> tuple[int, int, dict[int, int]]:
    """Who asked, the kernel's word on filters, and by call its errno."""
    done = subprocess.run([*launcher, *command], capture_output=True, text=True, check=True, timeout=60)
    uid, mode, errnos = json.loads(done.stdout)
    return uid, mode, {int(number): code for number, code in errnos.items()}


def launcher() -> tuple[str, ...]:
    return sys.executable, "-m", "warmspare", "savable", "--"


def verdict(program: bytes, architecture: int, number: int) -> int:
    """What the kernel would make of a call: an interpreter of those instructions that the filter may use."""
    lines = list(savable.INSTRUCTION.iter_unpack(program))
    at, value = 0, 0
    while True:
        code, yes, no, k = lines[at]
        at += 1
        if code == 0x06:
            return int(k)
        if code == 0x20:
            value = {0: number, 4: architecture}[k]
        elif code == 0x54:
            value &= k
        else:
            holds = {0x15: value == k, 0x25: value > k, 0x35: value >= k}[code]
            at += yes if holds else no


@pytest.mark.parametrize("machine", savable.ARCHITECTURES)
def test_exactly_three_calls_are_denied_on_every_architecture_of_the_machine(machine: str) -> None:
    program = savable.program(machine)
    numbers = [*range(1024), *(0x40000000 | n for n in range(1024)), 0xFFFFFFFF]
    for architecture in savable.ARCHITECTURES[machine]:
        refused = {n: said for n in numbers if (said := verdict(program, architecture, n)) != 0x7FFF0000}
        assert refused == dict.fromkeys([425, 426, 427, *(0x40000000 | n for n in (425, 426, 427))], 0x50000 | 38)
    (other,) = savable.ARCHITECTURES.keys() - {machine}
    assert {verdict(program, savable.ARCHITECTURES[other][0], n) for n in numbers} == {0x7FFF0000}


def test_the_kernel_denies_these_calls_and_their_neighbours_answer_as_before() -> None:
    _, _, before = asked()
    _, mode, after = asked(*launcher())
    assert mode == 2
    assert {n: code for n, code in after.items() if n not in savable.DENIED} == {
        n: code for n, code in before.items() if n not in savable.DENIED
    }
    assert {after[n] for n in savable.DENIED} == {errno.ENOSYS}


def test_what_the_command_starts_inherits_it() -> None:
    _, _, seen = asked(*launcher(), command=("sh", "-c", 'true; "$0" -c "$1"; true', sys.executable, CALLS))
    assert {seen[n] for n in savable.DENIED} == {errno.ENOSYS}


@pytest.mark.root
def test_an_ordinary_user_can_have_it() -> None:
    inside = " ".join(f"'{word}'" for word in as_nobody(*launcher()))
    script = f'{reachable()}\nexec {inside} "$@"'
    uid, mode, seen = asked("unshare", "--mount", "sh", "-ec", script, "sh")
    assert (uid, mode) == (65534, 2)
    assert {seen[n] for n in savable.DENIED} == {errno.ENOSYS}


def test_the_command_becomes_the_process_with_all_that_it_was_given(tmp_path: Path) -> None:
    told = "import os, sys; print(os.getpid(), sys.argv[1:], os.getcwd(), sys.stdin.read(), os.environ['A'])"
    with subprocess.Popen(
        [*launcher(), sys.executable, "-c", told, "--help", "--", "-x", ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "A": "b"},
    ) as running:
        out, _ = running.communicate("in", timeout=60)
    assert out == f"{running.pid} ['--help', '--', '-x', ''] {tmp_path} in b\n"


def test_its_status_is_the_commands_and_signals_end_it_as_usual(tool: Tool) -> None:
    assert tool("savable", "sh", "-c", "exit 7").returncode == 7
    assert tool("savable", "sh", "-c", "kill -PIPE $$").returncode == -signal.SIGPIPE


def test_what_cannot_be_run_is_told_as_env_does(tool: Tool, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    for command, status, why in (
        ("no-such-command", 127, "No such file or directory"),
        (str(plain), 126, "Permission denied"),
    ):
        done = tool("savable", "--", command)
        assert (done.returncode, done.stdout) == (status, "")
        assert done.stderr == f"warmspare: {command} was not started: {why}\n"
    for words in ((), ("--",), ("--", ""), ("--an-option", "echo")):
        nothing = tool("savable", *words)
        assert (nothing.returncode, nothing.stdout) == (2, "")
        assert "see warmspare savable --help" in nothing.stderr


def test_without_the_filter_nothing_is_started() -> None:
    refused = subprocess.run(
        [*refusing(PRCTL, errno.EINVAL), *launcher(), "echo", "started"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        "warmspare: echo was not started: the kernel refuses a filter: PR_SET_NO_NEW_PRIVS: EINVAL Invalid argument\n"
    )


def test_a_filter_that_denies_nothing_is_seen() -> None:
    code = """\
from warmspare.control import savable
savable.program = lambda machine: savable.INSTRUCTION.pack(0x06, 0, 0, 0x7fff0000)
savable.is_denied = lambda number: number != 426
try:
    savable.become(["echo", "started"])
except savable.NotDenied as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "the kernel took the filter, and system calls 426 still pass\n"


def test_a_machine_that_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: type("Uname", (), {"machine": "riscv64"}))
    with pytest.raises(savable.NotDenied, match="riscv64"):
        savable.deny()
