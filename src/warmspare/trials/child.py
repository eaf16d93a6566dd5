"""The keeper: one process that holds a trial's child, and leaves nothing behind whatever happens.

It runs in a session of its own, so that the terminal's Ctrl-C reaches only the tool. It watches three
things at once: the pipe from the tool (its end means the tool is gone, also by kill -9), the child, and
the clock. When one of them ends the trial it kills every process the trial started, restored ones
included (they are its descendants: it is a subreaper), and clears the scratch folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from warmspare.control import cgroups, process
from warmspare.control.lever import LeverRefused
from warmspare.model.facts import Cause
from warmspare.trials.api import (
    AbsentEvent,
    EndEvent,
    Event,
    LeverFailed,
    NotTried,
    ProofEvent,
    Steps,
    Trial,
    at_place,
)

PREFIX: Final = "warmspare-trial-"
STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WINDOWS_ROOTS: Final = (Path("/mnt/c/Users/Public"), Path("/mnt/c/Windows/Temp"))
"""Folders on the Windows disk under WSL that everybody may write to; only a trial that measures that disk does."""
LOCK_GRACE_S: Final = 5.0
"""A folder younger than this whose trial still has processes may be one that is not locked yet."""


def scratch_roots() -> tuple[Path, ...]:
    """Where scratch folders may be made, the preferred first: disk, then memory for read-only disks."""
    roots = ["/var/tmp", "/dev/shm", "/run"]  # noqa: S108 # mkdtemp makes private folders there
    with contextlib.suppress(FileNotFoundError):  # it has tried to write, and could nowhere
        roots.insert(0, tempfile.gettempdir())
    return tuple(dict.fromkeys(map(Path, roots)))


@contextlib.contextmanager
def scratch_folder(token: str) -> Iterator[Path]:
    """A private folder, locked while its keeper lives so that a later run can tell a stale one."""
    problem: OSError | None = None
    for root in scratch_roots():
        try:
            folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{token}-", dir=root))
        except OSError as error:
            problem = error
            continue
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
        return
    raise NotTried(Cause.DENIED, f"no folder can be written for the trial: {problem}")


def sweep_stale() -> list[str]:
    """Clear away what a killed keeper left: its tagged processes, then its folder. Returns what stays."""
    left = []
    for root in (*scratch_roots(), *WINDOWS_ROOTS):
        with contextlib.suppress(OSError):
            for folder in root.glob(f"{PREFIX}*"):
                token = folder.name.removeprefix(PREFIX).partition("-")[0]
                if _is_stale(folder, token):
                    left += clear(token)
    return left


def clear(token: str) -> list[str]:
    """End every process that carries `token`, then remove its folders and control groups. Returns what stays."""
    return [*(f"pid {pid}" for pid in process.end_tagged(token)), *_clear_folders(token)]


def _clear_folders(token: str) -> list[str]:
    left: list[str] = []
    for root in (*scratch_roots(), *WINDOWS_ROOTS):
        with contextlib.suppress(OSError):
            for folder in root.glob(f"{PREFIX}{token}-*"):
                shutil.rmtree(folder, ignore_errors=True)
                left += [str(folder)] if folder.exists() else []
    return left + cgroups.remove(f"{PREFIX}{token}")


def _is_stale(folder: Path, token: str) -> bool:
    """Ours, a real folder, and no keeper holds its lock or is just about to."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        seen = os.fstat(lock)
        young = time.time() - seen.st_mtime < LOCK_GRACE_S and bool(process.tagged(token))
        if seen.st_uid != os.geteuid() or young:
            return False
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a keeper is told to run: the trial's place, its deadline, its token, and what it is given."""

    place: str
    deadline_s: float
    token: str
    given: Any = None


