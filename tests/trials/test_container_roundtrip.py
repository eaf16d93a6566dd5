"""The container round trip: for real with root's Podman, and with one that plays its part and refuses or lies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest

import fake_podman
from leftovers import Corner, until
from warmspare.control import cgroups
from warmspare.control.process import find_program
from warmspare.model.facts import Absent, Cause
from warmspare.trials import container_roundtrip, leftover
from warmspare.trials.api import NotTried, at_place
from warmspare.trials.container_roundtrip import Beat, cdi_device, difference
from warmspare.trials.run import run

HERE: Final = "warmspare.trials.container_roundtrip"
TRIAL: Final = at_place(f"{HERE}:container_roundtrip")
PROGRAM: Final = """\
import msgspec, os, sys
from warmspare.trials.api import NotTried, at_place
from warmspare.trials.run import run
trial = msgspec.structs.replace(at_place(sys.argv[1]), deadline_s=float(os.environ.get("DEADLINE_S", "100")))
ended = run(trial, lambda step: print(step.name, step.took_s, flush=True))
print(msgspec.json.encode([ended.reading, ended.left]).decode())
"""
BARE: Final = """\
v2=/sys/fs/cgroup/unified
if grep -q . $v2/cgroup.controllers 2>/dev/null; then
  mkdir "$1" && mount --bind $v2 "$1" && umount $v2
fi
mount -t tmpfs tmpfs /run
mkdir /run/cdi
eval "$2"
shift 2
exec "$@"
"""
"""A machine as most are, in mounts of its own: control groups of one kind (crun refuses a mixture), an empty /run."""
UNREACHABLE: Final = (
    "(00.01) Error (criu/mount.c:1088): mnt: Mount 2451 ./proc/driver/nvidia/gpus/0000:01:00.0"
    " (master_id: 15 shared_id: 0) has unreachable sharing."
)
HOOKED: Final = (
    "kind: nvidia.com/gpu\\ndevices:\\n- containerEdits:\\n    hooks:\\n    - hookName: a\\n  name: GPU-1\\n"
)
IN_VAIN_S: Final = 8.0
"""A deadline with a Podman that plays; a real one takes as much for its part alone, on a busy machine."""
Answer = tuple[str, str | None, str]
Play = Callable[..., Answer]


def inside(corner: Corner, trial: str = "container_roundtrip", *, first: str = "", **env: str) -> subprocess.Popen[str]:
    """Start a trial on a machine as most are; `first` is a piece of shell that is run there before."""
    mounts = ["unshare", "--mount", "--propagation", "private", "sh", "-c", BARE, "sh", str(corner.scratch / "v2")]
    return subprocess.Popen(
        [*mounts, first, sys.executable, "-c", PROGRAM, f"{HERE}:{trial}"],
        env={**os.environ, **corner.env, **env},
        stdout=subprocess.PIPE,
        text=True,
    )


def reading(tool: subprocess.Popen[str]) -> dict[str, object]:
    """How it ended; nothing that it started may be left by its own word."""
    with tool:
        last = tool.communicate(timeout=100)[0].splitlines()[-1]
    found, left = json.loads(last)
    assert left == []
    return dict(found)


def groups() -> list[Path]:
    """Control groups of trials, wherever they are."""
    return [group for root in cgroups.roots() for group in root.glob("warmspare-trial-*")]


def cdi(node: str) -> str:
    """A piece of shell that writes a CDI file which hands out /dev/null under this name."""
    spec = {
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "devices": [{"name": "0", "containerEdits": {"deviceNodes": [{"path": node, "hostPath": "/dev/null"}]}}],
        "containerEdits": {
            "mounts": [
                {
                    "hostPath": "/etc/hostname",
                    "containerPath": "/etc/of-the-driver",
                    "type": "bind",
                    "options": ["ro", "bind"],
                }
            ]
        },
    }
    return f"echo '{json.dumps(spec)}' >/run/cdi/nvidia.json"


@pytest.fixture
def corner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Corner]:
    corner = Corner(tmp_path / "scratch")
    for name, value in corner.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", str(corner.scratch))
    yield corner
    assert corner.left_in_the_end() == {}
    assert groups() == []
    assert str(corner.scratch) not in Path("/proc/self/mountinfo").read_text()


@pytest.fixture
def play(tmp_path: Path, corner: Corner, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Try with a Podman that plays; its words are given by action."""

    def tried(**words: str) -> Answer:
        (tmp_path / "criu").write_text("#!/bin/sh\necho Version: 4.1.1\n")
        (tmp_path / "podman").write_text(f'#!/bin/sh\nexec {sys.executable} -IS {fake_podman.__file__} "$@"\n')
        for name in ("criu", "podman"):
            (tmp_path / name).chmod(0o755)
            monkeypatch.setenv(f"WARMSPARE_{name.upper()}", str(tmp_path / name))
        monkeypatch.setenv("WARMSPARE_CRUN", "/bin/true")
        for action, text in words.items():
            monkeypatch.setenv(f"PLAY_{action.upper()}", text)
        ended = run(msgspec.structs.replace(TRIAL, deadline_s=IN_VAIN_S), lambda _: None)
        assert (ended.left, corner.left_in_the_end()) == ((), {})
        if isinstance(ended.reading, Absent):
            return "absent", ended.reading.cause, ended.reading.detail
        outcome = ended.reading.value.outcome
        return outcome.kind, outcome.code or outcome.step, outcome.detail

    return tried


