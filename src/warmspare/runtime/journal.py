"""The journal of what is done to processes: intents and outcomes, each on disk before the next thing is done.

A controller may be killed at any instruction. What it meant to do, and how far it came, then stands here: an
operation without an outcome whose lock nobody holds was interrupted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec

from warmspare.control.checkpointer import Action, CheckpointFailed, Done
from warmspare.control.target import Target
from warmspare.runtime.operations import Act, Busy, JournalFailed, Operation, Outcome
from warmspare.runtime.store import Store, keys, now


class Journal:
    """The journal of one state folder; all who use that folder share it. A context manager."""

    def __init__(self, store: Store) -> None:
        """Use `opened`."""
        self._store = store

    @classmethod
    def opened(cls, folder: Path) -> Self:
        """Open the folder's journal; it is made at its first use, for its owner alone.

        Raises:
            JournalFailed: the folder is not ours alone, the file cannot be had, or a newer version wrote it.
        """
        return cls(Store(folder))

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._store.close()

    def begin(self, action: Act, targets: Sequence[Target], cuda: Sequence[int], **detail: str) -> Entry:
        """Write down what is about to be done; it is on disk when this returns. Enter the entry to hold it.

        Raises:
            Busy: an operation on one of these processes has no outcome yet.
            JournalFailed: nothing can be written; nothing was done.
        """
        with self._store.alone():
            for other in self._open():
                if not other.rebooted and keys(other.targets) & keys(tuple(targets)):
                    raise Busy(other, lives=self._store.is_held(other.id))
            place = self._store.place
            number = self._store.write(
                "INSERT INTO operations (action, targets, cuda, detail, machine, boot, namespace, controller, begun_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                *(action, *(msgspec.json.encode(value) for value in (tuple(targets), tuple(cuda), detail))),
                *(place.machine, place.boot, place.namespace, os.getpid(), now()),
            )
            # Before anybody can see the row: one without a holder would look interrupted.
            lock = self._store.lock(number)
            if lock is None:
                message = f"the lock of operation {number} is held by another process; try again"
                raise JournalFailed(message)
        return Entry(self._store, number, lock)

    def interrupted(self) -> tuple[Operation, ...]:
        """Operations whose controller ended before it could say how they ended; the oldest first.

        Raises:
            JournalFailed: it cannot be read.
        """
        return tuple(one for one in self._open() if not self._store.is_held(one.id))

    def under_way(self) -> tuple[Operation, ...]:
        """Operations whose controller is at work.

        Raises:
            JournalFailed: it cannot be read.
        """
        return tuple(one for one in self._open() if self._store.is_held(one.id))

    def last_of(self, target: Target) -> Operation | None:
        """The newest operation of this boot on this very process that has an outcome.

        Raises:
            JournalFailed: it cannot be read.
        """
        return next((one for one in reversed(self._ended()) if keys((target,)) & keys(one.targets)), None)

    def last_with(self, target: Target, detail: str) -> Operation | None:
        """The newest of them that has this detail.

        Raises:
            JournalFailed: it cannot be read.
        """
        of_it = (one for one in reversed(self._ended()) if keys((target,)) & keys(one.targets))
        return next((one for one in of_it if detail in one.detail), None)

    def stranded(self) -> tuple[Operation, ...]:
        """Operations that left processes stranded, and after which none came that touched them.

        Raises:
            JournalFailed: it cannot be read.
        """
        ended = self._ended()
        newest = {key: one.id for one in ended for key in keys(one.targets)}
        left = [one for one in ended if one.outcome == "stranded"]
        return tuple(one for one in left if any(newest[key] == one.id for key in keys(one.targets)))

    def taken_over(self, operation: Operation) -> Entry | None:
        """The entry of an interrupted operation, to be ended by us; None if another process is at it or has ended it.

        Raises:
            JournalFailed: it cannot be read.
        """
        lock = self._store.lock(operation.id)
        if lock is None:
            return None
        entry = Entry(self._store, operation.id, lock)
        if entry.operation().outcome is None:
            return entry
        with entry:
            self._store.drop(operation.id)
        return None

    def _open(self) -> list[Operation]:
        return self._store.operations("outcome IS NULL")

    def _ended(self) -> list[Operation]:
        return self._store.operations("outcome IS NOT NULL AND boot = ?", self._store.place.boot)


class Entry:
    """One operation under way; left without an `end` it counts as interrupted, and the next command clears it up."""

    def __init__(self, store: Store, number: int, lock: int) -> None:
        """Use `Journal.begin`."""
        self.id, self._store, self._lock = number, store, lock

    def __enter__(self) -> Self:
        """Hold it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of it."""
        os.close(self._lock)

    def operation(self) -> Operation:
        """All that is written of it.

        Raises:
            JournalFailed: it cannot be read.
        """
        return self._store.operations("id = ?", self.id)[0]

    def tell(self, action: Action, pid: int, end: Done | CheckpointFailed | None) -> None:
        """Write down a driver call before it is made, and how it ended: fits `together.Tell`.

        Raises:
            JournalFailed: it cannot be written; before a call, the call must not be made.
        """
        if end is None:
            sql = "INSERT INTO steps (operation, action, pid, begun_at) VALUES (?, ?, ?, ?)"
            self._store.write(sql, self.id, action, pid, now())
            return
        ended, took_s = ("done", end.took_s) if isinstance(end, Done) else (end.code, None)
        self._store.write(
            "UPDATE steps SET ended = ?, took_s = ?, state = ? WHERE id ="
            " (SELECT MAX(id) FROM steps WHERE operation = ? AND action = ? AND pid = ?)",
            *(ended, took_s, end.state, self.id, action, pid),
        )

    def stage(self, name: str) -> None:
        """Write down how far it has come.

        Raises:
            JournalFailed: it cannot be written.
        """
        self._store.write("UPDATE operations SET stage = ? WHERE id = ?", name, self.id)

    def note(self, **detail: str) -> None:
        """Add to its details what is known only now.

        Raises:
            JournalFailed: it cannot be written.
        """
        whole = msgspec.json.encode({**self.operation().detail, **detail})
        self._store.write("UPDATE operations SET detail = ? WHERE id = ?", whole, self.id)

    def end(self, outcome: Outcome, told: str = "") -> None:
        """Write down how it ended, in the words that the user was told.

        Raises:
            JournalFailed: it cannot be written.
        """
        sql = "UPDATE operations SET outcome = ?, told = ?, ended_at = ? WHERE id = ?"
        self._store.write(sql, outcome, told, now(), self.id)
        self._store.drop(self.id)
