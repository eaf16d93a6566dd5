"""Requirements: plain functions whose annotations name the facts they depend on."""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Final, TypeVar

import msgspec

from warmspare.model.facts import HOST_KIND, Absent, Both, Fact, Kind, Known, Proof
from warmspare.model.findings import Finding

Requirement = Callable[..., Finding]
F = TypeVar("F")


class Mode(StrEnum):
    """How a parameter takes its fact: the host's one, a reading with its absence, or one a subject."""

    ONE = "one"
    READING = "reading"
    EACH = "each"
    SOME = "some"


Each = Annotated[F, Mode.EACH]
"""`Each[F]`: asked once a subject; unmet if one is, else undecided if one is missing, else met."""
Some = Annotated[F, Mode.SOME]
"""`Some[F]`: asked once a subject; met if one is, else undecided if one is missing, else unmet."""

FOLDING: Final = frozenset({Mode.EACH, Mode.SOME})


class Dependency(msgspec.Struct, frozen=True):
    """One parameter of a requirement: its name, the fact it takes and how."""

    parameter: str
    fact: type[Fact]
    mode: Mode
    both: bool = False


class Rule(msgspec.Struct, frozen=True):
    """A requirement ready to be judged: the function, its id (its name) and its dependencies.

    `arises` and `unless` are asked first, of facts of their own: where the one is not met, or the other is, what it
    says is the finding.
    """

    id: str
    function: Requirement
    dependencies: tuple[Dependency, ...]
    arises: Rule | None = None
    unless: Rule | None = None

    @property
    def asked(self) -> tuple[Dependency, ...]:
        """What it rests on in all: its own facts, and those that decide whether it arises."""
        conditions = [rule.asked for rule in (self.arises, self.unless) if rule]
        return (*self.dependencies, *(dependency for asked in conditions for dependency in asked))

    @property
    def is_proof(self) -> bool:
        """Whether a trial decides it."""
        return any(issubclass(dependency.fact, Proof) for dependency in self.dependencies)

    @property
    def fold(self) -> tuple[Mode, Kind] | None:
        """How and over which kind of subject its findings are folded, or None."""
        folding = [d for d in self.dependencies if d.mode in FOLDING]
        return (folding[0].mode, folding[0].fact.KIND) if folding else None

    @property
    def why(self) -> str:
        """The docstring without its `Remedy:` and `Source:` lines: the reason shown in reports."""
        return _said(self.function)[0]

    @property
    def remedies(self) -> tuple[str, ...]:
        """Ids of the remedies that its findings may name."""
        return tuple(dict.fromkeys((*self._tagged("Remedy"), *self._tagged("When unknown"))))

    @property
    def remedy_when_unknown(self) -> str | None:
        """What to do where a fact it depends on could not be read."""
        return next(iter(self._tagged("When unknown")), None)

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the requirement comes from."""
        return self._tagged("Source")

    def _tagged(self, tag: str) -> tuple[str, ...]:
        return tuple(text for name, text in _said(self.function)[1] if name == tag)


_BY_NAME: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_TAG: Final = re.compile(r"^(?P<tag>Remedy|When unknown|Source): +(?P<text>.+?)\s*$", re.MULTILINE)


@functools.cache
def _said(function: Requirement) -> tuple[str, tuple[tuple[str, str], ...]]:
    """What a docstring says: the reason, and its tagged lines."""
    doc = inspect.getdoc(function) or ""
    return _TAG.sub("", doc).strip(), tuple((found["tag"], found["text"]) for found in _TAG.finditer(doc))


def arises_if(condition: Requirement) -> Callable[[Requirement], Requirement]:
    """Mark a requirement whose question arises only where `condition` is met, whatever of its own facts is absent.

    So a proof that nobody needed, and that was not tried, is not applicable by what is known, and not undecided.
    """

    def marked(function: Requirement) -> Requirement:
        function.__dict__[_ARISES] = condition
        return function

    return marked


def unless(condition: Requirement) -> Callable[[Requirement], Requirement]:
    """Mark a requirement whose question falls away where `condition` is met; where that is not known, it is asked."""

    def marked(function: Requirement) -> Requirement:
        function.__dict__[_UNLESS] = condition
        return function

    return marked


_ARISES: Final = "arises"
_UNLESS: Final = "unless"


def rule(function: Requirement) -> Rule:
    """Read a requirement's annotations.

    Raises:
        TypeError: an annotation is no fact, or subjects of two kinds (or folds) are mixed.
    """
    name = getattr(function, "__name__", repr(function))
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    if odd := [p.name for p in parameters if p.kind not in _BY_NAME or p.name not in hints]:
        message = f"requirement {name}: {', '.join(odd)} cannot be given by name, or is not annotated"
        raise TypeError(message)
    conditions: list[Requirement | None] = [getattr(function, mark, None) for mark in (_ARISES, _UNLESS)]
    dependencies = tuple(_dependency(name, p.name, hints[p.name]) for p in parameters)
    made = Rule(name, function, dependencies, *(rule(condition) if condition else None for condition in conditions))
    if not made.dependencies:
        message = f"requirement {name} depends on no fact"
        raise TypeError(message)
    if len({(d.mode, d.fact.KIND.name) for d in made.dependencies if d.mode in FOLDING}) > 1:
        message = f"requirement {name} mixes folds or kinds of subject"
        raise TypeError(message)
    return made


def _dependency(name: str, parameter: str, hint: object) -> Dependency:
    mode, both = Mode.ONE, False
    if typing.get_origin(hint) is Annotated:
        hint, *marks = typing.get_args(hint)
        if marks not in ([Mode.EACH], [Mode.SOME]):
            message = f"requirement {name}: {parameter} is neither Each[…] nor Some[…]"
            raise TypeError(message)
        (mode,) = marks
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        known = [arm for arm in typing.get_args(hint) if typing.get_origin(arm) is Known]
        if len(known) != 1 or Absent not in typing.get_args(hint) or mode in FOLDING:
            message = f"requirement {name}: {parameter} is no Reading[…]"
            raise TypeError(message)
        (hint,), mode = typing.get_args(known[0]), Mode.READING
    if typing.get_origin(hint) is Both:
        (hint,), both = typing.get_args(hint), True
    if not (isinstance(hint, type) and issubclass(hint, Fact)) or hint in (Fact, Proof):
        message = f"requirement {name}: {parameter} is annotated with no fact"
        raise TypeError(message)
    if (hint.KIND == HOST_KIND) == (mode in FOLDING) or both != (hint.KIND.name == "pair"):
        message = f"requirement {name}: {parameter} does not fit its kind of subject ({hint.KIND.name})"
        raise TypeError(message)
    return Dependency(parameter, hint, mode, both)
