"""How a probe is written, found and run.

A probe is a function `(host) -> Fact`, or `(host) -> dict[subject, Fact]`, marked `@probe`, in a module
of this folder; that is all it takes to be found.
"""

from __future__ import annotations

import importlib
import pkgutil
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from warmspare.host.port import Host, Unreadable
from warmspare.model.facts import HOST, Absent, Cause, Fact, Key, Known, Reading, Standing, fact_name

P = TypeVar("P", bound=Callable[[Host], Fact | Mapping[str, Fact]])


class Probe(msgspec.Struct, frozen=True):
    """A probe function and the fact it yields."""

    function: Callable[[Host], Fact | Mapping[str, Fact]]
    fact: type[Fact]


def probe(function: P) -> P:
    """Mark a function as a probe."""
    function.__dict__["is_probe"] = True
    return function


def discover(package: types.ModuleType) -> tuple[Probe, ...]:
    """All probes in the modules of `package`, ordered by module and then by place in the file.

    Raises:
        TypeError: a probe's return annotation is no fact, or two probes yield the same one.
    """
    found = [_probe(function) for function in marked(package, "is_probe")]
    names = [fact_name(p.fact) for p in found]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        message = f"two probes yield {', '.join(twice)}"
        raise TypeError(message)
    return tuple(found)


def marked(package: types.ModuleType, mark: str) -> list[Callable[..., object]]:
    """The functions in a package's modules that carry a mark."""
    modules = sorted(info.name for info in pkgutil.iter_modules(package.__path__))
    loaded = [importlib.import_module(f"{package.__name__}.{name}") for name in modules]
    return [
        thing
        for module in loaded
        for thing in vars(module).values()
        if isinstance(thing, types.FunctionType) and thing.__module__ == module.__name__ and mark in thing.__dict__
    ]


def _probe(function: Callable[..., object]) -> Probe:
    hint = typing.get_type_hints(function)["return"]
    if typing.get_origin(hint) is dict:
        hint = typing.get_args(hint)[1]
    if not (isinstance(hint, type) and issubclass(hint, Fact)):
        message = f"probe {function.__module__}.{function.__qualname__} returns no fact"
        raise TypeError(message)
    return Probe(typing.cast("Callable[[Host], Fact]", function), hint)


def collect(host: Host, probes: Iterable[Probe], at: datetime | None = None) -> dict[Key, Reading[Any]]:
    """Ask every probe; one that fails leaves an `Absent` with its cause, and the others go on."""
    readings: dict[Key, Reading[Any]] = {}
    for one in probes:
        name = fact_name(one.fact)
        with host.watching() as refs:
            facts = _ask(one, host)
        places = tuple(sorted(refs))
        if isinstance(facts, Absent):
            readings[name, HOST] = msgspec.structs.replace(facts, refs=places)
            continue
        now = at or datetime.now(UTC)
        for subject, fact in facts.items():
            readings[name, subject] = Known(value=fact, standing=Standing.OBSERVED, at=now, refs=places)
    return readings


def _ask(one: Probe, host: Host) -> Mapping[str, Fact] | Absent:
    try:
        facts = one.function(host)
    except Unreadable as unreadable:
        return Absent(cause=unreadable.cause, detail=unreadable.detail)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        # What a parser raises on an answer it did not expect; the answer itself is in the transcript.
        return Absent(cause=Cause.INVALID, detail=f"not understood: {type(error).__name__}: {error}"[:300])
    return {HOST: facts} if isinstance(facts, Fact) else facts
