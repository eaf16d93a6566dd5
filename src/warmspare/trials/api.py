"""How a trial is written, found and run.

A trial is a function `(steps) -> Proof` marked `@trial(...)`, in a module of this folder. It runs in a
child of its own; every lever it pulls is a named step, so that a child that hangs or dies is known to
have hung or died *there*. One on GPUs is `(steps, given) -> Proof`, where the annotation says what it is
given (see given.py); the proof's `KIND` says whether it runs once, or once a GPU or an ordered pair.
"""

from __future__ import annotations

import errno
import importlib
import sys
import time
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

import msgspec

from warmspare.control.lever import LeverRefused
from warmspare.model.facts import HOST_KIND, Cause, Fact, Outcome, Proof, fact_name
from warmspare.probes.api import marked
from warmspare.trials import gentle

A = ParamSpec("A")
T = TypeVar("T")


class Trial(msgspec.Struct, frozen=True):
    """A trial: its function, the proof it yields, its deadline in seconds and what it touches.

    `quick` trials run in a bare `check`; the others when their track is named, or with `--full`. One that `restores`
    has the driver restore processes of its own. `given` is what its second parameter takes, if it has one.
    """

    name: str
    function: Callable[..., Proof]
    proof: type[Proof]
    deadline_s: float
    touches: str
    quick: bool
    restores: bool = False
    given: type[Any] | None = None

    @property
    def place(self) -> str:
        """Where its function is, `module:name`: how the keeper is told which trial to run."""
        return f"{self.function.__module__}:{self.name}"


class NotTried(Exception):
    """The instrument could not get as far as the first lever: the reading becomes Absent."""

    def __init__(self, cause: Cause, detail: str) -> None:
        """Carry the cause and one line of detail."""
        super().__init__(detail)
        self.cause, self.detail = cause, detail


class LeverFailed(Exception):
    """A lever refused, or did something wrong: a known outcome."""

    def __init__(self, outcome: Outcome) -> None:
        """Carry the outcome."""
        super().__init__(outcome.detail)
        self.outcome = outcome


class StepEvent(msgspec.Struct, frozen=True, tag="step", kw_only=True):
    """A step begins (`took_s` is None) or has ended."""

    name: str
    lever: bool
    took_s: float | None = None


class ProofEvent(msgspec.Struct, frozen=True, tag="proof", kw_only=True):
    """The trial's own result, as JSON of its proof."""

    proof: dict[str, Any]


class AbsentEvent(msgspec.Struct, frozen=True, tag="absent", kw_only=True):
    """The instrument failed before any lever was pulled."""

    cause: Cause
    detail: str


class EndEvent(msgspec.Struct, frozen=True, tag="end", kw_only=True):
    """The child is gone: how it ended, and what could not be cleared away (pids and paths)."""

    how: typing.Literal["exit", "signal", "deadline", "cancelled"]
    code: int = 0
    left: tuple[str, ...] = ()


Event = StepEvent | ProofEvent | AbsentEvent | EndEvent


