"""The CRIU round trip, for real, and with faults planted: its answer must change with each of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from leftovers import Corner, small_disk
from warmspare.control.criu import Criu
from warmspare.model.facts import Absent, Cause, Known, Outcome
from warmspare.trials import canary, leftover
from warmspare.trials.api import at_place
from warmspare.trials.criu_roundtrip import Beat, CriuRoundtrip, difference, not_running
from warmspare.trials.run import run

TRIAL = at_place("warmspare.trials.criu_roundtrip:criu_roundtrip")
IN_VAIN_S = 6.0
"""A deadline for trials in which something is waited for that never comes."""
Answer = tuple[str, str | None, str]
"""How a trial ended: outcome or absence, its code (else its step) or cause, its detail."""
Plant = Callable[[str, float], Answer]

REAL = 'exec "$REAL_CRIU" "$@"\n'
GARBAGE = '[ $1 = dump ] || exec "$REAL_CRIU" "$@"\n"$REAL_CRIU" "$@"; for i in *.img; do echo garbage >$i; done\n'
STOPPED = '"$REAL_CRIU" "$@"\n[ $1 = dump ] || kill -STOP $(cat restored.pid)\n'
FRESH = f"""[ $1 = restore ] || {REAL}
keeper=$(cut -d' ' -f4 /proc/$PPID/stat)
{sys.executable} -I -S {canary.__file__} ../beats "$keeper" </dev/null >/dev/null 2>&1 &
"""
REWOUND = """\
import contextlib, ctypes, os, pathlib, subprocess, sys
status = subprocess.run([os.environ["REAL_CRIU"], *sys.argv[1:]]).returncode
if sys.argv[1] == "restore":
    pid = int(pathlib.Path("restored.pid").read_text())
    for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it opens and closes others all the time
            if fd.samefile("../beats"):
                number = int(fd.name)
    shared = ctypes.CDLL(None).syscall(438, os.pidfd_open(pid), number, 0)  # pidfd_getfd: the same open file
    os.lseek(shared, 0, os.SEEK_SET)
sys.exit(status)
"""
FORGED = """\
import os, signal, sys, time
if sys.argv[1] == "dump":
    os.kill(int(sys.argv[3]), signal.SIGKILL)  # its child ends with it
elif os.fork() == 0:
    last, frozen = open("../beats").read().split()[-6:], {field}
    if frozen in (0, 4, 5):
        last[frozen] = "1234"
    while True:
        for moving in {{1, 2, 3}} - {{frozen}}:
            last[moving] = str(int(last[moving]) + 1)
        with open("../beats", "a") as file:
            print(*last, file=file)
        time.sleep(0.005)
"""


def says(log: str) -> str:
    """A script of a CRIU that refuses with this log."""
    return f"cat >$1.log <<'EOF'\n{log}\nEOF\nexit 1\n"


@pytest.fixture
def corner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Corner]:
    corner = Corner(tmp_path / "scratch")
    for name, value in corner.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", str(corner.scratch))
    yield corner
    assert corner.left_in_the_end() == {}


@pytest.fixture
def plant(tmp_path: Path, corner: Corner, monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Try with a `criu` that is this script: for `sh`, or for Python if it imports something."""
    monkeypatch.setenv("REAL_CRIU", getattr(Criu.found(), "program", ""))

    def tried(script: str, deadline_s: float) -> Answer:
        program = tmp_path / "criu"
        program.write_text(f"#!{f'{sys.executable} -IS' if 'import' in script else '/bin/sh'}\n{script}")
        program.chmod(0o755)
        monkeypatch.setenv("WARMSPARE_CRIU", str(program))
        ended = run(msgspec.structs.replace(TRIAL, deadline_s=deadline_s), lambda _: None)
        assert (ended.left, corner.left()) == ((), {})
        if isinstance(ended.reading, Absent):
            return "absent", ended.reading.cause, ended.reading.detail
        outcome = ended.reading.value.outcome
        return outcome.kind, outcome.code or outcome.step, outcome.detail

    return tried


