"""Whole runs on machines with something planted in them: each becomes an absence with its cause, and the run ends."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from conftest import Tool
from warmspare.trials.leftover import scratch_roots
from worlds import DESIGNED, TOOL, as_nobody, fake, in_world, is_calm, is_one_line, reachable

CAUSES = {"unasked", "denied", "timeout", "crashed", "skipped", "invalid"}
NO_CRIU = {"WARMSPARE_CRIU": "/bin/false"}
CHECK = ("check", "--no-trials", "--json", "-")
SNAPSHOT = ("snapshot", "--no-trials", "-o", "-")


class Run(NamedTuple):
    """A run that ended as designed: its readings by fact, and what it said on standard error."""

    readings: dict[str, dict[str, Any]]
    stderr: str

    def cause(self, fact: str) -> str | None:
        """Why a fact is absent; None if it is known."""
        return self.readings[fact].get("cause")

    def value(self, fact: str) -> dict[str, Any]:
        """A known fact."""
        assert self.readings[fact]["is"] == "known", self.readings[fact]
        return dict(self.readings[fact]["value"])


def ended(ran: subprocess.CompletedProcess[str]) -> Run:
    """What a `snapshot -o -` found, every reading known or absent with a cause."""
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    assert is_calm(ran.stdout.encode())
    readings = {entry["fact"]: entry["reading"] for entry in json.loads(ran.stdout)["readings"]}
    for fact, reading in readings.items():
        assert reading["is"] == "known" or (reading["cause"] in CAUSES and reading["detail"]), fact
    return Run(readings, ran.stderr)


def checked(ran: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The report of a `check --json -` with a designed exit code."""
    assert ran.returncode in DESIGNED, ran.stderr
    assert "Traceback" not in ran.stderr
    report: dict[str, Any] = json.loads(ran.stdout)["report"]
    assert report["exit_code"] == ran.returncode
    return report


def bare(tmp_path: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "WARMSPARE_STATE_DIR": str(tmp_path / "state"), **NO_CRIU}


def planted(world: str, *command: str, **more: Any) -> tuple[Run, dict[str, Any]]:  # noqa: ANN401 # in_world's
    """The same world seen by `snapshot` and by `check`."""
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(in_world, world, *(command or TOOL), *words, **more) for words in (SNAPSHOT, CHECK)]
    return ended(runs[0].result()), checked(runs[1].result())


@pytest.mark.root
def test_an_ordinary_user_under_hidepid(tmp_path: Path) -> None:
    world = f"{reachable()}\nmount -t proc -o hidepid=2 proc /proc"
    seen, _ = planted(world, *as_nobody(*TOOL), env=bare(tmp_path))
    assert seen.cause("seccomp_of_pid1") == "denied"
    assert "hidepid" in seen.readings["seccomp_of_pid1"]["detail"]
    assert seen.value("capabilities") == {
        "fact": "capabilities", "root": False, "effective": [], "no_new_privs": False
    }  # fmt: skip
    assert "the proofs were not kept" in seen.stderr
    assert is_one_line(seen.stderr)


@pytest.mark.root
def test_a_user_without_a_name_or_a_home(tmp_path: Path) -> None:
    world = f"{reachable()}\nmount --bind /dev/null /etc/passwd"
    env = {name: value for name, value in bare(tmp_path).items() if name == "PATH"} | NO_CRIU
    seen, _ = planted(world, *as_nobody(*TOOL), env=env)
    assert "the proofs were not kept: Permission denied: /.local" in seen.stderr


@pytest.mark.root
def test_a_pid_namespace_with_a_fresh_proc(tmp_path: Path) -> None:
    flags = ("--pid", "--fork", "--mount-proc")
    seen, _ = planted("", flags=flags, env=bare(tmp_path))
    assert seen.value("seccomp_of_pid1")["mode"] == 0
    assert seen.value("kernel")["release"] == os.uname().release