class Steps:
    """Given to a trial: names its steps, times them, and holds its scratch folder.

    `patience_s` is how long it may wait for one sign of life: a quarter of its deadline.
    """

    def __init__(self, tell: Callable[[Event], None], scratch: Path, deadline_s: float) -> None:
        """Report through `tell`; `scratch` is a private folder that is cleared away afterwards."""
        self._tell = tell
        self.scratch, self.patience_s = scratch, deadline_s / 4
        self._ends = time.monotonic() + deadline_s
        self.took_s: dict[str, float] = {}
        self.current: str | None = None
        self.in_lever = self.pulled = False

    def restoring(self, pid: int) -> None:
        """Have the keeper end this process gently, from now on: the driver is about to restore it.

        To be called before the first restore. The process must carry the trial's environment, and nothing may kill
        it with its parent.
        """
        gentle.register(self.scratch, pid)

    @property
    def left_s(self) -> float:
        """How long it is to the deadline."""
        return self._ends - time.monotonic()

    def __call__(self, name: str, lever: Callable[A, T], *args: A.args, **kwargs: A.kwargs) -> T:
        """Pull a lever: from here on a failure is an outcome of the thing under test."""
        return self._run(name, True, lever, *args, **kwargs)  # noqa: FBT003 # private, named below

    def prepare(self, name: str, action: Callable[A, T], *args: A.args, **kwargs: A.kwargs) -> T:
        """Get ready: a failure here is the instrument's own."""
        return self._run(name, False, action, *args, **kwargs)  # noqa: FBT003 # private, named below

    def _run(self, name: str, lever: bool, action: Callable[A, T], *args: A.args, **kwargs: A.kwargs) -> T:  # noqa: FBT001
        self.current, self.in_lever, self.pulled = name, lever, self.pulled or lever
        self._tell(StepEvent(name=name, lever=lever))
        started = time.monotonic()
        result = action(*args, **kwargs)
        self.in_lever = False
        self.took_s[name] = round(time.monotonic() - started, 4)
        self._tell(StepEvent(name=name, lever=lever, took_s=self.took_s[name]))
        return result

    def refused(self, code: str, detail: str = "") -> NoReturn:
        """The current step's lever refused."""
        self._fail("refused", code, detail)

    def wrong(self, detail: str) -> NoReturn:
        """The current step's lever said it was done, and it was not."""
        self._fail("wrong", None, detail)

    def broke(self, error: Exception) -> Outcome:
        """An exception inside a lever: its outcome. One of our own between levers is an absence instead."""
        if isinstance(error, LeverRefused):
            code = error.code if error.how in ("refused", "died") else None
            return Outcome(kind=error.how, step=self.current, code=code, detail=error.detail[:300])
        code = errno.errorcode.get(error.errno or 0) if isinstance(error, OSError) else None
        return Outcome(kind="died", step=self.current, code=code or type(error).__name__, detail=str(error)[:300])

    def _fail(self, kind: typing.Literal["refused", "wrong"], code: str | None, detail: str) -> NoReturn:
        raise LeverFailed(Outcome(kind=kind, step=self.current, code=code, detail=detail))


def trial(
    *, deadline: float, touches: str, quick: bool = False, restores: bool = False
) -> Callable[[Callable[A, T]], Callable[A, T]]:
    """Mark a function as a trial: `deadline` in seconds, `touches` as the user is told beforehand."""

    def mark(function: Callable[A, T]) -> Callable[A, T]:
        function.__dict__["is_trial"] = (deadline, touches, quick, restores)
        return function

    return mark


def discover(package: types.ModuleType) -> tuple[Trial, ...]:
    """All trials in the modules of `package`, by name; those whose GPUs an earlier proof chooses come after the others.

    Those that restore processes come last: a process that hangs keeps others off its GPU. A trial's name is its
    function's.
    """
    found = [_trial(function) for function in marked(package, "is_trial")]
    return tuple(sorted(found, key=lambda one: (one.restores, bool(getattr(one.given, "RESTS_ON", ())))))


def at_place(place: str) -> Trial:
    """The trial whose `place` this is."""
    module, _, name = place.partition(":")
    return _trial(getattr(importlib.import_module(module), name))


def _trial(function: Callable[..., Any]) -> Trial:
    hints = typing.get_type_hints(function)
    proof = hints.pop("return")
    if not (isinstance(proof, type) and issubclass(proof, Proof)):
        message = f"trial {function.__name__} returns no proof"
        raise TypeError(message)
    _, given = (*hints.values(), None)[:2]
    if proof.KIND != HOST_KIND and given is None:
        message = f"trial {function.__name__} is about a {proof.KIND.name} and takes none"
        raise TypeError(message)
    deadline_s, touches, quick, restores = function.__dict__["is_trial"]
    return Trial(function.__name__, function, proof, deadline_s, touches, quick, restores, given)


def proofs(package: types.ModuleType) -> tuple[type[Fact], ...]:
    """Every fact declared in the modules of `package`: proofs, also without a trial, and what they are held against."""
    marked(package, "is_trial")  # loads the modules
    prefix = f"{package.__name__}."
    modules = [module for name, module in sorted(sys.modules.items()) if name.startswith(prefix)]
    found = {
        fact_name(thing): thing
        for module in modules
        for thing in vars(module).values()
        if isinstance(thing, type) and issubclass(thing, Fact) and thing.__module__ == module.__name__
    }
    return tuple(found[name] for name in sorted(found))
