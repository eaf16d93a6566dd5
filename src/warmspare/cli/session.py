"""The work that commands share: choose trials, survey, load, judge, print, keep."""

from __future__ import annotations

import functools
import os
import stat
import sys
from pathlib import Path

import msgspec

from warmspare import catalogue, state
from warmspare import survey as surveys
from warmspare.cli.errors import Refused
from warmspare.cli.output import STANDARD, Sinks, colour, remark, say, width
from warmspare.cli.progress import Progress
from warmspare.control.files import Unwritable
from warmspare.judge import judge
from warmspare.model.requirements import Rule
from warmspare.model.snapshot import SIZE_LIMIT, BadSnapshot, Reader, Snapshot
from warmspare.model.verdicts import EXIT_CODES
from warmspare.report import json, markdown, terminal
from warmspare.report.view import view
from warmspare.survey import Survey
from warmspare.tracks.api import Remedy
from warmspare.trials.api import Trial
from warmspare.trials.given import May


@functools.cache
def tracks() -> catalogue.Tracks:
    """All tracks, found once a process."""
    return catalogue.tracks()


@functools.cache
def _wording() -> tuple[dict[str, Rule], dict[str, Remedy]]:
    """All rules and remedies by id, found once a process."""
    return catalogue.rules(tracks()), catalogue.remedies()


@functools.cache
def reader() -> Reader:
    """The snapshot reader, made once a process."""
    return Reader(catalogue.facts())


class Extent(msgspec.Struct, frozen=True, kw_only=True):
    """What may be tried: `quick` trials only, `full` or by the tracks asked for; and what those may do."""

    extent: str | None
    no_trials: bool
    may: May


def survey(asked: tuple[str, ...], tried: Extent, *, redacted: bool, verbose: bool) -> Survey:
    """Survey this machine with the trials that `asked` and the options call for."""
    need_linux()
    chosen = () if tried.no_trials else _chosen(asked, tried.extent)
    skipped = "--no-trials" if tried.no_trials else "not among the trials asked for; name its track, or use --full"
    progress = Progress(verbose=verbose)
    try:
        return surveys.take(chosen, skipped, progress, tried.may, redacted=redacted)
    finally:
        progress.done()


def need_linux() -> None:
    """Refuse to look at a machine that is no Linux host."""
    if sys.platform != "linux":
        message = "warmspare looks at Linux hosts; on Windows run it inside WSL2, or judge a snapshot"
        raise Refused(message)


def _chosen(asked: tuple[str, ...], extent: str | None) -> tuple[Trial, ...]:
    known = catalogue.trials()
    if extent == "full" and not asked:
        return known
    wanted = {t.name for name in asked or tracks() for t in catalogue.trials_of(tracks()[name][1], known)}
    quick_only = extent == "quick" or (not asked and extent is None)
    return tuple(t for t in known if t.name in wanted and (t.quick or not quick_only))


def report(snapshot: Snapshot, asked: tuple[str, ...], targets: Sinks, *, verbose: bool, brief: bool = False) -> int:
    """Judge `snapshot`, print and write it in every format asked for; returns the exit code."""
    judgement = judge(snapshot.readings, {name: tracks()[name] for name in asked or tracks()})
    headlines_only = brief and not ("json" in targets or "md" in targets)
    seen = view(snapshot, judgement, *_wording(), brief=headlines_only)
    if not targets.standard:
        say(terminal.render(seen, width=width(), colour=colour(), verbose=verbose, brief=brief))
    if "json" in targets:
        targets.write("json", json.render(seen, judgement))
    if "md" in targets:
        targets.write("md", markdown.render(seen))
    return judgement.exit_code


def keep(survey: Survey) -> None:
    """Keep the proofs; name what could not be cleared away. Neither changes the verdict."""
    for thing in survey.left:
        remark(f"could not be cleared away and was left: {thing}")
    try:
        state.store(survey.redacted, reader(), state.folder())
    except Unwritable as error:
        remark(f"the proofs were not kept: {error}")
    except OSError as error:
        remark(f"the proofs were not kept: {error.strerror or error}: {error.filename or state.folder()}")


def load(name: str) -> Snapshot:
    """Read a snapshot file.

    Raises:
        Refused: it cannot be read, or is no snapshot; one line says why.
    """
    try:
        return reader().read(contents(name))
    except (OSError, BadSnapshot) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        said = str(reason).encode("ascii", "backslashreplace").decode()
        message = f"{name}: {said}; name a file that `warmspare snapshot -o FILE` wrote"
        raise Refused(message) from None


def contents(name: str) -> bytes:
    """The bytes of a file that somebody named, or of standard input; never more than one over the limit.

    Raises:
        OSError, BadSnapshot: it cannot be read, or is a device or a pipe.
    """
    if name == STANDARD:
        return sys.stdin.buffer.read(SIZE_LIMIT + 1)
    descriptor = os.open(Path(name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            message = "not a regular file"
            raise BadSnapshot(message)
        return file.read(SIZE_LIMIT + 1)


def worse(one: int, other: int) -> int:
    """The exit code of the worse verdict."""
    return max(one, other, key=EXIT_CODES.index)
