"""A program's own process: it does what it is told on its standard input, and answers on a pipe.

Once told to stay it never ends by itself: the end of a process that the driver has restored must be a gentle one, and
is its keeper's business.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Any, Final, Literal, TypeAlias

import msgspec

from warmspare.control.lever import LeverRefused
from warmspare.model.facts import Cause
from warmspare.trials.api import NotTried
from warmspare.trials.workloads.api import Place, Program, of_kind
from warmspare.trials.workloads.running import Answer

Order: TypeAlias = Literal["begin", "join", "act", "problem", "damage", "stay"]
LONGEST: Final = 300


class Begun(msgspec.Struct, frozen=True):
    """What a program says once it has begun: the pids of its CUDA processes, and what it offers the others, in hex."""

    pids: tuple[int, ...]
    offer: str


class _Told(msgspec.Struct, frozen=True):
    do: Order
    arguments: tuple[Any, ...] = ()


class Server:
    """The program, and whether it may end."""

    def __init__(self, kind: type[Program]) -> None:
        """It begins when it is told."""
        self._kind = kind
        self._program: Program | None = None
        self.stays = False

    def answer(self, line: bytes) -> Answer:
        """Carry out one order."""
        try:
            told = msgspec.json.decode(line, type=_Told)
            return Answer("done", result=self._done(told.do, told.arguments))
        except LeverRefused as refusal:
            return Answer("refused", refusal.code, refusal.detail[:LONGEST])
        except NotTried as absent:
            return Answer("absent", absent.cause, str(absent)[:LONGEST])
        except Exception as error:  # noqa: BLE001 # it must not end by a fault of ours, and the fault is told
            return Answer("absent", Cause.CRASHED, f"{type(error).__name__}: {error}"[:LONGEST])

    def _done(self, do: Order, arguments: tuple[Any, ...]) -> object:
        if do == "begin":
            self._program = self._kind(msgspec.convert(arguments[0], Place))
            return msgspec.to_builtins(Begun(self._program.pids, self._program.offer.hex()))
        if self._program is None:
            raise NotTried(Cause.CRASHED, f"told to {do} before it began")
        match do:
            case "join":
                self._program.join(bytes.fromhex(arguments[0]))
            case "act":
                self._program.act(arguments[0])
            case "problem":
                return self._program.problem()
            case "damage":
                self._program.damage()
            case "stay":
                self._program.stay()
                self.stays = True
        return None


def serve(kind: str, told: int) -> None:
    """Carry out orders until there are no more; then end, or stay until somebody ends it."""
    server = Server(of_kind(kind).program)
    for line in sys.stdin.buffer:
        answer = msgspec.json.encode(server.answer(line)) + b"\n"
        with contextlib.suppress(BrokenPipeError):
            os.write(told, answer)
    while server.stays:
        signal.pause()
