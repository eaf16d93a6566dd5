"""What is known to break in an engine's Sleep Mode, by version and conditions: the rows of known_issues.toml."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib import resources
from typing import Final, Literal

import msgspec

from warmspare.tracks.issue_conditions import Meant, When, unmet_or_unclear

Class = Literal["crash", "hang", "silent-corruption", "memory", "platform"]
Version = tuple[int, int, int, int]
"""Three numbers, and 0 for a release or -1 for what comes before it (a candidate, a development build)."""
CLAUSE: Final = re.compile(r"(>=|<|==) *(\d{1,4})\.(\d{1,4})\.(\d{1,4})\Z")
VERSION: Final = re.compile(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?(?P<rest>[^\d.].*|\.(?:dev|post).*)?\Z", re.ASCII)
RELEASED: Final = re.compile(r"(?:\.post\d+)?(?:\+(?:cu|cpu|rocm)\w*)?\Z")
ALL: Final = "all"
NONE: Final = "none"


class Issue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"class_": "class"}):
    """One row: what breaks, in which versions and under which conditions, and what to do.

    `affected` has it, of `unclear` nobody has said; each is clauses that all hold, or "all". `fixed` is a release or
    "none". `verified` says how the range is known. `bears_on` is the requirement whose trial would show it.
    """

    id: str
    engine: Literal["vllm"]
    symptom: str
    class_: Class
    affected: str | None = None
    unclear: str | None = None
    fixed: str
    verified: str
    bears_on: str
    workaround: str
    sources: tuple[str, ...]
    when: When = When()
    remedy: str | None = None

    @property
    def what_to_do(self) -> str:
        """The id of a remedy: its own, or a newer release where one is without it, or to look at the row."""
        return self.remedy or ("see-known-issues" if self.fixed == NONE else "newer-vllm")


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """An issue that applies, or that may: then `unclear` says what is not known."""

    issue: Issue
    unclear: tuple[str, ...] = ()

    @property
    def applies(self) -> bool:
        """Whether the version and every condition are known to match."""
        return not self.unclear


@functools.cache
def all_issues() -> tuple[Issue, ...]:
    """Every row, in the order of the file."""
    text = resources.files("warmspare.tracks").joinpath("known_issues.toml").read_text(encoding="utf-8")
    return tuple(msgspec.convert(tomllib.loads(text)["issue"], list[Issue]))


def version_of(text: str | None) -> Version | None:
    """`0.26.0+cu130` is a release, `0.26.0rc1` and `0.26.1.dev3+g12` come before one; None: not understood."""
    found = VERSION.match(text or "")
    if not found:
        return None
    early = 0 if RELEASED.match(found["rest"] or "") else -1
    return (int(found[1]), int(found[2]), int(found[3] or 0), early)


def matching(issues: Iterable[Issue], version: Version, meant: Meant) -> tuple[Match, ...]:
    """The issues that apply to this version as it is meant to run, and those that may."""
    return tuple(_matches(issues, version, meant))


def fixed_before(issues: Iterable[Issue], version: Version) -> tuple[Issue, ...]:
    """The issues that were fixed in this version or an earlier one."""
    return tuple(issue for issue in issues if issue.fixed != NONE and not _covers(f"<{issue.fixed}", version))


def _matches(issues: Iterable[Issue], version: Version, meant: Meant) -> Iterator[Match]:
    for issue in issues:
        has_it = _has_it(issue, version)
        unclear = unmet_or_unclear(issue.when, meant)
        if has_it is False or unclear is None:
            continue
        yield Match(issue=issue, unclear=(*(() if has_it else ("whether this version has it",)), *unclear))


def _has_it(issue: Issue, version: Version) -> bool | None:
    """Whether a version has an issue; what comes before the release with the fix may have it or not."""
    said = [_by_the_row(issue, one) for one in {version, (*version[:3], 0)}]
    return said[0] if len(set(said)) == 1 else None


def _by_the_row(issue: Issue, version: Version) -> bool | None:
    if issue.affected and _covers(issue.affected, version):
        return True
    return None if issue.unclear and _covers(issue.unclear, version) else False


def _covers(span: str, version: Version) -> bool:
    """Whether every clause of `>=0.17.0, <0.24.0` holds.

    Raises:
        ValueError: it is not made of such clauses.
    """
    if span == ALL:
        return True
    held = []
    for clause in span.split(","):
        found = CLAUSE.match(clause.strip())
        if not found:
            message = f"not a range of versions: {span}"
            raise ValueError(message)
        bound: Version = (int(found[2]), int(found[3]), int(found[4]), 0)
        held.append({">=": version >= bound, "<": version < bound, "==": version == bound}[found[1]])
    return all(held)
