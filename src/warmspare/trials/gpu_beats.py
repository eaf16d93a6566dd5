"""The trial's side of the GPU canary: start it, read its lines, see that it goes on where it was."""

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

import warmspare
from warmspare.control import process
from warmspare.control.lever import LeverRefused
from warmspare.model.facts import Cause, Outcome
from warmspare.trials import gentle, gpu_canary
from warmspare.trials.api import LeverFailed, NotTried, Steps
from warmspare.trials.given import Gpu
from warmspare.trials.on_gpu import HIDDEN, MIB, NO_ORACLE, SHARE

MOST_MIB: Final = 256
"""The pattern's size where a tenth of what is free holds it."""
BEATS: Final = 3
"""How many lines must come before the canary counts as alive."""
LOOK_AGAIN_S: Final = 0.01


class _Ended(Exception):
    """The canary did. The message says how, such as `signal 11`."""


class Beat(msgspec.Struct, frozen=True, array_like=True):
    """One line of the canary: its own count, the graph's, and how many words were wrong."""

    seal: str
    beats: int
    graph: int
    wrong: int
    pid: int

    def is_sealed(self, secret: bytes) -> bool:
        """Whether a holder of the secret wrote it."""
        line = f"{self.beats} {self.graph} {self.wrong} {self.pid}"
        return hmac.compare_digest(self.seal, gpu_canary.seal(secret, line))


class Canary:
    """A canary that beats."""

    def __init__(self, steps: Steps, gpu: Gpu, most_mib: int = MOST_MIB) -> None:
        """Start it, without anything that would end it with us, and wait until it beats.

        Raises:
            NotTried: there is too little memory, its check kernel is blind, or it does not start.
            LeverRefused: the driver refuses something before anything is tried.
        """
        self._steps, self._gpu = steps, gpu
        self.diary, self._secret = steps.scratch / "beats", secrets.token_bytes(gpu_canary.SECRET_BYTES)
        self._child, self._is_child = self._started(most_mib * MIB), True
        self.pid = self._child.pid
        try:
            beats = self._await(BEATS)
        except _Ended as end:
            raise NotTried(Cause.CRASHED, f"the canary did not start ({end})") from None
        if not beats or (problem := fault(beats, self._secret, self.pid)):
            said = problem if beats else f"it did not beat within {steps.patience_s:g} s"
            raise NotTried(Cause.CRASHED, f"the canary: {said}")
        self.size = int(self._lines()[0].removeprefix(gpu_canary.SIZE))

    def _started(self, most: int) -> subprocess.Popen[bytes]:
        root, record = str(Path(warmspare.__file__).parent.parent), str(self._steps.scratch / gentle.RECORD)
        size = (self._gpu.id, str(most), str(SHARE))
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", gpu_canary.START, *size, str(self.diary), record, str(os.getppid()), root],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._steps.scratch,
            start_new_session=True,
        )
        with contextlib.suppress(BrokenPipeError), typing.cast("typing.IO[bytes]", child.stdin) as stdin:
            stdin.write(self._secret)
        return child

    def ended(self, patience_s: float = 0.0) -> str | None:
        """How it ended, such as `signal 11`, waited for; None while it lives."""
        if self._is_child:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(patience_s)
            status = self._child.returncode
            return None if status is None else f"signal {-status}" if status < 0 else f"exit {status}"
        deadline = time.monotonic() + patience_s
        while (seen := process.started(self.pid)) and seen[2] not in "ZX":
            if time.monotonic() > deadline:
                return None
            time.sleep(LOOK_AGAIN_S)
        return "its pid is gone"

    def is_gone(self, patience_s: float) -> bool:
        """Whether it ends in time; it is reaped, since a zombie keeps its pid taken. Who restores it is its parent."""
        self.ended(patience_s)
        self._is_child = False
        return process.started(self.pid) is None

    def beats(self) -> list[Beat]:
        """The whole lines written so far; one that is written over in part is no beat."""
        found = []
        for line in self._lines():
            with contextlib.suppress(msgspec.ValidationError):
                found.append(msgspec.convert(line.split(" "), Beat, strict=False))
        return found

    def went_on(self) -> str | None:
        """What did not go on where it was, or None: the seal, the bytes, the graph's count, its own, its pid.

        Raises:
            LeverRefused: the driver refuses it something.
            LeverFailed: it has died.
        """
        try:
            beats = self._await(len(self.beats()) + BEATS)
        except _Ended as end:
            code = str(end)
            raise LeverFailed(Outcome(kind="died", step=self._steps.current, code=code, detail="the canary")) from None
        return (
            fault(beats, self._secret, self.pid)
            if beats
            else "the driver said it was done, and the canary does nothing more"
        )

    def _lines(self) -> list[str]:
        try:
            return self.diary.read_text(encoding="ascii", errors="replace").split("\n")[:-1]
        except FileNotFoundError:
            return []

    def _await(self, count: int) -> list[Beat]:
        """All beats, once there are so many; none if they do not come in time."""
        deadline = time.monotonic() + self._steps.patience_s
        while len(beats := self.beats()) < count:
            if time.monotonic() > deadline:
                return []
            if end := self.ended(LOOK_AGAIN_S):
                raise _Ended(end)
            self._stop_if_told()
        return beats

    def _stop_if_told(self) -> None:
        """Its last line may say why there will be no more.

        Raises:
            NotTried: there is nothing to try with.
            LeverRefused: the driver refuses.
        """
        last = (self._lines() or [""])[-1]
        if last.startswith(gpu_canary.REFUSED):
            code, _, detail = last.removeprefix(gpu_canary.REFUSED).partition("\t")
            raise LeverRefused(code, detail)
        if last.startswith(gpu_canary.HIDDEN):
            count = last.removeprefix(gpu_canary.HIDDEN)
            raise NotTried(Cause.SKIPPED, HIDDEN.format(count=count, gpu=self._gpu.subject))
        if last == gpu_canary.BLIND:
            raise NotTried(Cause.INVALID, NO_ORACLE)
        if last == gpu_canary.FULL:
            raise NotTried(Cause.SKIPPED, f"a tenth of what is free on {self._gpu.subject} is less than 1 MiB")


def fault(beats: list[Beat], secret: bytes, pid: int) -> str | None:
    """What is wrong with the lines of the canary, or None: seals, bytes, the graph's count, its own, its pid."""
    if not all(beat.is_sealed(secret) for beat in beats):
        return "the process that writes is another: its memory differs"
    if wrong := next((beat.wrong for beat in beats if beat.wrong), 0):
        return f"{wrong} words on the GPU are wrong"
    if any(beat.graph != beat.beats for beat in beats):
        return "the graph on the GPU did not go on with its count"
    if [beat.beats for beat in beats] != list(range(1, len(beats) + 1)):
        return "lines of its open file were lost or written over"
    return None if {beat.pid for beat in beats} == {pid} else "it has another pid"
