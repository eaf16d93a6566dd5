"""Requirements asked of facts that are made by hand, one row of a table a branch."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import typing
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from types import FunctionType, ModuleType
from typing import Any, Final, NamedTuple, TypeAlias

import pytest

from warmspare import catalogue
from warmspare.model.asking import Found, find
from warmspare.model.facts import HOST, Absent, Cause, Fact, Key, Known, Reading, Readings, Standing, fact_name
from warmspare.model.findings import Finding
from warmspare.model.requirements import Requirement, Rule, rule
from warmspare.probes.gpus import Gpus
from warmspare.probes.nvlink import NvLinks

Given: TypeAlias = Fact | Mapping[str, Fact | type[Fact]]
"""A fact about the first subject of its kind, or several by subject; a fact's type is one that could not be read."""
FIRST: Final = {"host": (HOST,), "gpu": ("gpu0",), "pair": ("gpu0→gpu1", "gpu1→gpu0"), "link": ("gpu0/link0",)}
UNREAD: Final = Absent(cause=Cause.TIMEOUT, detail="no answer")


class Row(NamedTuple):
    """What a requirement must say of some facts: its status, its remedy, and words of its text."""

    requirement: Requirement
    facts: tuple[Given, ...]
    status: str
    remedy: str | None
    words: str


def table(*rows: Row) -> pytest.MarkDecorator:
    """Parametrise a test by rows, each named after its requirement and what it must say."""
    return pytest.mark.parametrize("row", rows, ids=lambda row: f"{row.requirement.__name__}-{row.words}"[:80])


def holds(row: Row) -> bool:
    """Ask, and compare; the assertions name what differs."""
    finding = ask(row.requirement, *row.facts).finding
    assert (finding.status.value, finding.remedy) == (row.status, row.remedy), finding.text
    assert row.words in finding.text
    return True


def ask(requirement: Requirement, *facts: Given) -> Found:
    """Ask a requirement of these facts; the inventories of what they are about are added."""
    about: dict[Key, Reading[Any]] = {}
    for given in facts:
        by_subject = dict.fromkeys(FIRST[given.KIND.name], given) if isinstance(given, Fact) else given
        for subject, fact in by_subject.items():
            about[_name(fact), subject] = known(fact) if isinstance(fact, Fact) else UNREAD
    return find(rule(requirement), Readings({**_inventories({subject for _, subject in about}), **about}))


def _inventories(subjects: set[str]) -> dict[Key, Reading[Any]]:
    numbers = [int(n) for subject in subjects for n in re.findall(r"gpu(\d+)", subject)]
    if not numbers:
        return {}
    found: dict[Key, Reading[Any]] = {(fact_name(Gpus), HOST): known(gpus(max(numbers) + 1))}
    for subject in sorted(subjects):
        gpu, _, link = subject.partition("/link")
        if link:
            before = found.get((fact_name(NvLinks), gpu))
            so_far = before.value.numbers if isinstance(before, Known) else ()
            found[fact_name(NvLinks), gpu] = known(NvLinks(numbers=(*so_far, int(link))))
    return found


def gpus(count: int, **seen: int) -> Gpus:
    """An inventory of so many GPUs."""
    ids, none = tuple(f"GPU-{n}" for n in range(count)), (None,) * count
    counted = {name.replace("_", " "): number for name, number in (seen or {"nvml": count}).items()}
    return Gpus(ids=ids, seen=counted, nvml=tuple(range(count)), pci=none, silent={}, instead=())  # type: ignore[arg-type]


def known(fact: Fact) -> Known[Any]:
    """A reading of this fact."""
    return Known(value=fact, standing=Standing.OBSERVED, at=datetime(2026, 11, 22, tzinfo=UTC))


def _name(fact: Fact | type[Fact]) -> str:
    return fact_name(fact if isinstance(fact, type) else type(fact))


def requirements_of(module: ModuleType) -> list[Rule]:
    """The requirements that are written in a module."""
    functions = [thing for name, thing in vars(module).items() if inspect.isfunction(thing) and name[0] != "_"]
    return [rule(one) for one in functions if one.__module__ == module.__name__ and returns_finding(one)]


def returns_finding(function: Requirement) -> bool:
    """Whether a function says something of facts."""
    return bool(typing.get_type_hints(function).get("return") is Finding)


def not_shown(rows: Iterable[Row], *modules: ModuleType) -> dict[str, set[str]]:
    """The requirements of these modules that no row asks, and the remedies that they can name and no row is given."""
    given: dict[str, set[str]] = {}
    for row in rows:
        given.setdefault(row.requirement.__name__, set()).update({row.remedy} if row.remedy else ())
    written = [one for module in modules for one in requirements_of(module)]
    assert all(any(one.function.__module__ == module.__name__ for one in written) for module in modules)
    lacking = {one.id: can_name(one.function) - given[one.id] if one.id in given else {"any row"} for one in written}
    return {name: what for name, what in lacking.items() if what}


def can_name(requirement: Requirement) -> set[str]:
    """The remedies that a requirement's own code can name."""
    return set(literals(requirement)) & set(catalogue.remedies())


def tree(function: Requirement) -> ast.FunctionDef:
    """The function's source, without its docstring."""
    (found,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(found, ast.FunctionDef)
    if ast.get_docstring(found) is not None:
        del found.body[0]
    return found


def literals(function: Requirement) -> Iterator[str]:
    """Every string of a function, of the tables that it names, and of its module's functions that it calls."""
    for node in ast.walk(tree(function)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Name):
            thing = function.__globals__.get(node.id)
            if isinstance(thing, FunctionType) and thing.__module__ == function.__module__:
                yield from literals(thing)
            else:
                yield from strings(thing)


def strings(thing: object) -> Iterator[str]:
    """The strings in a table."""
    match thing:
        case str():
            yield thing
        case dict():
            yield from strings((*thing, *thing.values()))
        case tuple() | list():
            for item in thing:
                yield from strings(item)
