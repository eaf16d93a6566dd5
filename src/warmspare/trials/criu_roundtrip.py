"""Dump a CPU process tree to disk with CRIU, see it gone, restore it, and see it go on."""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import subprocess
import sys
import time
import typing
from pathlib import Path
from typing import Final

import msgspec

from warmspare.control import process
from warmspare.control.criu import Criu
from warmspare.model.facts import Cause, Outcome, Proof, Seconds
from warmspare.trials import canary
from warmspare.trials.api import NotTried, Steps, trial

THREADS: Final = 3
BEATS: Final = 3
"""How many lines a canary must write before it counts as alive."""


class CriuRoundtrip(Proof, frozen=True, kw_only=True):
    """The full cycle of a CPU canary. `beats` are its counter before the dump and after the restore."""

    criu: str | None = None
    dump_s: Seconds | None = None
    restore_s: Seconds | None = None
    image_mib: Seconds | None = None
    beats: tuple[int, int] | None = None


class Beat(msgspec.Struct, frozen=True, array_like=True):
    """One line of the canary."""

    seal: str
    beats: int
    threads: int
    child: int
    pid: int
    child_pid: int

    def is_sealed(self, secret: bytes) -> bool:
        """Whether a holder of the secret wrote it."""
        line = f"{self.beats} {self.threads} {self.child} {self.pid} {self.child_pid}"
        return hmac.compare_digest(self.seal, canary.seal(secret, line))


@trial(deadline=45, touches="one small process tree of its own and up to 100 MiB of scratch space", quick=True)
def criu_roundtrip(steps: Steps) -> CriuRoundtrip:
    """Own process, threads, child, file and socket pair: all must go on where they were."""
    criu = Criu.found()
    if criu is None:
        raise NotTried(Cause.SKIPPED, "no CRIU was found")
    images = steps.scratch / "images"
    images.mkdir()
    diary = steps.scratch / "beats"
    secret = secrets.token_bytes(canary.SECRET_BYTES)
    pid = steps.prepare("start the canary", _start, diary, secret, steps.patience_s)
    child_pid = _beats(diary)[-1].child_pid

    dumped = steps("dump", criu.dump, pid, images)
    if dumped.status:
        steps.refused(dumped.code, dumped.line)
    if not _gone(pid, child_pid, steps.patience_s):
        steps.wrong("CRIU said the process was dumped, and it still runs")
    before = _beats(diary)[-1]
    silent = diary.stat().st_size

    restored = steps("restore", criu.restore, images)
    if restored.status:
        steps.refused(restored.code, restored.line)
    beats = steps("see it go on", _went_on, diary, silent, steps.patience_s)
    if not beats:
        steps.wrong("CRIU said the process was restored, and it wrote nothing more")
    if problem := difference(before, beats, secret) or not_running(before):
        steps.wrong(problem)
    return CriuRoundtrip(
        outcome=Outcome(kind="done"),
        criu=criu.program,
        dump_s=steps.took_s["dump"],
        restore_s=steps.took_s["restore"],
        image_mib=round(sum(f.stat().st_size for f in images.iterdir()) / 2**20, 2),
        beats=(before.beats, beats[-1].beats),
    )


def _start(diary: Path, secret: bytes, patience_s: float) -> int:
    """A canary that has its secret and nothing of ours open any more, and beats."""
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", canary.__file__, str(diary), str(os.getppid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=diary.parent,
        start_new_session=True,
    )
    with contextlib.suppress(BrokenPipeError), typing.cast("typing.IO[bytes]", child.stdin) as stdin:
        stdin.write(secret)
    deadline = time.monotonic() + patience_s
    while len(_beats(diary)) < BEATS:
        if child.poll() is not None or time.monotonic() > deadline:
            raise NotTried(Cause.CRASHED, f"the canary did not start (status {child.returncode})")
        time.sleep(canary.BEAT_S)
    child.returncode = 0  # reaped by hand after the dump: Popen must not wait for it
    return child.pid


def _gone(pid: int, child_pid: int, patience_s: float) -> bool:
    """Whether the dumped tree ended, waiting for it; reaped too, since a zombie keeps its pid taken.

    We are the root's parent; the child, an orphan by then, is the keeper's to reap.
    """
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        if not process.started(pid) and not process.started(child_pid):
            return True
        time.sleep(canary.BEAT_S)
    return False


def _beats(diary: Path) -> list[Beat]:
    """The whole lines written so far; one that is written over in part is no beat."""
    try:
        lines = diary.read_text(encoding="ascii", errors="replace").split("\n")[:-1]
    except FileNotFoundError:
        return []
    beats = []
    for line in lines:
        with contextlib.suppress(msgspec.ValidationError):
            beats.append(msgspec.convert(line.split(" "), Beat, strict=False))
    return beats


def _went_on(diary: Path, silent: int, patience_s: float) -> list[Beat]:
    deadline = time.monotonic() + patience_s
    had = len(_beats(diary))
    while time.monotonic() < deadline:
        if diary.stat().st_size > silent and len(beats := _beats(diary)) >= had + BEATS:
            return beats
        time.sleep(canary.BEAT_S)
    return []


def not_running(before: Beat) -> str | None:
    """What the kernel says against the process that writes, or None: the second instrument."""
    seen, child = process.started(before.pid), process.started(before.child_pid)
    if seen is None or child is None or child[0] != before.pid:
        return "lines are written, and the kernel knows no such process"
    threads = len(list(Path(f"/proc/{before.pid}/task").iterdir()))
    return None if threads >= THREADS else f"the process came back with {threads} of its {THREADS} threads"


def difference(before: Beat, beats: list[Beat], secret: bytes) -> str | None:
    """What did not go on, or None: the secret, every counter, the pids, and the place in the open file."""
    after = beats[-1]
    if not all(beat.is_sealed(secret) for beat in beats):
        return "the process that writes now is not the one that was dumped: its memory differs"
    for name in ("beats", "threads", "child"):
        if getattr(after, name) <= getattr(before, name):
            return f"the counter of {name} did not go on"
    if (after.pid, after.child_pid) != (before.pid, before.child_pid):
        return "the process came back under another pid"
    if [beat.beats for beat in beats] != list(range(1, after.beats + 1)):
        return "lines of its open file were lost or written over"
    return None
