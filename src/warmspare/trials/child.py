"""The keeper: one process that holds a trial's child, and leaves nothing behind whatever happens.

It runs in a session of its own, so that the terminal's Ctrl-C reaches only the tool. It watches three
things at once: the pipe from the tool (its end means the tool is gone, also by kill -9), the child, and
the clock. When one of them ends the trial it kills every process the trial started, those that CRIU
restored included (they are its descendants: it is a subreaper), and clears the scratch folder. A process
that the driver restored is suspended before it is killed, or left alive and named (gentle.py).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import msgspec

from warmspare.control import process
from warmspare.trials import awaken, leftover
from warmspare.trials.api import (
    AbsentEvent,
    EndEvent,
    Event,
    NotTried,
    Steps,
    Trial,
    at_place,
)


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
    for number in (*process.STOPPING, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    process.become_subreaper()
    end = EndEvent(how="cancelled")
    try:
        with leftover.scratch_folder(order.token) as folder:
            body, events = _start(trial, about, folder)
            try:
                end = _watch(body, events, (lifeline, waker), reports, trial.deadline_s)
            finally:
                left = leftover.cleared(order.token, process.end_descendants, lambda: _tell(reports, awaken.WAKING))
        end = msgspec.structs.replace(end, left=tuple(left))
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
        for number in (*process.STOPPING, signal.SIGCHLD):
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
        _, event = steps.tried(trial.proofs[0], lambda: trial.function(steps, *about))
        # What happens outside of every part is about all that were not told.
        _tell(told, msgspec.structs.replace(event, fact=None) if isinstance(event, AbsentEvent) else event)
    finally:
        os._exit(0)


def _watch(body: int, events: int, stops: tuple[int, int], reports: int, deadline_s: float) -> EndEvent:
    lifeline, waker = stops
    watched = [events, lifeline, waker]
    deadline = time.monotonic() + deadline_s
    status: int | None = None
    # The body's end counts, not its pipe's: a daemon it left may hold that open, and it may close it early.
    while ready := process.ready(watched, deadline - time.monotonic() if status is None else 0.0):
        if waker in ready:
            if set(os.read(waker, 4096)) & set(process.STOPPING):
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
