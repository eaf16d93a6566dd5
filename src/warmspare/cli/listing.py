"""The work behind `warmspare ps`: the table, its JSON, and what is left of earlier commands."""

from __future__ import annotations

import os
from typing import Final, Literal

import msgspec

from warmspare import state
from warmspare.cli.output import remark, say
from warmspare.cli.session import need_linux
from warmspare.control.checkpointer import Checkpointer
from warmspare.report.view import clean
from warmspare.runtime.cards import Watch, cards
from warmspare.runtime.journal import Journal
from warmspare.runtime.operations import Act, JournalFailed, Operation
from warmspare.runtime.outcomes import called
from warmspare.runtime.processes import CudaProcess, processes

HEADS: Final = ("PID", "USER", "STATE", "GPU MEMORY", "CHANCE", "NAME")


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """An operation that is not, or not well, at its end, and the command that goes on with it."""

    kind: Literal["under way", "interrupted", "stranded"]
    action: Act
    pid: int
    begun_at: str
    told: str
    command: str


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """All that is shown."""

    processes: tuple[CudaProcess, ...]
    operations: tuple[Left, ...]


def show(*, as_json: bool) -> int:
    """Print it."""
    need_linux()
    with Checkpointer() as levers, Watch() as host:
        found = Listing(processes=processes(levers, cards(host), os.getpid()), operations=_left())
    if as_json:
        say(f"{msgspec.json.format(msgspec.json.encode(found)).decode()}\n")
    else:
        say(text(found))
    return 0


def text(found: Listing) -> str:
    """The table, and a line for each operation that is left."""
    lines = _table(found.processes) if found.processes else ["no CUDA process is seen"]
    for one in found.operations:
        goes_on = f"; {one.told or 'the next command clears it up'}: {one.command}" if one.command else ""
        lines.append(f"{one.kind}: {one.action} of {one.pid}, begun {one.begun_at}{goes_on}")
    return "".join(f"{clean(line)}\n" for line in lines)


def _table(shown: tuple[CudaProcess, ...]) -> list[str]:
    rows = [HEADS, *(_row(one) for one in shown)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(HEADS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    told: list[str] = [lines[0]]
    for one, line in zip(shown, lines[1:], strict=True):
        told.append(line)
        told.append(f"    {one.chance}: {one.why}")
        if one.silent:
            told.append(f"    {one.silent}")
    return told


def _row(one: CudaProcess) -> tuple[str, ...]:
    if one.vram_mib is None:
        memory = "unknown"
    else:
        memory = ", ".join(f"{gpu} {mib} MiB" for gpu, mib in sorted(one.vram_mib.items())) or "none"
    return (str(one.pid), one.user, one.state or "unknown", memory, one.chance, one.name)


def _left() -> tuple[Left, ...]:
    try:
        with Journal.opened(state.folder()) as journal:
            return (
                *(_of("under way", one, "") for one in journal.under_way()),
                *(_of("interrupted", one, f"warmspare resume {one.pid}") for one in journal.interrupted()),
                *(_of("stranded", one, f"warmspare resume {one.pid}") for one in journal.stranded()),
            )
    except JournalFailed as failed:
        remark(str(failed))
        return ()


def _of(kind: Literal["under way", "interrupted", "stranded"], one: Operation, command: str) -> Left:
    told = one.told or ""
    whom = called(one.targets[0])
    return Left(kind=kind, action=one.action, pid=one.pid, begun_at=one.begun_at, told=told or whom, command=command)