@pytest.mark.root
@pytest.mark.criu
@pytest.mark.parametrize("time", range(3))
def test_a_process_goes_on_after_a_round_trip(corner: Corner, time: int) -> None:
    ended = run(TRIAL, lambda _: None)
    assert corner.left() == {}, f"after round trip {time}"
    assert ended.left == ()
    assert isinstance(ended.reading, Known)
    proof = ended.reading.value
    assert isinstance(proof, CriuRoundtrip)
    assert proof.outcome == Outcome(kind="done")
    assert proof.criu == getattr(Criu.found(), "program", None)
    assert proof.beats
    assert 0 < proof.beats[0] < proof.beats[1]
    assert proof.dump_s
    assert proof.restore_s
    assert 0.5 < (proof.image_mib or 0) < 100


@pytest.mark.parametrize(
    ("script", "deadline_s", "answer"),
    [
        ("exec sleep 600", IN_VAIN_S, ("hung", "dump", "no end within 6 s")),
        ("kill -9 $$", 45, ("refused", "signal 9", "no error in the log")),
        ("exit 0", IN_VAIN_S, ("wrong", "dump", "CRIU said the process was dumped, and it still runs")),
        (
            says("Error (a.c:1): Could not initialize kernel features detection."),
            45,
            ("refused", "too_old", "Could not"),
        ),
        (says("Error (a.c:1): suspending seccomp failed: Operation not permitted"), 45, ("refused", "seccomp", "susp")),
        (FORGED.format(field=0), 45, ("wrong", "see it go on", "its memory differs")),
        (FORGED.format(field=6), 45, ("wrong", "see it go on", "its memory differs")),
    ],
)
def test_a_criu_that_fails_or_lies_is_seen_through(
    plant: Plant, script: str, deadline_s: float, answer: Answer
) -> None:
    kind, code, detail = plant(script, deadline_s)
    assert (kind, code) == answer[:2], detail
    assert answer[2] in detail


@pytest.mark.root
@pytest.mark.criu
@pytest.mark.parametrize(
    ("script", "deadline_s", "answer"),
    [
        (REAL, 45, ("done", None, "")),
        ("[ $1 != --version ] || exec echo 'Version: 99.9'\n" + REAL, 45, ("done", None, "")),
        ("[ $1 = dump ] || exit 0\n" + REAL, IN_VAIN_S, ("wrong", "see it go on", "it wrote nothing more")),
        (STOPPED, IN_VAIN_S, ("wrong", "see it go on", "it wrote nothing more")),
        (FRESH, 45, ("wrong", "see it go on", "its memory differs")),
        (REWOUND, 45, ("wrong", "see it go on", "lines of its open file were lost or written over")),
        (GARBAGE, 45, ("refused", "status 1", "Magic doesn't match")),
        ("[ $1 = dump ] || kill -9 $$\n" + REAL, 45, ("refused", "signal 9", "")),
    ],
)
def test_a_restore_that_is_none_is_seen_through(plant: Plant, script: str, deadline_s: float, answer: Answer) -> None:
    kind, code, detail = plant(script, deadline_s)
    assert (kind, code) == answer[:2], detail
    assert answer[2] in detail


def sealed(**fields: int) -> Beat:
    """A line of a canary whose secret is `s`."""
    told = {"beats": 1, "threads": 9, "child": 9, "pid": 70, "child_pid": 71, **fields}
    return Beat(canary.seal(b"s", " ".join(map(str, told.values()))), **told)


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ({"beats": 3, "threads": 11, "child": 11}, None),
        ({"beats": 2, "threads": 11, "child": 11}, "lines of its open file were lost or written over"),
        ({"beats": 1, "threads": 11, "child": 11}, "the counter of beats did not go on"),
        ({"beats": 3, "threads": 9, "child": 11}, "the counter of threads did not go on"),
        ({"beats": 3, "threads": 11, "child": 9}, "the counter of child did not go on"),
        ({"beats": 3, "threads": 11, "child": 11, "pid": 80}, "the process came back under another pid"),
        ({"beats": 3, "threads": 11, "child": 11, "child_pid": 80}, "the process came back under another pid"),
    ],
)
def test_each_thing_that_must_go_on_is_looked_at(last: dict[str, int], said: str | None) -> None:
    beats = [sealed(), sealed(beats=2, threads=10, child=10), sealed(**last)]
    assert difference(beats[0], beats, b"s") == said
    assert "its memory differs" in (difference(beats[0], beats, b"another") or "")


def test_lines_without_a_process_are_no_restore() -> None:
    assert (
        not_running(sealed(pid=os.getpid(), child_pid=1)) == "lines are written, and the kernel knows no such process"
    )
    assert not_running(sealed(pid=2**22 + 1)) == "lines are written, and the kernel knows no such process"