@pytest.mark.root
def test_pid_1_hidden(tmp_path: Path) -> None:
    seen, _ = planted("mount -t tmpfs none /proc/1", env=bare(tmp_path))
    assert seen.cause("seccomp_of_pid1") == "denied"
    assert seen.value("seccomp")["mode"] == 0


@pytest.mark.root
def test_proc_half_unreadable(tmp_path: Path) -> None:
    names = ("sys/kernel/osrelease", "version", "cmdline", "cpuinfo", "meminfo")
    world = "; ".join(f"[ ! -e /proc/{name} ] || mount --bind /dev/null /proc/{name}" for name in names)
    seen, _ = planted(world, env=bare(tmp_path))
    assert seen.cause("kernel") == "invalid"
    assert seen.readings["kernel"]["detail"]


@pytest.mark.root
def test_sys_not_mounted(tmp_path: Path) -> None:
    seen, report = planted("mount -t tmpfs none /sys", env=bare(tmp_path))
    assert seen.cause("memory_limit") == "denied"
    gpus = seen.readings["gpus"]
    if not list(Path("/dev").glob("nvidia*")):
        assert gpus["cause"] == "denied"
        assert gpus["detail"] == "the PCI bus cannot be read, and no driver answers"
        assert report["exit_code"] == 3, "no bus to look at is not the same as no GPU"


@pytest.mark.root
def test_dev_nearly_empty(tmp_path: Path) -> None:
    nodes = "mount -t tmpfs none /mnt; touch /mnt/null; mount --bind /dev/null /mnt/null; mount --rbind /mnt /dev"
    seen, _ = planted(nodes, env=bare(tmp_path))
    assert seen.value("kernel")
    assert seen.stderr == ""
    empty = in_world("mount -t tmpfs none /dev", *TOOL, "check", "--no-trials", env=bare(tmp_path))
    assert (empty.returncode, empty.stdout) == (2, "")
    assert empty.stderr == "warmspare: this machine refused: /dev/null: No such file or directory\n"


@pytest.mark.root
def test_a_read_only_system(tmp_path: Path) -> None:
    folders = " ".join([*map(str, scratch_roots()), str(tmp_path)])
    world = f"for f in {folders}; do mount --bind $f $f; mount -o remount,ro,bind $f; done; mount -o remount,ro,bind /"
    env = {**os.environ, "WARMSPARE_STATE_DIR": str(tmp_path / "state")}
    seen, _ = planted(world, env=env)
    assert is_one_line(seen.stderr)
    assert "the proofs were not kept" in seen.stderr
    assert "Read-only file system" in seen.stderr
    if seen.readings["criu_program"]["is"] == "known" and seen.value("criu_program")["found"]:
        assert seen.cause("criu_check") == "denied", "this CRIU is not too old: it has nowhere to write"
        assert "Read-only" in seen.readings["criu_check"]["detail"]
    tried = in_world(world, *TOOL, "check", "--json", "-", "criugpu", env=env)
    text = next(
        check["text"]
        for layer in checked(tried)["tracks"][0]["layers"]
        for check in layer["checks"]
        if check["id"] == "process_survives_on_disk"
    )
    assert re.search(r"no folder can be written|no CRIU was found", text), text


