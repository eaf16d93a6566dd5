"""One writer that is killed in mid-write, the reader that takes over, and what both can be held to."""

from __future__ import annotations

import os
import random
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Final, NoReturn, cast

import msgspec

import warmspare
from warmspare.control import process
from warmspare.control.kernels import Kernels
from warmspare.control.lever import LeverRefused
from warmspare.control.replica import Ended, Reader, Version
from warmspare.trials.takeover_writer import READY, REFUSED, START, seed_of

SLOTS: Final = 4
"""One more than a replica needs: two more writes are queued while one is under way."""
WARM_VERSIONS: Final = 5
MORE_VERSIONS: Final = SLOTS + 1
SPREAD_S: Final = 0.05
"""The writer is killed some versions after a random moment of so many seconds, at a random moment of the last."""
AGAIN_S: Final = 1.0
"""When a version is verified for the last time, counted from the kill."""


class Kill(msgspec.Struct, frozen=True, kw_only=True):
    """What one kill showed, its times counted from just before kill(). `wrong` says what must not be, if anything.

    `detect_s`: the reader heard of it; `takeover_s`: a version was verified; `verify_s` is what lies between; `gone_s`:
    the process had ended altogether (None where that could not be told). `lag_s` is the median from a publish to its
    acceptance. `version` was taken over; `published` was the last queued and `acknowledged` the last that the writer
    knew to be whole, as far as it came to say so.
    """

    wrong: str | None
    takeover_s: float
    detect_s: float
    verify_s: float
    gone_s: float | None
    lag_s: float
    accepted: int
    version: int
    published: int
    acknowledged: int
    unsealed: int
    torn: int

    @property
    def lost(self) -> int:
        """Versions that were queued, and are not in the one taken over."""
        return max(0, self.published - self.version)


