"""Checkpoint a container with root Podman, crun and CRIU, see it stopped, restore it, and see it go on.

Two trials: a container of the CPU's alone, and one that was handed a GPU by CDI. The second holds no CUDA context: it
shows whether the mounts and devices that come with a GPU survive, which is where such containers usually fail.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from warmspare.control import private_mounts, process
from warmspare.control.containers import RUN_FOLDERS, Podman, Programs, Ran, make_root
from warmspare.model.facts import Cause, Outcome, Proof, Seconds, Text
from warmspare.trials.api import NotTried, Steps, trial

T = TypeVar("T")
P = TypeVar("P", bound="ContainerRoundtrip")
PREFIX: Final = "warmspare-trial-"
"""Of the control group's name; what keeps the trial knows it by that and the trial's token."""
BEAT_S: Final = 0.02
BEATS: Final = 5
"""How many lines a counter must write before it counts as alive."""
SCRIPT: Final = """\
read -r secret </diary/secret
exec 3>>/diary/beats
beats=0
while [ $beats -lt 15000 ]; do
  beats=$((beats + 1)) gpus=0
  for node in /dev/nvidia[0-9]* /dev/dxg; do [ -e "$node" ] && gpus=$((gpus + 1)); done
  echo "$secret $beats $gpus" >&3
  sleep 0.02
done
"""
"""Ends by itself after five minutes. The secret's file is removed as soon as it beats: only its memory has it then."""
CDI_FOLDERS: Final = (Path("/etc/cdi"), Path("/var/run/cdi"))
CDI_KIND: Final = re.compile(r'"?kind"?:\s*"?nvidia\.com/gpu"?')
CDI_DEVICE: Final = re.compile(r'"?\bname"?:\s*"?([\w.:-]{1,80})"?')
OLDEST_CRIU: Final = 4
DENIED: Final = frozenset({"denied", "hybrid_cgroups", "cgroup_controller", "rootless"})
"""Why a container cannot even be started that has to do with this machine's rights and settings."""


class ContainerRoundtrip(Proof, frozen=True, kw_only=True):
    """The full cycle of a container. `beats`: its counter before the checkpoint and after the restore."""

    podman: Text | None = None
    crun: Text | None = None
    criu: Text | None = None
    checkpoint_s: Seconds | None = None
    restore_s: Seconds | None = None
    image_mib: Seconds | None = None
    beats: tuple[int, int] | None = None


class ContainerGpuRoundtrip(ContainerRoundtrip, frozen=True, kw_only=True):
    """The same with a CDI `device`, by its name."""

    device: Text | None = None


class Beat(msgspec.Struct, frozen=True, array_like=True):
    """One line of the counter."""

    secret: str
    beats: int
    gpus: int


TOUCHES: Final = "one container of its own in private storage, private mounts, and up to 50 MiB of scratch space"


@trial(deadline=120, touches=TOUCHES)
def container_roundtrip(steps: Steps) -> ContainerRoundtrip:
    """A counter with an open file on a volume must go on where it was, with what only its memory holds."""
    return _cycle(steps, ContainerRoundtrip, None)


@trial(deadline=120, touches=f"{TOUCHES}; a GPU is made visible to the container and not used")
def container_gpu_roundtrip(steps: Steps) -> ContainerGpuRoundtrip:
    """The driver's libraries and devices, mounted into a container, are what a checkpoint stumbles over."""
    device = cdi_device()
    if device is None:
        raise NotTried(Cause.SKIPPED, "no CDI file names an NVIDIA GPU (nvidia-ctk cdi generate makes one)")
    proof = _cycle(steps, ContainerGpuRoundtrip, device)
    return msgspec.structs.replace(proof, device=device)


def _cycle(steps: Steps, proof: type[P], device: str | None) -> P:
    programs = _programs()
    podman, diary, secret, versions = _prepare(steps, programs)
    pid = steps.prepare("start the container", _start, podman, diary, device, steps.patience_s)

    _pull(steps, "checkpoint", podman.checkpoint)
    if not _ended(pid, steps.patience_s):
        steps.wrong("Podman said the container was checkpointed, and its first process still runs")
    before = _beats(diary)
    image_mib = podman.image_mib()

    _pull(steps, "restore", podman.restore)
    after = steps("see it go on", _went_on, diary, before, steps.patience_s)
    if problem := difference(before, after, secret):
        steps.wrong(problem)
    restored = podman.pid()
    if restored is None or process.started(restored) is None:
        steps.wrong("lines are written, and there is no such container")
    _pull(steps, "remove", podman.remove)
    if not _ended(restored, steps.patience_s):
        steps.wrong("Podman said the container was removed, and its first process still runs")
    return proof(
        outcome=Outcome(kind="done"),
        **versions,
        checkpoint_s=steps.took_s["checkpoint"],
        restore_s=steps.took_s["restore"],
        image_mib=image_mib,
        beats=(before[-1].beats, after[-1].beats),
    )


def _programs() -> Programs:
    """All that it takes, or why this cannot be tried."""
    if os.geteuid():
        raise NotTried(Cause.DENIED, "needs root: a rootless container cannot be checkpointed")
    programs = Programs.found()
    for name, found in (("Podman", programs.podman), ("crun", programs.crun), ("CRIU", programs.criu)):
        if found is None:
            raise NotTried(Cause.SKIPPED, f"no {name} was found")
    return programs


