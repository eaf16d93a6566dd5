"""The live host: every verb on this machine, and every way in which a question can go wrong."""

from __future__ import annotations

import ctypes.util
import gzip
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from warmspare import catalogue
from warmspare.control import process
from warmspare.host.live import LiveHost
from warmspare.host.port import Missing, Unreadable
from warmspare.host.recorded import RecordedHost
from warmspare.model.facts import TEXT_LIMIT, Cause
from warmspare.model.transcript import Ran, Verb
from warmspare.probes.api import collect
from worlds import end, fake, gone, wait_for

SHORT: dict[Verb, float] = {"read": 1.0, "run": 1.0, "symbol": 1.5}


@pytest.fixture
def host() -> Iterator[LiveHost]:
    with LiveHost() as live:
        yield live
    assert process.children(os.getpid()) == []


@pytest.fixture
def hasty() -> Iterator[LiveHost]:
    """A host with short deadlines."""
    with LiveHost(SHORT) as live:
        yield live


def refusal(host: LiveHost, verb: str, *args: str) -> Unreadable:
    with pytest.raises(Unreadable) as caught:
        getattr(host, verb)(*args)
    return caught.value


def still_answers(host: LiveHost) -> bool:
    return host.read("/proc/self/comm") != "" and host.run("true").status == 0


def test_files_and_folders(host: LiveHost, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("text\n")
    (tmp_path / "long").write_text("é" * 100_000)
    (tmp_path / "packed.gz").write_bytes(gzip.compress(b"packed\n"))
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).write_bytes(b"\xff\xfe\x00")
    assert host.read(str(tmp_path / "plain")) == "text\n"
    assert host.read(str(tmp_path / "packed.gz")) == "packed\n"
    assert len(host.read(str(tmp_path / "long"))) == TEXT_LIMIT
    assert host.read("/dev/zero") == "\0" * TEXT_LIMIT
    assert set(host.list(str(tmp_path))) == {"plain", "long", "packed.gz", "\ufffd"}
    assert host.exists(str(tmp_path / "plain"))
    assert not host.exists(str(tmp_path / "plain" / "under"))
    assert not host.exists("/nowhere")


def test_what_is_not_there_and_what_is_refused_differ(host: LiveHost, tmp_path: Path) -> None:
    (tmp_path / "cut.gz").write_bytes(gzip.compress(os.urandom(4096))[:2048])
    (tmp_path / "false.gz").write_bytes(b"not packed")
    for verb in ("read", "list"):
        assert isinstance(refusal(host, verb, "/nowhere/at/all"), Missing)
    for name in ("cut.gz", "false.gz", ""):
        assert refusal(host, "read", str(tmp_path / name)).cause is Cause.INVALID
    assert refusal(host, "read", "/proc/self/mem").cause is Cause.INVALID
    assert isinstance(refusal(host, "run", "no-such-program"), Missing)
    assert isinstance(refusal(host, "symbol", "libnothing.so.1", "x"), Missing)


def test_nvml_without_its_library_and_what_is_no_query(host: LiveHost) -> None:
    if not ctypes.util.find_library("nvidia-ml"):
        assert isinstance(refusal(host, "nvml", "nvmlDeviceGetCount"), Missing)
    assert refusal(host, "nvml", "nvmlDeviceResetGpuLockedClocks").cause is Cause.INVALID
    assert refusal(host, "nvml", "__import__").cause is Cause.INVALID


def test_symbols_and_experiments(host: LiveHost) -> None:
    assert host.symbol("libc.so.6", "malloc")
    assert not host.symbol("libc.so.6", "no_such_symbol")
    assert host.experiment("memfd_create")["works"] is True
    assert refusal(host, "experiment", "../../etc").cause is Cause.CRASHED
    assert still_answers(host)


def test_a_command_keeps_status_and_both_streams(host: LiveHost) -> None:
    ran = host.run("sh", "-c", "echo out; echo err >&2; cat; exit 7")
    assert (ran.status, ran.stdout, ran.stderr) == (7, "out\n", "err\n")
    assert host.run("sh", "-c", "kill -KILL $$").status == -signal.SIGKILL


