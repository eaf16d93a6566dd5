"""The work behind `warmspare baseline`: measure, keep, compare, and the table that shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from warmspare import runs, state, survey
from warmspare.cli import session
from warmspare.cli.errors import Failed
from warmspare.cli.output import STANDARD, Sinks, remark, say
from warmspare.cli.progress import Progress
from warmspare.control.files import Unwritable
from warmspare.model.facts import Known, Readings
from warmspare.model.snapshot import BadSnapshot
from warmspare.probes.gpus import Gpus
from warmspare.probes.kernel import Kernel
from warmspare.probes.platform import Container, Platform
from warmspare.report.view import clean
from warmspare.trials import host_speed as measuring
from warmspare.trials import leftover
from warmspare.trials.api import at_place
from warmspare.trials.run import run
from warmspare.trials.speed import Pair, SpeedRun, geometric_mean, moved, pairs, within

TRIAL: Final = f"{measuring.__name__}:{measuring.host_speed.__name__}"
NO_KEY: Final = (
    "nothing proves which machine this is: no GPU names its UUID here; run it where the NVIDIA driver answers"
    " (nvidia-smi -L)"
)
T = TypeVar("T")


def save(output: str | None) -> int:
    """Measure and keep; says what the run may be called.

    Raises:
        Failed: this machine has no key, could not be measured, or the run could not be kept.
        Refused: the file cannot be written.
    """
    target = Sinks({"run": output})
    readings, key = _here()
    if output is None:
        _try_to_keep(lambda: state.own(state.folder()))  # told now, and not after the work
    made = _measured(readings, key)
    path = "standard output" if output == STANDARD else output
    if output is None:
        path = str(_try_to_keep(lambda: runs.store(made, state.folder())))
    else:
        target.write("run", runs.encode(made).decode())
    not_native = "" if made.is_native else "; it is not native, so nothing can be told of bare metal by it"
    said = f"a run that is {made.called}, of the machine {made.key}, with {len(made.speed.measures)} figures: {path}"
    (remark if output == STANDARD else _line)(f"saved {said}{not_native}")
    return 0


def compare(name: str | None) -> int:
    """Measure again and print the table.

    Raises:
        Failed: there is nothing to compare with, it is another machine's, or this one could not be measured.
    """
    readings, key = _here()
    stored = _stored(key) if name is None else _read(name)
    if stored.key != key:
        message = f"the stored run is of the machine {stored.key}, and this is {key}: name a run of this very machine"
        raise Failed(message)
    now = _measured(readings, key)
    say(table(stored, now))
    if name is not None and stored.is_native:
        remark(_kept_if_newer(stored))
    return 0


def _kept_if_newer(run: SpeedRun) -> str:
    """Keep a native run of a file, unless a newer one is kept; what is said of it: which one check will use."""
    try:
        before = runs.kept(run.key, state.folder(), native=True)
    except (OSError, runs.BadRun):  # one that nobody can use is no loss; a folder that is not ours refuses below
        before = None
    if before and before.at >= run.at:
        which = "the same" if before == run else f"not this file's, of {_date(run)}"
        return f"check states the fraction of the native run that was kept, of {_date(before)}: {which}"
    try:
        path = _try_to_keep(lambda: runs.store(run, state.folder()))
    except Failed as failed:  # the comparison itself was made
        return failed.message
    instead = f", in place of that of {_date(before)}" if before else ""
    return f"kept, so that check states the fraction of this native run too, of {_date(run)}{instead}: {path}"


def _date(run: SpeedRun) -> str:
    return f"{run.at:%Y-%m-%d %H:%M} UTC"


def table(stored: SpeedRun, now: SpeedRun) -> str:
    """Every figure then and now, the ratio of each, their geometric mean, and what it rests on.

    A ratio above 1 is better now, whichever way the unit goes.
    """
    found = pairs(stored.speed, now.speed)
    rows = [("figure", "unit", "stored", "now", "ratio"), *map(_row, found)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = [_boot("stored", stored), _boot("now", now), ""]
    for row in rows:
        words = [cell.ljust(w) if n < 2 else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))]  # noqa: PLR2004 # names are text, and the rest numbers
        lines.append("  ".join(words).rstrip())
    lines += ["", _verdict(stored, found)]
    lines += [f"{title}: {', '.join(within(one.speed)) or 'nothing to set against each other'}" for title, one in
              (("within the stored host", stored), ("within this host", now))]  # fmt: skip
    lines += [f"not compared: {p} was {then}, and is {today}" for p, then, today in moved(stored.speed, now.speed)]
    if stored.speed.software != now.speed.software:
        lines.append(f"other software: {stored.speed.software} then, {now.speed.software} now")
    lines += [f"not measured now: {lack}" for lack in now.speed.lacking]
    return "\n".join(map(clean, lines)) + "\n"


def _row(pair: Pair) -> tuple[str, str, str, str, str]:
    return pair.now.name, pair.now.unit, pair.stored.number, pair.now.number, f"{pair.ratio:.2f}"


def _boot(title: str, one: SpeedRun) -> str:
    return (
        f"{title}: {one.called}, machine {one.key}, kernel {one.kernel or 'unknown'}, {one.speed.threads} CPUs,"
        f" {_date(one)}"
    )


def _verdict(stored: SpeedRun, found: tuple[Pair, ...]) -> str:
    if not found:
        return "the two runs share no figure: no ratio is stated"
    of = "bare metal" if stored.is_native else f"the stored {stored.called} run; nothing is said of bare metal"
    return f"{geometric_mean(found):.2f} of {of} (geometric mean of {len(found)} figures, machine {stored.key})"


def _here() -> tuple[Readings, str]:
    """What must be known of this machine before it is measured, and its key.

    Raises:
        Failed: it has no key.
    """
    session.need_linux()
    progress = Progress()
    try:
        readings = survey.glance({Gpus, Platform, Container, Kernel}, progress)
    finally:
        progress.done()
    if (key := runs.key_of(readings)) is None:
        raise Failed(NO_KEY)
    return readings, key


def _measured(readings: Readings, key: str) -> SpeedRun:
    progress, trial = Progress(), at_place(TRIAL)
    try:
        left = list(leftover.sweep_stale())
        progress.trying(trial)
        ended = run(trial, progress.step)
    finally:
        progress.done()
    for thing in (*left, *ended.left):
        remark(f"could not be cleared away and was left: {thing}")
    reading = ended.reading
    if not isinstance(reading, Known):
        message = (
            f"this host could not be measured ({reading.cause}): {reading.detail}; free what it names and try again"
        )
        raise Failed(message)
    speed = reading.value
    if not isinstance(speed, measuring.HostSpeed) or speed.outcome.kind != "done" or not speed.measures:
        outcome = speed.outcome
        message = f"measuring ended: {outcome.kind} at {outcome.step} ({outcome.code}): {outcome.detail}; try again"
        raise Failed(message)
    return runs.made(readings, key, speed, reading.at)


def _try_to_keep(keep: Callable[[], T]) -> T:
    try:
        return keep()
    except (OSError, Unwritable) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        where = state.folder()
        message = f"the run could not be kept in {where}: {reason}; set WARMSPARE_STATE_DIR, or write it with -o FILE"
        raise Failed(message) from None


def _stored(key: str) -> SpeedRun:
    where = state.folder()
    try:
        found = runs.kept(key, where, native=True) or runs.kept(key, where, native=False)
    except (OSError, runs.BadRun) as error:
        message = f"the run kept in {where} cannot be used: {error}; save it again, or name a FILE"
        raise Failed(message) from None
    if found is None:
        message = f"no run of this machine ({key}) is kept in {where}: name a FILE, or run warmspare baseline save"
        raise Failed(message)
    return found


def _read(name: str) -> SpeedRun:
    try:
        return runs.decode(session.contents(name))
    except (OSError, BadSnapshot, runs.BadRun) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        said = str(reason).encode("ascii", "backslashreplace").decode()
        message = f"{name}: {said}; name a file that `warmspare baseline save -o FILE` wrote"
        raise Failed(message) from None


def _line(text: str) -> None:
    say(f"{clean(text)}\n")
