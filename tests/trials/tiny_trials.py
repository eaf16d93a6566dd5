"""Trials of a few lines each: one for every way to end. The keeper imports them by their place."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import NoReturn

import msgspec

from warmspare.control.lever import LeverRefused
from warmspare.model.facts import Cause, Outcome, Proof
from warmspare.trials.api import NotTried, Steps, trial


class Tiny(Proof, frozen=True, kw_only=True):
    """What a tiny trial saw."""

    seen: tuple[str, ...] = ()


DONE = Outcome(kind="done")
REFUSED = ("217 CUDA_ERROR_PEER_ACCESS_UNSUPPORTED", "cuCtxEnablePeerAccess")


@trial(deadline=10, touches="nothing")
def tells_its_score(steps: Steps) -> Tiny:
    """How soon the kernel takes it, and what it starts, where memory ends."""
    steps("pull", nothing)
    own = Path("/proc/self/oom_score_adj").read_text(encoding="ascii").strip()
    theirs = subprocess.run(["/bin/cat", "/proc/self/oom_score_adj"], capture_output=True, text=True, check=True)
    return Tiny(outcome=DONE, seen=(own, theirs.stdout.strip()))


def nothing() -> None:
    """A step that does nothing."""


def forever() -> None:
    """A step that never ends."""
    threading.Event().wait()


def hang_up() -> None:
    """Close everything, the pipe that is reported on too, and stay."""
    os.closerange(0, 1024)
    forever()


def die() -> None:
    """A step that kills its process."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> NoReturn:
    """A step that raises."""
    message = "no such luck"
    raise RuntimeError(message)


def no_space() -> NoReturn:
    """A step that raises what the system said."""
    raise OSError(28, os.strerror(28))


def daemon() -> None:
    """Leave a daemon behind: forked twice, in a session of its own, blocking every signal that can be blocked."""
    told, tell = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.pthread_sigmask(signal.SIG_BLOCK, set(range(1, 65)))
            os.write(tell, b"!")
            forever()
        os._exit(0)
    os.read(told, 1)


def stubborn() -> None:
    """Start a child that ignores every polite signal, and wait for it."""
    code = "import signal, threading; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)];"
    code += " print(flush=True); threading.Event().wait()"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout
    child.stdout.readline()
    child.wait()


@trial(deadline=30, touches="nothing")
def works(steps: Steps) -> Tiny:
    (steps.scratch / "file").write_text("kept here")
    steps.prepare("get ready", nothing)
    steps("pull", nothing)
    return Tiny(outcome=DONE, seen=tuple(f"{name} {took_s}" for name, took_s in steps.took_s.items()))


@trial(deadline=30, touches="nothing")
def sees(steps: Steps) -> Tiny:
    steps("look", nothing)
    held = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor that lists them
            held.append(str(entry.readlink()))
    environment = [f"{name}={value}" for name, value in os.environ.items()]
    return Tiny(outcome=DONE, seen=(*environment, *held))


@trial(deadline=30, touches="nothing")
def refuses(steps: Steps) -> Tiny:
    steps("pull", nothing)
    steps.refused("EBUSY", "it is in use")


@trial(deadline=30, touches="nothing")
def is_wrong(steps: Steps) -> Tiny:
    steps("pull", nothing)
    steps.wrong("it said it did")


@trial(deadline=1, touches="nothing")
def hangs(steps: Steps) -> Tiny:
    steps("pull", forever)
    return Tiny(outcome=DONE)


@trial(deadline=1, touches="nothing")
def hangs_early(steps: Steps) -> Tiny:
    steps.prepare("get ready", nothing)
    steps.prepare("get set", forever)
    return Tiny(outcome=DONE)


@trial(deadline=1, touches="nothing")
def hangs_between(steps: Steps) -> Tiny:
    steps("pull", nothing)
    forever()
    return Tiny(outcome=DONE)


@trial(deadline=1, touches="nothing")
def hangs_up(steps: Steps) -> Tiny:
    steps("pull", hang_up)
    return Tiny(outcome=DONE)


@trial(deadline=30, touches="nothing")
def dies(steps: Steps) -> Tiny:
    steps("pull", die)
    return Tiny(outcome=DONE)


@trial(deadline=30, touches="nothing")
def dies_early(steps: Steps) -> Tiny:
    steps.prepare("get ready", nothing)
    steps.prepare("get set", die)
    return Tiny(outcome=DONE)


@trial(deadline=30, touches="nothing")
def dies_at_prepare_after_a_lever(steps: Steps) -> Tiny:
    steps("pull", nothing)
    steps.prepare("get ready again", die)
    return Tiny(outcome=DONE)