def test_a_program_whose_interpreter_is_missing_is_there(host: LiveHost, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    assert refusal(host, "run", str(script)).cause is Cause.INVALID


@pytest.mark.parametrize(
    ("said", "read"),
    [
        (b"a\0b\xff\n", "a\0b\ufffd\n"),
        ("mirrored\r\n".encode("utf-16-le"), "mirrored\r\n"),
        ("\ufeff\u0436\u0431\n".encode("utf-16-le"), "\u0436\u0431\n"),
        ("\ufeffnat\n".encode(), "nat\n"),
        (b"", ""),
    ],
)
def test_outputs_in_the_encodings_of_linux_and_windows(host: LiveHost, tmp_path: Path, said: bytes, read: str) -> None:
    (tmp_path / "said").write_bytes(said)
    assert host.run("cat", str(tmp_path / "said")).stdout == read


def test_equal_questions_are_asked_once(host: LiveHost, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    program = fake(tmp_path / "program", f"echo x >>{asked}; wc -l <{asked}")
    assert [host.run(program).stdout for _ in range(3)] == ["1\n"] * 3
    assert host.run(program, "other").stdout == "2\n"
    assert len(host.transcript) == 2


def test_a_read_that_hangs_costs_its_deadline_and_no_more(hasty: LiveHost, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    started = time.monotonic()
    assert refusal(hasty, "read", str(tmp_path / "pipe")).cause is Cause.TIMEOUT
    assert 0.9 < time.monotonic() - started < 8
    assert still_answers(hasty)


def test_a_command_that_never_returns_is_killed_with_all_it_started(hasty: LiveHost, tmp_path: Path) -> None:
    program = fake(tmp_path / "p", f"setsid sleep 600 & echo $! >{tmp_path}/pid; trap '' TERM INT HUP; sleep 600; :")
    assert refusal(hasty, "run", program).cause is Cause.TIMEOUT
    assert gone(int((tmp_path / "pid").read_text()))
    assert still_answers(hasty)


def test_a_daemon_that_holds_the_pipe_is_not_waited_for(host: LiveHost, tmp_path: Path) -> None:
    program = fake(tmp_path / "p", f"setsid sh -c 'echo $$ >{tmp_path}/pid; exec sleep 600' & sleep 0.2; echo done")
    started = time.monotonic()
    assert host.run(program).stdout == "done\n"
    assert time.monotonic() - started < 8
    pid = int((tmp_path / "pid").read_text())
    assert process.started(pid)
    host.close()
    assert gone(pid), "nothing stays behind"


def test_a_command_that_closes_its_streams_and_stays_is_killed(hasty: LiveHost) -> None:
    assert refusal(hasty, "run", "sh", "-c", "exec >&- 2>&-; exec sleep 600").cause is Cause.TIMEOUT
    assert still_answers(hasty)


def test_a_flood_fills_neither_memory_nor_time(hasty: LiveHost) -> None:
    ran = hasty.run("sh", "-c", "head -c 30000000 /dev/zero | tr '\\0' x; head -c 9000000 /dev/zero >&2; exit 3")
    assert (ran.status, len(ran.stdout), len(ran.stderr)) == (3, TEXT_LIMIT, TEXT_LIMIT)
    assert refusal(hasty, "run", "yes").cause is Cause.TIMEOUT
    assert still_answers(hasty)


CONSTRUCTORS = {
    "segfaults": ("*(volatile int *)0 = 1;", Cause.CRASHED, "SIGSEGV"),
    "aborts": ("abort();", Cause.CRASHED, "SIGABRT"),
    "exits": ("_exit(3);", Cause.CRASHED, "exit status 3"),
    "hangs": ("for (;;) pause();", Cause.TIMEOUT, "no answer within 1.5 s"),
    "closes everything and hangs": ("for (int n = 0; n < 99; n++) close(n); for (;;) pause();", Cause.TIMEOUT, "1.5 s"),
    "leaves a daemon": ("if (!fork()) { setsid(); for (;;) pause(); } kill(getpid(), 9);", Cause.CRASHED, "SIGKILL"),
}


@pytest.mark.skipif(process.find_program("cc", os.environ) is None, reason="needs a C compiler")
@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_a_foreign_library_can_only_harm_its_own_child(
    hasty: LiveHost, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    body, cause, said = CONSTRUCTORS[name]
    includes = "#include <signal.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n"
    noise = 'puts("noise"); fputs("noise", stderr); fflush(stdout);'
    code = f"{includes}__attribute__((constructor)) static void up(void) {{ {noise} {body} }}\n"
    (tmp_path / "bad.c").write_text(code)
    compile_it = ["cc", "-shared", "-fPIC", "-o", str(tmp_path / "bad.so"), str(tmp_path / "bad.c")]
    subprocess.run(compile_it, check=True)
    caught = refusal(hasty, "symbol", str(tmp_path / "bad.so"), "x")
    assert caught.cause is cause
    assert said in caught.detail
    assert still_answers(hasty)
    hasty.close()
    assert capfd.readouterr() == ("", ""), "what a library prints stands in no report"


@pytest.mark.skipif(process.find_program("cc", os.environ) is None, reason="needs a C compiler")
def test_only_a_library_that_is_not_there_is_missing(host: LiveHost, tmp_path: Path) -> None:
    (tmp_path / "empty.c").touch()
    for name, more in (("libinner.so", ()), ("libouter.so", ("-Wl,--no-as-needed", "-linner", f"-L{tmp_path}"))):
        command = ["cc", "-shared", "-fPIC", "-o", str(tmp_path / name), str(tmp_path / "empty.c"), *more]
        subprocess.run(command, check=True)
    (tmp_path / "libinner.so").unlink()
    (tmp_path / "text.so").write_text("no library")
    assert isinstance(refusal(host, "symbol", str(tmp_path / "nowhere.so"), "x"), Missing)
    for name, said in (("libouter.so", "libinner.so"), ("text.so", "")):
        caught = refusal(host, "symbol", str(tmp_path / name), "x")
        assert (type(caught), caught.cause) == (Unreadable, Cause.INVALID)
        assert said in caught.detail


def test_a_broker_that_is_killed_is_a_crash_and_the_run_goes_on(tmp_path: Path) -> None:
    with LiveHost() as host:
        (broker,) = process.children(os.getpid())
        program = fake(tmp_path / "p", f"echo $$ >{tmp_path}/pid; kill -KILL {broker}; exec sleep 600")
        assert refusal(host, "run", program).cause is Cause.CRASHED
        assert gone(int((tmp_path / "pid").read_text()))
        for probe in collect(host, catalogue.probes()).values():
            assert getattr(probe, "cause", None) is Cause.CRASHED
    assert process.children(os.getpid()) == []


def test_all_ends_when_the_tool_is_killed(tmp_path: Path) -> None:
    daemon = f"setsid sh -c 'echo $$ >{tmp_path}/daemon; exec sleep 600' &"
    program = fake(tmp_path / "p", f"echo $PPID >{tmp_path}/worker; {daemon} echo $$ >{tmp_path}/pid; exec sleep 600")
    code = f"from warmspare.host.live import LiveHost\nLiveHost().run({program!r})"
    with subprocess.Popen([sys.executable, "-c", code]) as tool:
        for name in ("worker", "daemon", "pid"):
            wait_for(tmp_path / name, tool)
        (broker,) = process.children(tool.pid)
        end(tool.pid)
    pids = [broker, *(int((tmp_path / name).read_text()) for name in ("worker", "daemon", "pid"))]
    assert [pid for pid in pids if not gone(pid)] == []


def test_a_recording_gives_equal_readings(host: LiveHost) -> None:
    now = datetime.now(UTC)
    live = collect(host, catalogue.probes(), at=now)
    recorded = RecordedHost(host.transcript)
    assert collect(recorded, catalogue.probes(), at=now) == live
    with pytest.raises(Unreadable, match="not in this recording: read /never/asked") as caught:
        recorded.read("/never/asked")
    assert caught.value.cause is Cause.UNASKED


def test_names_that_are_no_text_still_make_an_answer(host: LiveHost, tmp_path: Path) -> None:
    program = fake(tmp_path / os.fsdecode(b"\xff"), "echo odd")
    link = tmp_path / "criu"
    link.symlink_to(program)
    assert isinstance(host.run(str(link)), Ran)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert isinstance(refusal(host, "read", str(tmp_path / "socket")), Missing)


def test_a_question_begun_ahead_is_under_way_before_it_is_asked_and_is_put_once(tmp_path: Path) -> None:
    program = fake(tmp_path / "p", f"echo $$ >>{tmp_path}/pids; : >{tmp_path}/begun; echo done")
    with LiveHost(ahead=[("run", (program,))]) as host:
        wait_for(tmp_path / "begun", None)
        assert host.run(program).stdout == "done\n"
        assert host.run("/bin/echo", "x").stdout == "x\n", "others are answered as ever"
    assert len((tmp_path / "pids").read_text().split()) == 1
    assert [call.args for call in host.transcript] == [(program,), ("/bin/echo", "x")]


def test_a_question_begun_ahead_and_never_asked_ends_with_the_host_and_is_in_no_transcript(tmp_path: Path) -> None:
    program = fake(tmp_path / "p", f"echo $$ >{tmp_path}/pid; : >{tmp_path}/begun; exec sleep 600")
    with LiveHost(ahead=[("run", (program,))]) as host:
        wait_for(tmp_path / "begun", None)
        pid = int((tmp_path / "pid").read_text())
        assert host.experiment("pidfd")["works"] in (True, False)
        assert process.started(pid), "the end of another worker leaves it alone"
    assert gone(pid)
    assert len(host.transcript) == 1