def keep(order: Order, lifeline: int, reports: int) -> None:
    """Run a trial to its end and report every event on `reports`."""
    trial = msgspec.structs.replace(at_place(order.place), deadline_s=order.deadline_s)
    about = (msgspec.convert(order.given, trial.given),) if trial.given else ()
    waker, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken)
    for number in (*STOPPING, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    process.become_subreaper()
    end = EndEvent(how="cancelled")
    try:
        with scratch_folder(order.token) as folder:
            body, events = _start(trial, about, folder)
            try:
                end = _watch(body, events, (lifeline, waker), reports, trial.deadline_s)
            finally:
                left = process.end_descendants()
        end = msgspec.structs.replace(end, left=(*(f"pid {p}" for p in left), *_clear_folders(order.token)))
    except NotTried as absent:
        _tell(reports, AbsentEvent(cause=absent.cause, detail=absent.detail))
        end = EndEvent(how="exit")
    _tell(reports, end)


def _start(trial: Trial, about: tuple[object, ...], folder: Path) -> tuple[int, int]:
    events, told = os.pipe()
    keeper = os.getpid()
    body = os.fork()
    if body == 0:
        process.die_with_parent(keeper)
        process.die_first()  # and not the user's server, whose memory it may be trying beside
        signal.set_wakeup_fd(-1)
        for number in (*STOPPING, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        # Neither it nor what it starts may hold the folder's lock or our pipes, or wait for a reader of stderr.
        for held in {int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2, told}:  # noqa: PTH208 # names
            with contextlib.suppress(OSError):
                os.close(held)
        os.dup2(1, 2)
        _body(trial, about, Steps(lambda event: _tell(told, event), folder, trial.deadline_s), told)
    os.close(told)
    return body, events


def _body(trial: Trial, about: tuple[object, ...], steps: Steps, told: int) -> None:
    """The child itself: the trial, and its result as the last event."""
    try:
        _tell(told, _result(trial, about, steps))
    finally:
        os._exit(0)


def _result(trial: Trial, about: tuple[object, ...], steps: Steps) -> Event:
    try:
        proof = trial.function(steps, *about)
    except LeverFailed as failed:
        proof = trial.proof(outcome=failed.outcome)
    except Exception as error:  # noqa: BLE001 # told under its name, as an outcome inside a lever
        # What a driver refuses between two levers is still a consequence of the first; our own exception is not.
        if not (steps.in_lever or (steps.pulled and isinstance(error, LeverRefused))):
            known = isinstance(error, NotTried | LeverRefused)
            detail = str(error)[:300] if known else f"{type(error).__name__}: {error}"[:300]
            return AbsentEvent(cause=_cause(error), detail=detail)
        proof = trial.proof(outcome=steps.broke(error))
    return ProofEvent(proof=msgspec.to_builtins(proof))


def _cause(error: Exception) -> Cause:
    """Why a trial did not come to its first lever: it says so, a driver would not let it, or it has a fault."""
    if isinstance(error, NotTried):
        return error.cause
    return Cause.DENIED if isinstance(error, LeverRefused) else Cause.CRASHED


def _watch(body: int, events: int, stops: tuple[int, int], reports: int, deadline_s: float) -> EndEvent:
    lifeline, waker = stops
    watched = [events, lifeline, waker]
    deadline = time.monotonic() + deadline_s
    status: int | None = None
    # The body's end counts, not its pipe's: a daemon it left may hold that open, and it may close it early.
    while ready := process.ready(watched, deadline - time.monotonic() if status is None else 0.0):
        if waker in ready:
            if set(os.read(waker, 4096)) & set(STOPPING):
                return EndEvent(how="cancelled")
            status = _reap(body, status)
        if lifeline in ready:
            return EndEvent(how="cancelled")
        if events in ready:
            data = os.read(events, 65_536)
            if not data:
                watched.remove(events)
            try:
                _write(reports, data)
            except BrokenPipeError:
                return EndEvent(how="cancelled")
    if status is None:
        return EndEvent(how="deadline")
    code = os.waitstatus_to_exitcode(status)
    return EndEvent(how="signal", code=-code) if code < 0 else EndEvent(how="exit", code=code)


def _reap(body: int, status: int | None) -> int | None:
    """Reap orphans, whose pids a restore may want back; keeps the body's status when it is among them."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == body:
                status = ended[1]
    return status


def _tell(descriptor: int, event: Event) -> None:
    with contextlib.suppress(BrokenPipeError):
        _write(descriptor, msgspec.json.encode(event) + b"\n")


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