@trial(deadline=30, touches="nothing")
def dies_leaving_a_daemon(steps: Steps) -> Tiny:
    steps("pull", daemon)
    die()
    return Tiny(outcome=DONE)


@trial(deadline=30, touches="nothing")
def exits(steps: Steps) -> Tiny:
    steps("pull", os._exit, 7)
    return Tiny(outcome=DONE)


@trial(deadline=30, touches="nothing")
def quits(steps: Steps) -> Tiny:
    steps("pull", sys.exit, 7)
    return Tiny(outcome=DONE)


@trial(deadline=30, touches="nothing")
def raises(steps: Steps) -> Tiny:
    steps("pull", fail)
    return Tiny(outcome=DONE)


@trial(deadline=30, touches="nothing")
def raises_early(steps: Steps) -> Tiny:
    steps.prepare("get ready", fail)
    return Tiny(outcome=DONE)


@trial(deadline=30, touches="nothing")
def raises_what_the_system_said(steps: Steps) -> Tiny:
    steps("pull", no_space)
    return Tiny(outcome=DONE)


@trial(deadline=30, touches="nothing")
def not_tried(_: Steps) -> Tiny:
    raise NotTried(Cause.SKIPPED, "the GPU is busy")


@trial(deadline=30, touches="nothing")
def no_proof(steps: Steps) -> Tiny:
    steps("pull", nothing)
    return Tiny(outcome=DONE, seen=(3,))  # type: ignore[arg-type] # on purpose


@trial(deadline=30, touches="nothing")
def leaves_a_daemon(steps: Steps) -> Tiny:
    steps("pull", daemon)
    return Tiny(outcome=DONE)


@trial(deadline=1, touches="nothing")
def waits_for_a_stubborn_child(steps: Steps) -> Tiny:
    steps("pull", stubborn)
    return Tiny(outcome=DONE)


@trial(deadline=30, touches="nothing")
def is_loud(steps: Steps) -> Tiny:
    code = "import os; [os.write(n, b'x' * 65_536) for n in (1, 2) for _ in range(64)]"
    steps("pull", subprocess.run, [sys.executable, "-c", code], check=True)
    os.write(2, b"x" * 4_000_000)
    return Tiny(outcome=DONE, seen=("y" * 60_000,) * 20)


def refuse() -> NoReturn:
    """A step that the driver refuses."""
    raise LeverRefused(*REFUSED)


@trial(deadline=30, touches="nothing")
def is_refused(steps: Steps) -> Tiny:
    steps("pull", refuse)
    return Tiny(outcome=DONE)


@trial(deadline=30, touches="nothing")
def is_refused_early(steps: Steps) -> Tiny:
    steps.prepare("get ready", refuse)
    return Tiny(outcome=DONE)


@trial(deadline=30, touches="nothing")
def is_refused_between(steps: Steps) -> Tiny:
    steps("pull", nothing)
    refuse()


class Things(msgspec.Struct, frozen=True):
    """What a trial may be given."""

    names: tuple[str, ...]


@trial(deadline=30, touches="nothing")
def takes(steps: Steps, things: Things) -> Tiny:
    steps("pull", nothing)
    return Tiny(outcome=DONE, seen=things.names)


class Second(Proof, frozen=True, kw_only=True):
    """What the second part of a trial saw."""


class Third(Proof, frozen=True, kw_only=True):
    """What the third part of a trial saw."""


@trial(deadline=30, touches="nothing", parts=lambda: (Tiny, Second, Third))
def has_parts(steps: Steps, things: Things) -> None:
    """Three parts; the second, or what comes after it, ends as it is told to."""
    (ends,) = things.names

    def second() -> Second:
        if ends == "unready":
            raise NotTried(Cause.SKIPPED, "not today")
        if ends == "broken":
            fail()
        if ends == "dies early":
            steps.prepare("get ready", die)
        steps("pull the second", {"dies": die, "hangs": forever}.get(ends, nothing))
        return Second(outcome=DONE) if ends != "refused" else steps.refused("EBUSY")

    steps.part(Tiny, lambda: Tiny(outcome=DONE, seen=(steps("pull the first", lambda: "seen"),)))
    if ends == "skipped":
        steps.skip(Second, Cause.SKIPPED, "not asked for")
    else:
        steps.part(Second, second)
    if ends == "between":
        message = "between the parts"
        raise RuntimeError(message)
    if ends == "refused between":
        raise LeverRefused(*REFUSED)
    if ends != "stops":
        steps.part(Third, lambda: Third(outcome=DONE))
