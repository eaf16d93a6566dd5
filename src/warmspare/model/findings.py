"""Findings: what a requirement says of the facts, as a sentence with its values beside it."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

import msgspec

from warmspare.model.facts import Cause

Value: TypeAlias = str | int | float | bool | tuple[str, ...] | None


class Status(StrEnum):
    """The four things a requirement can say."""

    MET = "met"
    UNMET = "unmet"
    UNDECIDED = "undecided"
    NOT_APPLICABLE = "not_applicable"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A status, a constant sentence with `{placeholders}`, the values for them, and a remedy's id.

    The sentence is kept apart from its values so that a report can be in another language.
    `cause` says why an undecided finding is undecided.
    """

    status: Status
    sentence: str
    values: dict[str, Value] = {}
    remedy: str | None = None
    cause: Cause | None = None

    @property
    def text(self) -> str:
        """The sentence with its values filled in."""
        return self.sentence.format(**{name: _plain(value) for name, value in self.values.items()})

    def check(self) -> None:
        """Make sure that it can be shown and written down.

        Raises:
            TypeError, ValueError, LookupError: the status is no Status, a value is of another type, or the
                sentence does not fit its values.
        """
        odd = [name for name, value in self.values.items() if not _is_value(value)]
        if odd or not isinstance(self.status, Status) or not isinstance(self.text, str):
            message = f"status {self.status!r}, odd values {odd}"
            raise TypeError(message)


def _is_value(value: object) -> bool:
    if isinstance(value, tuple):
        return all(isinstance(item, str) for item in value)
    return value is None or isinstance(value, str | int | float)


def _plain(value: Value) -> str | int | float | bool:
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return "unknown" if value is None else value


def met(sentence: str, /, **values: Value) -> Finding:
    """The requirement holds."""
    return Finding(status=Status.MET, sentence=sentence, values=values)


def unmet(sentence: str, /, *, remedy: str | None = None, **values: Value) -> Finding:
    """The requirement does not hold, and we know it."""
    return Finding(status=Status.UNMET, sentence=sentence, values=values, remedy=remedy)


def undecided(sentence: str, /, *, cause: Cause | None = None, remedy: str | None = None, **values: Value) -> Finding:
    """We cannot tell. Software that could be installed and is not there is undecided, with a remedy."""
    return Finding(status=Status.UNDECIDED, sentence=sentence, values=values, remedy=remedy, cause=cause)


def not_applicable(sentence: str, /, **values: Value) -> Finding:
    """The question does not arise on this machine, as known facts show."""
    return Finding(status=Status.NOT_APPLICABLE, sentence=sentence, values=values)