def _prepare(steps: Steps, programs: Programs) -> tuple[Podman, Path, str, dict[str, str | None]]:
    """A Podman of our own, a diary with a secret that only the counter's memory will hold, and the versions."""
    try:
        steps.prepare("enter private mounts", private_mounts.enter, RUN_FOLDERS)
    except PermissionError as error:
        raise NotTried(Cause.DENIED, f"private mounts are refused: {error}") from error
    versions = programs.versions()  # only now: crun makes a folder in /run before it tells its own
    if (criu := versions["criu"]) and int(criu.partition(".")[0]) < OLDEST_CRIU:
        raise NotTried(Cause.SKIPPED, f"CRIU {criu} is older than {OLDEST_CRIU}")
    diary, secret = steps.scratch / "diary", secrets.token_hex(16)
    diary.mkdir()
    (diary / "secret").write_text(f"{secret}\n", encoding="ascii")
    try:
        steps.prepare("make its root", make_root, steps.scratch / "rootfs", ("sh", "sleep"))
    except FileNotFoundError as error:
        raise NotTried(Cause.SKIPPED, str(error)) from error
    name = f"{PREFIX}{os.environ.get(process.TAG, secrets.token_hex(8))}"
    return Podman(programs, steps.scratch / "podman", name), diary, secret, versions


def _start(podman: Podman, diary: Path, device: str | None, patience_s: float) -> int:
    """The pid of the container's first process, seen counting."""
    rootfs = podman.folder.parent / "rootfs"
    for ran in (podman.create(rootfs, diary, ("/bin/sh", "-c", SCRIPT), device), podman.start()):
        if ran.status:
            cause = Cause.DENIED if ran.cause in DENIED else Cause.CRASHED
            raise NotTried(cause, f"Podman starts no container here ({ran.code}): {ran.line}")
    pid = podman.pid()
    beats = _until(lambda: len(_beats(diary)) >= BEATS and _beats(diary), patience_s)
    if not pid or not beats:
        raise NotTried(Cause.CRASHED, "the container started, and its counter does not count")
    (diary / "secret").unlink()
    if device and not beats[0].gpus:
        raise NotTried(Cause.SKIPPED, f"a container with {device} sees no GPU")
    return pid


def _pull(steps: Steps, name: str, lever: Callable[[], Ran]) -> None:
    ran = steps(name, lever)
    if ran.status:
        steps.refused(ran.code, ran.line)


def _ended(pid: int, patience_s: float) -> bool:
    return bool(_until(lambda: process.started(pid) is None, patience_s))


def _went_on(diary: Path, before: Sequence[Beat], patience_s: float) -> list[Beat]:
    """All lines as soon as there are enough new ones, else those that there are."""
    wanted = len(before) + BEATS
    return _until(lambda: len(_beats(diary)) >= wanted and _beats(diary), patience_s) or _beats(diary)


def _until(seen: Callable[[], T], patience_s: float) -> T | None:
    """What is seen at last, or None: no event tells of what another's process does."""
    deadline = time.monotonic() + patience_s
    while not (found := seen()):
        if time.monotonic() > deadline:
            return None
        time.sleep(BEAT_S)
    return found


def _beats(diary: Path) -> list[Beat]:
    """The whole lines written so far; one that is written over in part is no beat."""
    try:
        lines = (diary / "beats").read_text(encoding="ascii", errors="replace").split("\n")[:-1]
    except FileNotFoundError:
        return []
    beats = []
    for line in lines:
        with contextlib.suppress(msgspec.ValidationError):
            beats.append(msgspec.convert(line.split(" "), Beat, strict=False))
    return beats


def difference(before: Sequence[Beat], after: Sequence[Beat], secret: str) -> str | None:
    """What did not go on, or None: the counter, its memory, the place in the open file, and the GPUs it sees."""
    if len(after) < len(before) + BEATS:
        return "Podman said the container was restored, and it writes nothing more"
    if any(beat.secret != secret for beat in after):
        return "the container that writes now is not the one that was checkpointed: its memory differs"
    if [beat.beats for beat in after] != list(range(1, len(after) + 1)):
        return "lines of its open file were lost or written over"
    if {beat.gpus for beat in after} != {before[0].gpus}:
        return f"the container saw {before[0].gpus} GPUs before and {after[-1].gpus} after"
    return None


def cdi_device() -> str | None:
    """The first GPU that a CDI file of NVIDIA's names, as an engine is asked for it.

    Source: Container Device Interface specification: `kind`, and `devices` with a `name` each, as JSON or YAML.
    """
    for folder in CDI_FOLDERS:
        with contextlib.suppress(OSError):
            for path in sorted(folder.iterdir()):
                text = path.read_text(encoding="utf-8", errors="replace")
                name = CDI_DEVICE.search(text) if CDI_KIND.search(text) else None
                if name and path.suffix in (".json", ".yaml", ".yml"):
                    return f"nvidia.com/gpu={name[1]}"
    return None
