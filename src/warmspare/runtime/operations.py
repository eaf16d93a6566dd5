"""What the journal holds: operations, their driver calls, and where their pids mean what they say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal, Self

import msgspec

from warmspare.control.target import Target

Act = Literal["suspend", "resume", "move", "checkpoint", "restore"]
Outcome = Literal["done", "undone", "failed", "lost", "stranded"]
VERSION: Final = 1
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS operations (
  id INTEGER PRIMARY KEY AUTOINCREMENT, action TEXT NOT NULL, targets BLOB NOT NULL, cuda BLOB NOT NULL,
  detail BLOB NOT NULL, machine TEXT NOT NULL, boot TEXT NOT NULL, namespace TEXT NOT NULL, controller INTEGER NOT NULL,
  begun_at TEXT NOT NULL, stage TEXT, outcome TEXT, told TEXT, ended_at TEXT);
CREATE TABLE IF NOT EXISTS steps (
  id INTEGER PRIMARY KEY AUTOINCREMENT, operation INTEGER NOT NULL REFERENCES operations (id), action TEXT NOT NULL,
  pid INTEGER NOT NULL, begun_at TEXT NOT NULL, ended TEXT, took_s REAL, state TEXT);
CREATE INDEX IF NOT EXISTS steps_of ON steps (operation);
"""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One driver call. `ended`: None while it is not known how, "done", or the code that it failed with."""

    action: str
    pid: int
    ended: str | None
    took_s: float | None
    state: str | None


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What was to be done to a tree of processes, and how far that came.

    `targets` is the whole tree, `cuda` the pids in it that the driver is called for. `rebooted`: the machine has
    been restarted since, and no process of then is there any more.
    """

    id: int
    action: Act
    targets: tuple[Target, ...]
    cuda: tuple[int, ...]
    detail: dict[str, str]
    rebooted: bool
    controller: int
    begun_at: str
    stage: str | None
    outcome: Outcome | None
    told: str | None
    steps: tuple[Step, ...]

    @property
    def pid(self) -> int:
        """The process that the operation was asked for."""
        return self.targets[0].pid

    def touched(self, pid: int) -> bool:
        """Whether a driver call about this process was begun."""
        return any(step.pid == pid for step in self.steps)

    def was_under_way(self, pid: int) -> bool:
        """Whether one was begun, and nobody wrote down how it ended."""
        return any(step.pid == pid and step.ended is None for step in self.steps)


class Place(msgspec.Struct, frozen=True):
    """Where a pid means what it says: a machine, one boot of it, and a pid namespace."""

    machine: str
    boot: str
    namespace: str

    @classmethod
    def here(cls) -> Self:
        """This process's own.

        Source: machine-id(5), random(4), pid_namespaces(7).
        """
        return cls(
            _text("/etc/machine-id") or os.uname().nodename,
            _text("/proc/sys/kernel/random/boot_id"),
            str(Path("/proc/self/ns/pid").readlink()),
        )


class JournalFailed(Exception):
    """The journal cannot be read or written; the message is one line that says why."""


class Busy(Exception):
    """Another operation on one of these processes is under way, or was interrupted and is not cleared up."""

    def __init__(self, other: Operation, *, lives: bool) -> None:
        """Carry the other operation; `lives`: its controller is at work."""
        super().__init__(f"{other.action} of {other.targets[0].pid}" if other.targets else other.action)
        self.other, self.lives = other, lives


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""
