"""What the commands that act share: what they work with, clearing up first, and how an end becomes an exit code."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

import click

from warmspare import state
from warmspare.cli.errors import Failed, Lost, Refused
from warmspare.cli.output import remark, say
from warmspare.cli.progress import Progress
from warmspare.cli.session import need_linux
from warmspare.control.checkpointer import Action, Checkpointer, CheckpointFailed, Done
from warmspare.control.vllm import BadUrl
from warmspare.model.facts import Proof
from warmspare.report.view import clean
from warmspare.runtime import engines
from warmspare.runtime.cards import Watch, cards
from warmspare.runtime.engines import Found
from warmspare.runtime.journal import Journal
from warmspare.runtime.operations import JournalFailed
from warmspare.runtime.outcomes import NotActed
from warmspare.runtime.recovery import recover
from warmspare.runtime.suspending import Options
from warmspare.runtime.unit import Tools
from warmspare.trials.api import StepEvent
from warmspare.trials.gpu_move import GpuMove
from warmspare.trials.gpu_suspend import GpuSuspend

SUSPEND: Final = (GpuSuspend,)
MOVE: Final = (GpuSuspend, GpuMove)


def act(pid: int, do: Callable[[Tools, Progress], str], *, mends: bool = False) -> int:
    """Clear up what was interrupted, then do it, and say the one line. `mends`: it may help a stranded process.

    Raises:
        Failed: it was refused or failed, and the processes are as they were.
        Lost: a process is lost or stranded; the line names it.
    """
    progress = Progress()
    with failing(progress), tools(progress) as given:
        for found in recover(given):
            if found.concerns(pid) and found.is_harm and not (mends and found.outcome == "stranded"):
                why = f"nothing was begun: {found.sentence}"
                raise NotActed(why, "lost")
        line = do(given, progress)
    say(f"{clean(line)}\n")
    return 0


def whom(pid: int | None, url: str | None) -> tuple[int, Found | None]:
    """The process that is meant, and the engine that it is if that was named.

    Raises:
        UsageError: both were named, or neither.
        Refused: the address is none.
        Failed: nobody of this machine listens there.
    """
    if pid is not None and url is None:
        return pid, None
    if url is None or pid is not None:
        message = "name either a process by PID or an engine by --engine URL"
        raise click.UsageError(message, click.get_current_context(silent=True))
    need_linux()
    try:
        found = engines.found(url)
    except BadUrl as bad:
        message = f"--engine {url}: {bad}"
        raise Refused(message) from bad
    except NotActed as failure:
        raise Failed(str(failure)) from failure
    return found.pid, found


@contextlib.contextmanager
def tools(progress: Progress) -> Iterator[Tools]:
    """What an act works with."""
    need_linux()

    def shown(action: Action, pid: int, end: Done | CheckpointFailed | None) -> None:
        took_s = None if end is None else end.took_s if isinstance(end, Done) else 0.0
        progress.step(StepEvent(name=f"{action} {pid}", lever=True, took_s=took_s))

    def told(text: str) -> None:
        progress.done()
        remark(text)

    with Journal.opened(state.folder()) as journal, Checkpointer() as levers, Watch() as host:
        yield Tools(journal, levers, lambda: cards(host), told, shown, host)


@contextlib.contextmanager
def failing(progress: Progress) -> Iterator[None]:
    """What goes wrong in here becomes one line and an exit code."""
    try:
        yield
    except NotActed as failure:
        raise (Lost if failure.is_harm else Failed)(str(failure)) from failure
    except (JournalFailed, CheckpointFailed) as failure:
        raise Failed(str(failure)) from failure
    finally:
        progress.done()


def options(
    wanted: tuple[type[Proof], ...], given: Tools, progress: Progress, *, force: bool, lock_s: float
) -> Options:
    """Options of an act that wants these proofs."""

    def proven(gpus: tuple[str, ...]) -> None:
        if not force:
            from warmspare.runtime import proofs  # noqa: PLC0415 # it brings every probe, trial and track

            for text in proofs.proven(wanted, gpus, progress):
                given.say(text)
            progress.done()

    return Options(force=force, lock_s=lock_s, proven=proven)