@pytest.mark.root
@pytest.mark.criu
@pytest.mark.podman
@pytest.mark.parametrize("time", range(2))
def test_a_container_goes_on_after_a_round_trip(corner: Corner, time: int) -> None:
    seen = reading(inside(corner))
    assert seen["is"] == "known", (time, seen)
    proof = seen["value"]
    assert isinstance(proof, dict)
    assert proof["outcome"]["kind"] == "done", proof
    assert 0 < proof["beats"][0] < proof["beats"][1]
    assert proof["checkpoint_s"] > 0 < proof["restore_s"]
    assert 0.05 < proof["image_mib"] < 50
    assert int(proof["criu"].partition(".")[0]) >= 4
    assert proof["podman"]
    assert proof["crun"]


@pytest.mark.root
@pytest.mark.criu
@pytest.mark.podman
def test_a_container_with_a_cdi_device_goes_on(corner: Corner) -> None:
    seen = reading(inside(corner, "container_gpu_roundtrip", first=cdi("/dev/nvidia0")))
    assert seen["is"] == "known", seen
    proof = seen["value"]
    assert isinstance(proof, dict)
    assert (proof["outcome"]["kind"], proof["device"]) == ("done", "nvidia.com/gpu=0"), proof


@pytest.mark.root
@pytest.mark.criu
@pytest.mark.podman
def test_a_cdi_device_that_brings_no_gpu_is_told(corner: Corner) -> None:
    seen = reading(inside(corner, "container_gpu_roundtrip", first=cdi("/dev/something")))
    assert (seen["is"], seen["cause"]) == ("absent", "skipped")
    assert seen["detail"] == "a container with nvidia.com/gpu=0 sees no GPU"


@pytest.mark.root
@pytest.mark.criu
@pytest.mark.podman
@pytest.mark.parametrize(
    ("action", "instead", "said"),
    [
        ("checkpoint", 'exec "$REAL_PODMAN" "$@" --leave-running', "its first process still runs"),
        ("rm", "exit 0", "Podman said the container was removed"),
    ],
)
def test_a_podman_that_lies_is_seen_through(
    corner: Corner, tmp_path: Path, action: str, instead: str, said: str
) -> None:
    lying = tmp_path / "podman"
    lying.write_text(f'#!/bin/sh\ncase " $* " in *" {action} "*) {instead};; esac\nexec "$REAL_PODMAN" "$@"\n')
    lying.chmod(0o755)
    real = str(find_program("podman", os.environ))
    crun = find_program("crun", {**os.environ, "PATH": f"{Path(real).parent}:{os.environ['PATH']}"})
    (tmp_path / "netavark").symlink_to(Path(real).parent / "netavark")
    env = {"REAL_PODMAN": real, "WARMSPARE_PODMAN": str(lying), "WARMSPARE_CRUN": str(crun)}
    env |= {"PATH": f"{os.environ['PATH']}:{Path(real).parent}", "DEADLINE_S": f"{4 * IN_VAIN_S}"}
    seen = reading(inside(corner, **env))
    assert seen["is"] == "known", seen
    outcome = seen["value"]["outcome"]  # type: ignore[index]
    assert outcome["kind"] == "wrong", outcome
    assert said in outcome["detail"]


@pytest.mark.root
@pytest.mark.criu
@pytest.mark.podman
@pytest.mark.parametrize("step", ["start the container", "checkpoint", "restore"])
def test_a_tool_that_is_killed_leaves_nothing(corner: Corner, step: str) -> None:
    with inside(corner) as tool:
        started(tool, step)
        tool.kill()
    assert corner.left_in_the_end() == {}, step


@pytest.mark.root
@pytest.mark.criu
@pytest.mark.podman
def test_what_a_killed_keeper_left_is_cleared_away_by_the_next_run(corner: Corner) -> None:
    with inside(corner) as tool:
        started(tool, "checkpoint")
        keeper = int(Path(f"/proc/{tool.pid}/task/{tool.pid}/children").read_text())  # the tool has no other child
        tool.send_signal(signal.SIGSTOP)  # it would clear away what a keeper left that was killed
        os.kill(keeper, signal.SIGKILL)
        tool.kill()
    assert until(lambda: not Path(f"/proc/{keeper}").exists())
    (folder,) = corner.folders()
    os.utime(folder, (0, 0))  # a young one may be about to be locked
    assert leftover.sweep_stale() == []