class Session:
    """A reader in this process and a writer in another, which waits to be told to go."""

    def __init__(self, source: str, target: str, size: int) -> None:
        """Take the replica's memory on `target`, and start a writer on `source`."""
        self._seed, self._lags = secrets.randbits(63), list[float]()
        self._last_accepted, self._spacing_s = 0, 0.0
        near, far = socket.socketpair()
        with far:
            self.reader = Reader(target, size, near, slots=SLOTS, on_version=self._heed)
            self._kernels = Kernels(self.reader.context)
            root = str(Path(warmspare.__file__).parent.parent)
            told = (source, str(self._seed), str(far.fileno()), str(os.getpid()), root)
            self._writer = subprocess.Popen(
                [sys.executable, "-P", "-c", START, *told],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(far.fileno(),),
            )
        self._killed_s = 0.0
        self._gone_s: float | None = None
        self._first: str | None = None

    def be_ready(self, timeout_s: float) -> None:
        """Wait until the writer has opened the replica.

        Raises:
            LeverRefused: the driver refused it something.
            ChildProcessError: it ended instead.
            TimeoutError: it has not within the time.
        """
        if not process.ready([self._out.fileno()], timeout_s):
            message = f"the writer had not opened the replica within {timeout_s:g} s"
            raise TimeoutError(message)
        said = self._out.readline().decode()
        if said.strip() != READY:
            self._ended_by_itself(said, timeout_s)

    def run(self, timeout_s: float) -> str | None:
        """Let it write until some versions are accepted, and at a random moment are accepted still.

        Gives what is wrong with what arrived, or None.

        Raises:
            LeverRefused: the driver refused the writer something.
            ChildProcessError: it ended by itself.
            TimeoutError: too few arrived within the time.
        """
        cast("IO[bytes]", self._writer.stdin).write(b"!")
        cast("IO[bytes]", self._writer.stdin).flush()
        if wrong := self._write_on(WARM_VERSIONS, timeout_s):
            return wrong
        time.sleep(random.SystemRandom().uniform(0.0, SPREAD_S))
        # More than were in flight at that moment: what arrives last was queued after it, so the writer is at work.
        started_s = time.monotonic()
        wrong = self._write_on(self._last_accepted + MORE_VERSIONS, timeout_s)
        self._spacing_s = (time.monotonic() - started_s) / MORE_VERSIONS
        return wrong

    def _write_on(self, version: int, timeout_s: float) -> str | None:
        """Wait until this version, or a later one, is accepted."""
        deadline = time.monotonic() + timeout_s
        while self._last_accepted < version:
            if ended := self.reader.wait(0.005):
                if ended.how == "broken":
                    return f"the replica broke: {ended.problem}"
                self._ended_by_itself(self._out.read().decode(), timeout_s)
            if self.reader.refused:
                return f"{len(self._lags)} versions arrived whole and {self.reader.refused} did not"
            if time.monotonic() > deadline:
                message = f"version {self._last_accepted} arrived, and version {version} did not within {timeout_s:g} s"
                raise TimeoutError(message)
        return None

    def kill(self, timeout_s: float) -> Ended | None:
        """Kill the writer at a random moment of a version, and wait for the first one that is verified."""
        time.sleep(random.SystemRandom().uniform(0.0, min(SPREAD_S, self._spacing_s)))
        self._killed_s = time.monotonic()
        os.kill(self._writer.pid, signal.SIGKILL)
        ended = self.reader.wait(timeout_s)
        if ended and ended.version:
            self._first = self._wrong(ended.version)
            if self.reader.writer_is_gone(timeout_s):
                self._gone_s = time.monotonic() - self._killed_s
        return ended

    def verify_again(self, timeout_s: float, again_s: float = AGAIN_S) -> Kill:
        """What the kill showed, once the process is gone for good and some time after: queued work may outlive it.

        Raises:
            LeverRefused, ChildProcessError: it had ended by itself before it was killed: nothing was shown.
        """
        ended = cast("Ended", self.reader.ended)
        said = self._out.read().decode()
        if self._writer.wait(timeout_s) != -signal.SIGKILL or ended.noticed_s < self._killed_s or REFUSED in said:
            self._ended_by_itself(said, timeout_s)
        wrongs = [self._first, self._wrong_as(ended, "once the process was gone")]
        time.sleep(max(0.0, self._killed_s + again_s - time.monotonic()))
        wrongs.append(self._wrong_as(ended, f"{again_s:g} s after the kill"))
        return self._kill(ended, said, next(filter(None, wrongs), None))

    def close(self) -> None:
        """End both, and free the memory."""
        if self._writer.poll() is None:
            self._writer.kill()
        self._writer.wait(process.KILL_GRACE_S)
        for pipe in (self._writer.stdin, self._writer.stdout):
            cast("IO[bytes]", pipe).close()
        self._kernels.close()
        self.reader.close()

    def _ended_by_itself(self, said: str, timeout_s: float) -> NoReturn:
        _, refused, why = said.partition(REFUSED)
        if refused:
            code, _, detail = why.strip().partition("\t")
            raise LeverRefused(code, detail)
        message = f"the writer ended before it was killed (status {self._writer.wait(timeout_s)})"
        raise ChildProcessError(message)

    @property
    def _out(self) -> IO[bytes]:
        return cast("IO[bytes]", self._writer.stdout)

    def _heed(self, version: Version) -> None:
        self._lags.append(version.lag_s or 0.0)
        self._last_accepted = version.number

    def _wrong_as(self, ended: Ended, when: str) -> str | None:
        wrong = ended.version and self._wrong(ended.version)
        return f"{when}: {wrong}" if wrong else None

    def _wrong(self, version: Version) -> str | None:
        """What is wrong with a version by two instruments: its own checksum, and the pattern that it should be."""
        found = self._kernels.check(version.pointer, version.size, seed_of(self._seed, version.number))
        if found.wrong:
            return f"version {version.number} was accepted with {found.wrong} wrong words, the first at {found.first}"
        return None if self.reader.is_whole(version) else f"version {version.number} no longer has its checksum"

    def _kill(self, ended: Ended, said: str, wrong: str | None) -> Kill:
        published, acknowledged = _last(said)
        number = ended.version.number if ended.version else 0
        if ended.how != "died" or not ended.version:
            wrong = f"the replica ended as {ended.how}, with version {number}: {ended.problem}"
        elif ended.torn:
            wrong = f"{ended.torn} versions had their seal on, and not the bytes that it is of"
        elif number < self._last_accepted:
            wrong = f"version {self._last_accepted} had been accepted, and {number} was taken over"
        elif number < acknowledged:
            wrong = f"version {acknowledged} was whole on the reader's GPU, and {number} was taken over"
        elif published - number > SLOTS:
            wrong = f"version {number} was taken over, and {published} had been queued into {SLOTS} slots"
        elif self.reader.refused:
            wrong = f"{self.reader.refused} versions that the writer's GPU had called whole were not"
        return Kill(
            wrong=wrong,
            takeover_s=ended.verified_s - self._killed_s,
            detect_s=ended.noticed_s - self._killed_s,
            verify_s=ended.verified_s - ended.noticed_s,
            gone_s=self._gone_s,
            lag_s=statistics.median(self._lags),
            accepted=len(self._lags),
            version=number,
            published=published,
            acknowledged=acknowledged,
            unsealed=ended.unsealed,
            torn=ended.torn,
        )


def _last(said: str) -> tuple[int, int]:
    """The last version the writer said it had queued, and the last it knew to be whole."""
    lines = said.splitlines()
    published, acknowledged = lines[-1].split() if lines else ("0", "0")
    return int(published), int(acknowledged)