@pytest.mark.root
@pytest.mark.parametrize(
    ("engine", "storage"),
    [
        ("docker", "docker/overlay2/l"),
        ("containerd", "containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs"),
        ("podman", "containers/storage/overlay/l"),
        (None, "elsewhere"),
    ],
)
def test_a_root_put_together_by_a_container_engine(tmp_path: Path, engine: str | None, storage: str) -> None:
    world = f"""mount -t tmpfs none /mnt; s=/mnt/{storage}; mkdir -p $s $s-up $s-work /mnt/root
        mount -t overlay -o lowerdir=/:$s,upperdir=$s-up,workdir=$s-work overlay /mnt/root
        mount --rbind /proc /mnt/root/proc; mount --rbind /dev /mnt/root/dev; mount --rbind /tmp /mnt/root/tmp
        cd /mnt/root; mkdir -p /mnt/root/mnt/old; pivot_root . mnt/old"""
    code = "from warmspare.host import experiments; print(experiments.run('root_filesystem'))"
    ran = in_world(world, "/mnt/old" + sys.executable, "-c", code, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert ran.stdout == f"{{'type': 'overlay', 'engine': {engine!r}}}\n", ran.stderr


def test_no_environment_at_all(tool: Tool, tmp_path: Path) -> None:
    command = ["/usr/bin/env", "-i", f"WARMSPARE_STATE_DIR={tmp_path / 'state'}", *TOOL]
    seen = ended(subprocess.run([*command, *SNAPSHOT], capture_output=True, text=True, cwd=tmp_path, check=False))
    here = ended(tool(*SNAPSHOT))
    same = {"kernel", "platform", "gpus", "driver", "capabilities", "seccomp", "memfd"}
    assert {fact: seen.value(fact) for fact in same} == {fact: here.value(fact) for fact in same}
    checked(subprocess.run([*command, *CHECK], capture_output=True, text=True, cwd=tmp_path, check=False))


CRIUS = {
    "killed": ("kill -KILL $$", "crashed", "was ended by signal 9"),
    "lying": (r"printf 'Version: \033[31m99\n'", "invalid", r"Version: \x1b[31m99"),
    "lying on": (r"printf 'Version: 9.9\033]0;owned\007 and more\n'", "invalid", r"\x1b]0;owned"),
    "flooding": ("head -c 10000000 /dev/zero | tr '\\0' x", "invalid", "--version said 'xxx"),
    "silent": (":", "invalid", "--version said ''"),
    "failing": ("echo Version: 4.1; exit 1", "invalid", "status 1"),
}


@pytest.mark.parametrize("name", CRIUS)
def test_a_criu_that_misbehaves(tool: Tool, tmp_path: Path, name: str) -> None:
    script, cause, said = CRIUS[name]
    env = {"WARMSPARE_CRIU": fake(tmp_path / "criu", script)}
    seen = ended(tool(*SNAPSHOT, env=env))
    assert seen.cause("criu_program") == cause
    assert said in json.dumps(seen.readings["criu_program"]).replace("\\\\", "\\")
    ran = tool("check", "--no-trials", "-v", "criugpu", env=env)
    assert ran.returncode in DESIGNED
    assert is_calm(ran.stdout.encode())
    assert ran.stderr == ""


@pytest.fixture(scope="module", autouse=True)
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A snapshot with a CRIU that never returns: begun first and read last, since it waits and does nothing."""
    folder = tmp_path_factory.mktemp("waiting")
    script = f"trap '' TERM INT HUP; echo $$ >>{shlex.quote(str(folder / 'pids'))}; sleep 600; :"
    env = {**os.environ, "WARMSPARE_CRIU": fake(folder / "criu", script), "WARMSPARE_STATE_DIR": str(folder / "state")}
    command = [*TOOL, *SNAPSHOT]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process, folder / "pids"
        process.terminate()


def test_a_criu_that_never_returns_is_waited_for_once(waiting: tuple[subprocess.Popen[str], Path]) -> None:
    process, pids = waiting
    stdout, stderr = process.communicate(timeout=60)
    seen = ended(subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr))
    assert {seen.cause(fact) for fact in ("criu_program", "criu_check", "criu_seccomp_suspend")} == {"timeout"}
    assert "no answer within 10 s" in seen.readings["criu_program"]["detail"]
    started = pids.read_text().split()
    assert len(started) <= 3, "two of its questions are begun ahead, side by side"
    calls = [call for call in json.loads(stdout)["transcript"] if call["args"][:1] == ["criu"]]
    assert sum(call["took_s"] for call in calls) < 15, "all together they cost one deadline"
    assert not [pid for pid in started if Path("/proc", pid).exists()]