def started(tool: subprocess.Popen[str], step: str) -> None:
    """Wait until this step has begun."""
    assert tool.stdout
    for line in tool.stdout:
        if line.startswith(f"{step} "):
            return
    pytest.fail(f"it ended before {step}")


@pytest.mark.root
@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (
            {"checkpoint": f"says CRIU checkpointing failed -52 ;; {UNREACHABLE}"},
            ("refused", "driver_mounts", "has unreachable sharing"),
        ),
        ({"checkpoint": "says criu failed: type NOTIFY errno 0"}, ("refused", "see_criu_log", "type NOTIFY errno 0")),
        ({"checkpoint": "says it will not"}, ("refused", "status 125", "it will not")),
        ({"checkpoint": "lies"}, ("wrong", "checkpoint", "its first process still runs")),
        ({"checkpoint": "hangs"}, ("hung", "checkpoint", "no end within 8 s")),
        (
            {"restore": "says failed ;; (00.01) Error (criu/mount.c:3137): mnt: No mapping for 3730:(null) mountpoint"},
            ("refused", "cdi_mounts", "No mapping for 3730"),
        ),
        ({"restore": "lies"}, ("wrong", "see it go on", "it writes nothing more")),
        ({}, ("wrong", "see it go on", "its memory differs")),
        ({"create": "says crun: cgroups in hybrid mode not supported"}, ("absent", Cause.DENIED, "hybrid_cgroups")),
        ({"start": "says something else"}, ("absent", Cause.CRASHED, "something else")),
        ({"start": "lies"}, ("absent", Cause.CRASHED, "its counter does not count")),
    ],
)
def test_a_podman_that_refuses_or_lies(play: Play, words: dict[str, str], answer: Answer) -> None:
    kind, code, detail = play(**words)
    assert (kind, code) == answer[:2], detail
    assert answer[2] in detail


@pytest.mark.root
@pytest.mark.usefixtures("corner")
@pytest.mark.parametrize(
    ("missing", "criu", "detail"),
    [
        ("podman", "4.1.1", "no Podman was found"),
        ("crun", "4.1.1", "no crun was found"),
        ("criu", "4.1.1", "no CRIU was found"),
        (None, "3.17.1", "CRIU 3.17.1 is older than 4"),
    ],
)
def test_without_one_of_the_three_it_is_skipped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str | None, criu: str, detail: str
) -> None:
    for name in ("podman", "crun", "criu"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho Version: {criu}\n")
        program.chmod(0o755)
        monkeypatch.setenv(f"WARMSPARE_{name.upper()}", "/nowhere" if name == missing else str(program))
    assert run(TRIAL, lambda _: None).reading == Absent(cause=Cause.SKIPPED, detail=detail)


def test_an_ordinary_user_is_told_that_it_takes_root(monkeypatch: pytest.MonkeyPatch, corner: Corner) -> None:
    del corner
    if os.geteuid() == 0:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(NotTried, match="needs root") as told:
            container_roundtrip._programs()  # noqa: SLF001 # the keeper of a run would be root again
        assert told.value.cause == Cause.DENIED
        return
    absent = run(TRIAL, lambda _: None).reading
    assert isinstance(absent, Absent)
    assert absent.cause == Cause.DENIED


def beats(count: int, secret: str = "s", gpus: int = 1) -> list[Beat]:  # noqa: S107 # no password
    """Lines as a counter writes them."""
    return [Beat(secret, number + 1, gpus) for number in range(count)]


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (beats(10), None),
        (beats(9), "it writes nothing more"),
        ([*beats(9), Beat("t", 10, 1)], "its memory differs"),
        ([*beats(9), Beat("s", 1, 1)], "lines of its open file were lost or written over"),
        ([*beats(9), Beat("s", 10, 0)], "the container saw 1 GPUs before and 0 after"),
    ],
)
def test_each_thing_that_must_go_on_is_looked_at(after: list[Beat], said: str | None) -> None:
    problem = difference(beats(5), after, "s")
    assert problem is None if said is None else said in str(problem)


@pytest.mark.parametrize(
    ("name", "text", "device"),
    [
        ("nvidia.yaml", 'cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: "0"\n  x: y\n- name: all\n', "0"),
        (
            "nvidia.yaml",
            HOOKED,
            "GPU-1",
        ),
        ("nvidia.json", '{"kind": "nvidia.com/gpu", "devices": [{"name": "1:0"}]}', "1:0"),
        ("nvidia.yaml", 'kind: amd.com/gpu\ndevices:\n- name: "0"\n', None),
        ("nvidia.txt", 'kind: nvidia.com/gpu\ndevices:\n- name: "0"\n', None),
        ("nvidia.yaml", "kind: nvidia.com/gpu\ndevices: []\n", None),
    ],
)
def test_a_cdi_file_names_its_gpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, text: str, device: str | None
) -> None:
    (tmp_path / name).write_text(text)
    monkeypatch.setattr(container_roundtrip, "CDI_FOLDERS", (tmp_path / "none", tmp_path))
    assert cdi_device() == (device and f"nvidia.com/gpu={device}")
