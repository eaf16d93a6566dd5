"""How an act ends, in words for the user and for the exit code."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from warmspare.control import cuda_abi as abi
from warmspare.control.checkpointer import CheckpointFailed
from warmspare.control.target import Target
from warmspare.runtime.operations import Operation, Outcome

End = Literal["refused", "failed", "undone", "lost", "stranded"]
REMEDIES: Final = {
    ("lock", abi.NOT_READY): "its GPU work did not end in time; give it longer with --timeout",
    ("checkpoint", abi.NOT_SUPPORTED): "it holds what this driver cannot move, such as managed memory or CUDA IPC",
    ("checkpoint", abi.OUT_OF_MEMORY): "the host has too little memory for it",
    ("restore", abi.OUT_OF_MEMORY): "too little GPU memory was free",
}
"""What a refusal of the driver's means, by the call. Source: cuda.h; our own runs."""


class NotActed(Exception):
    """What was asked for was not done; the message is one line, and `end` says what became of the processes.

    After `refused`, `failed` and `undone` they are as they were.
    """

    def __init__(self, sentence: str, end: End) -> None:
        """Carry both."""
        super().__init__(sentence)
        self.end = end

    @property
    def is_harm(self) -> bool:
        """Whether a process is lost or stranded."""
        return self.end in ("lost", "stranded")


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an operation whose controller had been killed, as the driver says now."""

    operation: Operation
    outcome: Outcome
    sentence: str

    @property
    def is_harm(self) -> bool:
        """Whether a process is lost or stranded."""
        return self.outcome in ("lost", "stranded")

    def concerns(self, pid: int) -> bool:
        """Whether this process was part of it."""
        return any(one.pid == pid for one in self.operation.targets)


def called(one: Target) -> str:
    """How a process is named to the user."""
    return f"process {one.pid} ({one.name})"


def reason(failed: CheckpointFailed) -> str:
    """What failed, with what it means where that is known."""
    meaning = REMEDIES.get((failed.action, failed.result or 0))
    said = f"{failed.action} of {failed.pid} {_HOW[failed.how]}: {failed}"
    return f"{said} ({meaning})" if meaning else said


_HOW: Final = {"refused": "was refused", "hung": "hung", "died": "died", "wrong": "did not do it"}