def test_a_file_that_is_no_program_is_named(corner: Corner, tmp_path: Path) -> None:
    (tmp_path / "criu").write_bytes(b"\x7fELF")
    (tmp_path / "criu").chmod(0o755)
    seen = snapshot(scratch=corner.scratch, env={"WARMSPARE_CRIU": str(tmp_path / "criu")})
    assert seen == ("died", "ENOEXEC")


@pytest.mark.root
@pytest.mark.criu
def test_a_full_disk_is_named(plant: Plant, corner: Corner) -> None:
    with small_disk(corner.scratch):
        assert plant(REAL, 45)[:2] == ("refused", "disk_full")


def snapshot(*prefix: str, scratch: Path, **more: object) -> tuple[str, str]:
    """The trial's reading as the tool, started behind `prefix`, records it: (kind or cause, code or detail)."""
    env = {**os.environ, "WARMSPARE_STATE_DIR": str(scratch), **more.pop("env", {})}  # type: ignore[dict-item]
    command = [*prefix, sys.executable, "-m", "warmspare", "snapshot", "criugpu", "-o", "-"]
    made = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=90, **more)  # type: ignore[call-overload]
    assert (made.returncode, "Traceback" in made.stderr) == (0, False), made.stderr
    readings = {entry["fact"]: entry["reading"] for entry in json.loads(made.stdout)["readings"]}
    reading = readings["criu_roundtrip"]
    if reading["is"] == "absent":
        return reading["cause"], reading["detail"]
    return reading["value"]["outcome"]["kind"], reading["value"]["outcome"]["code"]


@pytest.mark.usefixtures("corner")
def test_without_a_criu_it_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSPARE_CRIU", "/nowhere/criu")
    assert run(TRIAL, lambda _: None).reading == Absent(cause=Cause.SKIPPED, detail="no CRIU was found")


def test_a_canary_that_cannot_write_is_the_instruments_failure(corner: Corner) -> None:
    seen = snapshot("/usr/bin/prlimit", "--fsize=0", scratch=corner.scratch, env={"WARMSPARE_CRIU": "/bin/true"})
    assert seen == (Cause.CRASHED, "the canary did not start (status 1)")


def only(capabilities: str) -> tuple[str, ...]:
    """A command in front of another that leaves it no more than these capabilities."""
    sets = ("--inh-caps", "--bounding-set")
    return ("/usr/bin/setpriv", *(word for name in sets for word in (name, capabilities)))


@pytest.mark.root
@pytest.mark.criu
def test_an_ordinary_user_is_denied(corner: Corner) -> None:
    home = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own folders are root's alone
    shutil.chown(home, 65534, 65534)
    # Only what it takes to read a Python that may lie in root's home.
    reading = "-all,+dac_read_search"
    user = ("--reuid=65534", "--regid=65534", "--clear-groups", "--ambient-caps", reading)
    try:
        seen = snapshot(*only(reading), *user, scratch=home, env={"TMPDIR": str(home)}, cwd="/")
        assert list(home.glob(f"{leftover.PREFIX}*")) == []
    finally:
        shutil.rmtree(home)
    assert seen == ("refused", "denied")
    assert corner.left() == {}


@pytest.mark.root
@pytest.mark.criu
def test_a_root_without_power_is_denied_and_criu_not_called_too_old(corner: Corner) -> None:
    powerless = only("-sys_admin,-checkpoint_restore")
    assert snapshot(*powerless, scratch=corner.scratch) == ("refused", "denied")


@pytest.mark.root
def test_without_any_writable_folder_it_is_denied(corner: Corner) -> None:
    roots = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # noqa: S108 # made read-only, in a mount namespace of its own
    bound = "/bin/mount --bind {0} {0} && /bin/mount -o remount,bind,ro {0} && "
    script = "".join(bound.format(root) for root in roots) + 'exec "$@"'
    hidden = ("/usr/bin/unshare", "--mount", "--propagation=private", "/bin/sh", "-c", script, "sh")
    cause, detail = snapshot(*hidden, scratch=corner.scratch, env={"WARMSPARE_CRIU": "/bin/true"}, cwd="/proc")
    assert cause == Cause.DENIED
    assert "no folder can be written for the trial: [Errno 30] Read-only file system" in detail
