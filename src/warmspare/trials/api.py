"""How a trial is written, found and run.

A trial is a function `(steps) -> Proof` marked `@trial(...)`, in a module of this folder. It runs in a
child of its own; every lever it pulls is a named step, so that a child that hangs or dies is known to
have hung or died *there*. One on GPUs is `(steps, given) -> Proof`, where the annotation says what it is
given (see given.py); the proof's `KIND` says whether it runs once, or once a GPU or an ordered pair.

A trial of several `parts` returns nothing and tells a proof for each with `steps.part`: they share what is dear to
start, and one that breaks leaves the others theirs.
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
from warmspare.model.facts import HOST_KIND, Cause, Fact, Kind, Outcome, Proof, fact_name
from warmspare.probes.api import marked
from warmspare.trials import gentle

A = ParamSpec("A")
T = TypeVar("T")


class Trial(msgspec.Struct, frozen=True):
    """A trial: its function, the proofs it yields (one, unless it has parts), its deadline in seconds, what it touches.

    `quick` trials run in a bare `check`; the others when their track is named, or with `--full`. One that `restores`
    has the driver restore processes of its own. `given` is what its second parameter takes, if it has one.
    """

    name: str
    function: Callable[..., Proof | None]
    proofs: tuple[type[Proof], ...]
    deadline_s: float
    touches: str
    quick: bool
    restores: bool = False
    given: type[Any] | None = None

    @property
    def kind(self) -> Kind:
        """What it is run once for: the host, a GPU, an ordered pair."""
        return self.proofs[0].KIND

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


class PartEvent(msgspec.Struct, frozen=True, tag="part", kw_only=True):
    """What follows is about this proof, by its name."""

    fact: str


class ProofEvent(msgspec.Struct, frozen=True, tag="proof", kw_only=True):
    """A result, as JSON of its proof."""

    proof: dict[str, Any]


class AbsentEvent(msgspec.Struct, frozen=True, tag="absent", kw_only=True):
    """The instrument failed before any lever was pulled. About one proof, by its name, or all that were not told."""

    cause: Cause
    detail: str
    fact: str | None = None


class EndEvent(msgspec.Struct, frozen=True, tag="end", kw_only=True):
    """The child is gone: how it ended, and what could not be cleared away (pids and paths)."""

    how: typing.Literal["exit", "signal", "deadline", "cancelled"]
    code: int = 0
    left: tuple[str, ...] = ()


Event = StepEvent | PartEvent | ProofEvent | AbsentEvent | EndEvent
P = TypeVar("P", bound=Proof)


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

    def part(self, proof: type[P], action: Callable[[], P]) -> P | None:
        """Try one part of a trial, and tell its proof; the proof if its levers were done, else None."""
        self._tell(PartEvent(fact=fact_name(proof)))
        told, event = self.tried(proof, action)
        self.pulled = self.in_lever = False
        self._tell(event)
        return told if told is not None and told.outcome.kind == "done" else None

    def skip(self, proof: type[Proof], cause: Cause, detail: str) -> None:
        """Say why a part is not tried."""
        self._tell(AbsentEvent(cause=cause, detail=detail[:300], fact=fact_name(proof)))

    def tried(self, proof: type[P], action: Callable[[], P | None]) -> tuple[P | None, ProofEvent | AbsentEvent]:
        """Try it: what became of it, and how that is told. No levers were pulled for it yet."""
        self.pulled = self.in_lever = False
        try:
            found = action()
        except LeverFailed as failed:
            found = proof(outcome=failed.outcome)
        except Exception as error:  # noqa: BLE001 # told under its name, as an outcome inside a lever
            # What a driver refuses between two levers is still a consequence of the first; our own exception is not.
            if not (self.in_lever or (self.pulled and isinstance(error, LeverRefused))):
                known = isinstance(error, NotTried | LeverRefused)
                detail = str(error)[:300] if known else f"{type(error).__name__}: {error}"[:300]
                return None, AbsentEvent(cause=_cause(error), detail=detail, fact=fact_name(proof))
            found = proof(outcome=self.broke(error))
        if found is None:
            why = "the trial came to its end without trying it"
            return None, AbsentEvent(cause=Cause.CRASHED, detail=why)
        return found, ProofEvent(proof=msgspec.to_builtins(found))

    def broke(self, error: Exception) -> Outcome:
        """An exception inside a lever: its outcome. One of our own between levers is an absence instead."""
        if isinstance(error, LeverRefused):
            code = error.code if error.how in ("refused", "died") else None
            return Outcome(kind=error.how, step=self.current, code=code, detail=error.detail[:300])
        code = errno.errorcode.get(error.errno or 0) if isinstance(error, OSError) else None
        return Outcome(kind="died", step=self.current, code=code or type(error).__name__, detail=str(error)[:300])

    def _fail(self, kind: typing.Literal["refused", "wrong"], code: str | None, detail: str) -> NoReturn:
        raise LeverFailed(Outcome(kind=kind, step=self.current, code=code, detail=detail))


def _cause(error: Exception) -> Cause:
    """Why a trial did not come to its first lever: it says so, a driver would not let it, or it has a fault."""
    if isinstance(error, NotTried):
        return error.cause
    return Cause.DENIED if isinstance(error, LeverRefused) else Cause.CRASHED


def trial(
    *,
    deadline: float,
    touches: str,
    quick: bool = False,
    restores: bool = False,
    parts: Callable[[], tuple[type[Proof], ...]] | None = None,
) -> Callable[[Callable[A, T]], Callable[A, T]]:
    """Mark a function as a trial: `deadline` in seconds, `touches` as the user is told beforehand.

    `parts` gives the proofs of one that has several; its function then returns nothing.
    """

    def mark(function: Callable[A, T]) -> Callable[A, T]:
        function.__dict__["is_trial"] = (deadline, touches, quick, restores, parts)
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
    returned = hints.pop("return")
    deadline_s, touches, quick, restores, parts = function.__dict__["is_trial"]
    yielded = (returned,) if parts is None else parts()
    kinds = {proof.KIND for proof in yielded if isinstance(proof, type) and issubclass(proof, Proof)}
    if len(kinds) != 1 or not all(isinstance(one, type) and issubclass(one, Proof) for one in yielded):
        message = f"trial {function.__name__} yields no proof, or proofs about different things"
        raise TypeError(message)
    _, given = (*hints.values(), None)[:2]
    (kind,) = kinds
    if kind != HOST_KIND and given is None:
        message = f"trial {function.__name__} is about a {kind.name} and takes none"
        raise TypeError(message)
    return Trial(function.__name__, function, yielded, deadline_s, touches, quick, restores, given)


def proofs(package: types.ModuleType) -> tuple[type[Fact], ...]:
    """Every fact declared in the modules of `package`: proofs, also without a trial, and what they are held against.

    A class with a private name is no fact: it holds what several have in common.
    """
    discover(package)  # loads the modules, those of trials' parts too
    prefix = f"{package.__name__}."
    modules = [module for place, module in sorted(sys.modules.items()) if place.startswith(prefix)]
    found = {
        fact_name(thing): thing
        for module in modules
        for name, thing in vars(module).items()
        if isinstance(thing, type)
        and issubclass(thing, Fact)
        and thing.__module__ == module.__name__
        and not name.startswith("_")
    }
    return tuple(found[name] for name in sorted(found))
