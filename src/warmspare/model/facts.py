"""Facts: what is known of a machine, how it is known, and why something is not known."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Generic, Literal, TypeAlias, TypeVar, cast

import msgspec

TEXT_LIMIT: Final = 65_536
"""The longest string a snapshot may hold, in characters."""

Text = Annotated[str, msgspec.Meta(max_length=TEXT_LIMIT)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
GbPerS = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
"""A bandwidth in decimal gigabytes per second."""
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]

_NUMBER: Final = "(0|[1-9][0-9]{0,2})"
SUBJECT: Final = f"^(host|gpu{_NUMBER}(→gpu{_NUMBER}|/link{_NUMBER})?)(?![\\s\\S])"
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Subject = Annotated[str, msgspec.Meta(pattern=SUBJECT)]
"""What a reading is about: `host`, `gpu0`, `gpu0→gpu1` (one direction) or `gpu0/link3`."""
HOST: Final = "host"


class Cause(StrEnum):
    """Why a reading is absent. None of these says anything about the machine itself."""

    UNASKED = "unasked"  # nobody asked: not in this recording, or no such trial yet
    DENIED = "denied"  # the machine refused to answer us (permission, hidepid, seccomp)
    TIMEOUT = "timeout"  # no answer within the deadline; the asking child was killed
    CRASHED = "crashed"  # the instrument died before it could answer
    SKIPPED = "skipped"  # not tried on purpose (--no-trials, --quick, a busy GPU)
    INVALID = "invalid"  # an answer came, and could not be understood


class Standing(StrEnum):
    """How a fact is known, the strongest first: by trying, by looking, or by somebody's word."""

    TRIED = "tried"
    OBSERVED = "observed"
    REPORTED = "reported"

    @property
    def strength(self) -> int:
        """2 for tried, 1 for observed, 0 for reported."""
        return (Standing.REPORTED, Standing.OBSERVED, Standing.TRIED).index(self)


def snake_case(name: str) -> str:
    """The name of a fact in a snapshot: `CriuProgram` is `criu_program`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


class Fact(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="fact",
    tag=snake_case,
):
    """Something observed, small enough to be known as a whole.

    "There is none" is a fact (`found=False`, an empty list); "we could not look" is an `Absent`.
    """

    KIND: ClassVar[Kind]


class Kind(msgspec.Struct, frozen=True):
    """A kind of subject that facts are about, and the one fact that lists those subjects.

    `listed` turns that inventory into subjects: for pairs one entry an unordered pair, named by its
    first direction. `parent` is the kind the inventory itself is read for (a GPU, for its links).
    `handle` makes of the readings so far and a subject what a probe needs to ask about it.
    """

    name: Literal["host", "gpu", "pair", "link"]
    inventory: type[Fact] | None = None
    listed: Callable[[Fact, str], tuple[str, ...]] | None = None
    parent: Kind | None = None
    handle: Callable[[Readings, str], object] | None = None

    @property
    def depth(self) -> int:
        """How many inventories are read before its subjects are known: 0 for the host."""
        return 0 if self.inventory is None else 1 + self.inventory.KIND.depth

    def subjects(self, readings: Readings) -> tuple[str, ...]:
        """All subjects that known inventories name, for pairs in both directions."""
        if self.inventory is None or self.listed is None:
            return (HOST,)
        found: list[str] = []
        for parent in self.parent.subjects(readings) if self.parent else (HOST,):
            reading = readings.get(self.inventory, parent)
            if isinstance(reading, Known):
                found += self.listed(reading.value, parent)
        if self.name == "pair":
            found += ["→".join(reversed(pair.split("→"))) for pair in found]
        return tuple(found)


HOST_KIND: Final = Kind("host")
Fact.KIND = HOST_KIND


class Outcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the levers of a trial ended: a failing lever is a known outcome, not an absence.

    `step` names the lever that did not end as it should; `code` is what it refused with.
    """

    kind: Literal["done", "refused", "wrong", "hung", "died"]
    step: Text | None = None
    code: Text | None = None
    detail: Text = ""


class Proof(Fact, frozen=True, kw_only=True):
    """A fact that a trial yields. All figures are optional: a broken cycle has only its outcome."""

    outcome: Outcome


F = TypeVar("F", bound=Fact)


class Known(
    msgspec.Struct, Generic[F], frozen=True, kw_only=True, tag_field="is", tag="known",
    forbid_unknown_fields=True,
):  # fmt: skip
    """A fact, how it is known, when, and the transcript entries it was read from."""

    value: F
    standing: Standing
    at: Moment
    refs: tuple[Count, ...] = ()


class Absent(msgspec.Struct, frozen=True, kw_only=True, tag_field="is", tag="absent", forbid_unknown_fields=True):
    """Why we do not know. `refs` are the transcript entries of the attempt."""

    cause: Cause
    detail: Text = ""
    refs: tuple[Count, ...] = ()


Reading: TypeAlias = Known[F] | Absent
"""A fact or the cause of its absence."""
Key: TypeAlias = tuple[str, str]
"""(fact name, subject)."""
Entries: TypeAlias = Mapping[Key, "Reading[Any]"]

UNASKED: Final = Absent(cause=Cause.UNASKED, detail="not in this recording")


class Both(Generic[F]):
    """The two directions of a pair: `there` is first to second, `back` is second to first."""

    __slots__ = ("back", "there")

    def __init__(self, there: F, back: F) -> None:
        """Carry both directions of one pair."""
        self.there = there
        self.back = back


def fact_name(fact: type[Fact]) -> str:
    """The name of a fact's type in snapshots and on the command line."""
    return cast("str", fact.__struct_config__.tag)


class Readings:
    """Everything read of a machine, keyed by fact and subject; a missing key is `Absent(unasked)`."""

    def __init__(self, entries: Entries | None = None) -> None:
        """Hold `entries`, keyed by (fact name, subject)."""
        self._entries = dict(entries or {})

    def get(self, fact: type[F], subject: str = HOST) -> Reading[F]:
        """The reading of `fact` about `subject`."""
        return cast("Reading[F]", self._entries.get((fact_name(fact), subject), UNASKED))

    def items(self) -> Iterable[tuple[Key, Reading[Any]]]:
        """All (fact name, subject) keys with their readings, in a fixed order."""
        return sorted(self._entries.items(), key=lambda item: item[0])

    def __eq__(self, other: object) -> bool:
        """Equal when the entries are."""
        return isinstance(other, Readings) and self._entries == other._entries

    def __hash__(self) -> int:
        """Of the keys alone, which is enough."""
        return hash(frozenset(self._entries))

    def without(self, key: Key) -> Readings:
        """The same readings with one taken away."""
        return Readings({k: v for k, v in self._entries.items() if k != key})

    def plus(self, entries: Entries) -> Readings:
        """The same readings with some added or replaced."""
        return Readings({**self._entries, **entries})


def known(readings: Readings, fact: type[F], subject: str = HOST) -> F:
    """The fact itself.

    Raises:
        LookupError: it is absent.
    """
    match readings.get(fact, subject):
        case Known(value=value):
            return value
    message = f"{fact_name(fact)} of {subject} is not known"
    raise LookupError(message)
