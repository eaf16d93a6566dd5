"""The journal's file, and the locks beside it that say which operations have a living controller.

Source: sqlite.org, wal.html and pragma.html (synchronous); flock(2).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from warmspare import state
from warmspare.control.target import Target
from warmspare.runtime.operations import SCHEMA, VERSION, JournalFailed, Operation, Place

FILE: Final = "journal.sqlite"
COLUMNS: Final = (
    "id", "action", "targets", "cuda", "detail", "machine", "boot", "namespace", "controller", "begun_at", "stage",
    "outcome", "told",
)  # fmt: skip
WAIT_S: Final = 10.0
"""How long another writer is waited for."""
OWN: Final = 0o600


class Store:
    """The file and the locks of one state folder. Everything that goes wrong with them is a JournalFailed."""

    def __init__(self, folder: Path) -> None:
        """Open it; it is made at its first use, for its owner alone.

        Raises:
            JournalFailed: the folder is not ours alone, the file cannot be had, or a newer version wrote it.
        """
        self._folder, self.place = folder, Place.here()
        with self.failing():
            state.own(folder)
            # The write-ahead files get the permissions of this one.
            os.close(os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, OWN))
            self._connection = sqlite3.connect(folder / FILE, timeout=WAIT_S, isolation_level=None)
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        with self.failing():
            # One at a time: two that turn a new file into a write-ahead one do not wait for each other.
            with self._holding("journal.lock"):
                self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if version < VERSION:
                self._connection.executescript(f"BEGIN IMMEDIATE;{SCHEMA}PRAGMA user_version = {VERSION};COMMIT;")
        if version > VERSION:
            message = f"the journal {self._folder / FILE} was written by a newer warmspare; use that one"
            raise JournalFailed(message)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def write(self, sql: str, *values: object) -> int:
        """Every write goes through here, and is on disk when it returns; gives the number of a row that was added."""
        with self.failing():
            return self._connection.execute(sql, values).lastrowid or 0

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """A transaction that no other writer comes into."""
        with self.failing():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def operations(self, where: str, *values: object) -> list[Operation]:
        """The operations of this machine and pid namespace for which `where` holds, the oldest first."""
        with self.failing():
            sql = f"SELECT {', '.join(COLUMNS)} FROM operations WHERE {where} ORDER BY id"  # noqa: S608 # our own words
            rows = [dict(zip(COLUMNS, row, strict=True)) for row in self._connection.execute(sql, values).fetchall()]
            return [self._operation(row) for row in rows if self._is_ours(row)]

    def _is_ours(self, row: dict[str, Any]) -> bool:
        """Of this machine; and where its pids still mean anything, of this pid namespace."""
        if row["machine"] != self.place.machine:
            return False
        return bool(row["boot"] != self.place.boot or row["namespace"] == self.place.namespace)

    def _operation(self, row: dict[str, Any]) -> Operation:
        sql = "SELECT action, pid, ended, took_s, state FROM steps WHERE operation = ? ORDER BY id"
        names = ("action", "pid", "ended", "took_s", "state")
        steps = [dict(zip(names, step, strict=True)) for step in self._connection.execute(sql, (row["id"],))]
        parsed = {name: msgspec.json.decode(row[name]) for name in ("targets", "cuda", "detail")}
        rebooted = row["boot"] != self.place.boot
        return msgspec.convert({**row, **parsed, "rebooted": rebooted, "steps": steps}, Operation)

    def lock(self, number: int) -> int | None:
        """Hold an operation's lock; None if another process does. It is not passed on to programs that we start."""
        descriptor = self._opened(self._name(number))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def is_held(self, number: int) -> bool:
        """Whether a process holds an operation's lock; the kernel drops a lock with its holder."""
        try:
            descriptor = os.open(self._folder / self._name(number), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._failed(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def drop(self, number: int) -> None:
        """Remove the file of a lock that nobody needs any more."""
        with self.failing():
            (self._folder / self._name(number)).unlink(missing_ok=True)

    @staticmethod
    def _name(number: int) -> str:
        return f"operation-{number}.lock"

    def _opened(self, name: str) -> int:
        with self.failing():
            return os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, OWN)

    @contextlib.contextmanager
    def _holding(self, name: str) -> Iterator[None]:
        descriptor = self._opened(name)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """What goes wrong in here is a JournalFailed."""
        try:
            yield
        except (OSError, sqlite3.Error, msgspec.MsgspecError) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> JournalFailed:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return JournalFailed(f"the journal {self._folder / FILE} cannot be used: {reason}")


def now() -> str:
    """The time as the journal writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def keys(targets: tuple[Target, ...]) -> set[tuple[int, int]]:
    """What tells processes apart: the number and the start time."""
    return {(one.pid, one.started) for one in targets}
