"""How a probe is written, found and run.

A probe is a function marked `@probe` in a module of this folder; that is all it takes to be found. One about
the host is `(host) -> Fact`. One about GPUs, pairs or links is `(host, gpu) -> Fact`, where the fact's `KIND`
says which: it is asked once a subject, and one subject that cannot be read leaves the others their facts.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from warmspare.host.port import Host, Unreadable
from warmspare.model.facts import (
    HOST,
    HOST_KIND,
    Absent,
    Cause,
    Fact,
    Key,
    Kind,
    Known,
    Reading,
    Readings,
    Standing,
    fact_name,
)

P = TypeVar("P", bound=Callable[..., Fact])


class Probe(msgspec.Struct, frozen=True):
    """A probe function and the fact it yields."""

    function: Callable[..., Fact]
    fact: type[Fact]
    late: bool = False


def probe(function: P) -> P:
    """Mark a function as a probe."""
    function.__dict__["is_probe"] = True
    return function


def late(function: P) -> P:
    """Mark a probe that waits for cuInit, or that cuInit would disturb while it runs: asked after all others."""
    function.__dict__["is_late"] = True
    return function


def discover(package: types.ModuleType) -> tuple[Probe, ...]:
    """All probes in the modules of `package`, the late ones last: each after its inventory, then by module and place.

    Raises:
        TypeError: a probe does not return one fact, does not take what its fact is about, or two yield the same.
    """
    found = [_probe(function) for function in marked(package, "is_probe")]
    names = [fact_name(p.fact) for p in found]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        message = f"two probes yield {', '.join(twice)}"
        raise TypeError(message)
    return tuple(sorted(found, key=lambda p: (p.late, p.fact.KIND.depth)))


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
    name = f"{function.__module__}.{function.__qualname__}"
    hint = typing.get_type_hints(function)["return"]
    if not (isinstance(hint, type) and issubclass(hint, Fact)):
        message = f"probe {name} returns no fact"
        raise TypeError(message)
    takes = len(inspect.signature(function).parameters)
    if takes != (1 if hint.KIND == HOST_KIND else 2) or (takes > 1 and hint.KIND.handle is None):
        message = f"probe {name} takes {takes} parameters, and its fact is about a {hint.KIND.name}"
        raise TypeError(message)
    return Probe(typing.cast("Callable[..., Fact]", function), hint, late="is_late" in function.__dict__)


def collect(host: Host, probes: Iterable[Probe], at: datetime | None = None) -> dict[Key, Reading[Any]]:
    """Ask every probe about all its subjects; what fails leaves an `Absent` with its cause, and the others go on.

    Where the inventory itself is absent there is no subject to ask about, and no reading.
    """
    readings: dict[Key, Reading[Any]] = {}
    for one in probes:
        name, kind = fact_name(one.fact), one.fact.KIND
        so_far = Readings(readings)
        for subject in kind.subjects(so_far):
            readings[name, subject] = _read(one, host, _about(kind, so_far, subject), at)
    return readings


def _about(kind: Kind, readings: Readings, subject: str) -> tuple[object, ...]:
    return (kind.handle(readings, subject),) if kind.handle and subject != HOST else ()


def _read(one: Probe, host: Host, about: tuple[object, ...], at: datetime | None) -> Reading[Any]:
    with host.watching() as refs:
        answer = _ask(one, host, about)
    places = tuple(sorted(refs))
    if isinstance(answer, Absent):
        return msgspec.structs.replace(answer, refs=places)
    return Known(value=answer, standing=Standing.OBSERVED, at=at or datetime.now(UTC), refs=places)


def _ask(one: Probe, host: Host, about: tuple[object, ...]) -> Fact | Absent:
    try:
        fact = one.function(host, *about)
        # A struct is not checked when it is made: what its own file would refuse is no fact.
        return msgspec.convert(msgspec.to_builtins(fact), one.fact)
    except Unreadable as unreadable:
        return Absent(cause=unreadable.cause, detail=unreadable.detail)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        # What a parser raises on an answer it did not expect; the answer itself is in the transcript.
        return Absent(cause=Cause.INVALID, detail=f"not understood: {type(error).__name__}: {error}"[:300])
