"""The snapshot: one versioned file with everything read of a machine, enough to judge it anywhere."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec

from warmspare.model.facts import Absent, Fact, Known, Moment, Reading, Readings, Subject, Text, fact_name
from warmspare.model.transcript import Call, Gave

FORMAT: Final = "warmspare-snapshot"
VERSION: Final = 1
SIZE_LIMIT: Final = 8 * 2**20
"""The largest snapshot that is read, in bytes. Real ones are under 1 MiB."""

DEPTH_LIMIT: Final = 32
"""How deep a value in a transcript may be nested."""

ENTRY_LIMIT: Final = 65_536
DEEP: Final = "nested too deeply"
V = TypeVar("V")


class BadSnapshot(Exception):
    """The file is no snapshot that can be judged; the message is one line that says why."""


class Entry(msgspec.Struct, Generic[V], frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One reading under its key."""

    fact: Annotated[str, msgspec.Meta(max_length=128)]
    subject: Subject
    reading: Known[V] | Absent  # type: ignore[type-var] # V is the union of all facts, made at run time


class File(msgspec.Struct, Generic[V], frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file as it is written."""

    format: Annotated[str, msgspec.Meta(max_length=64)]
    version: Annotated[int, msgspec.Meta(ge=1, le=VERSION)]
    made_by: Text
    made_at: Moment
    redacted: bool
    readings: Annotated[tuple[Entry[V], ...], msgspec.Meta(max_length=ENTRY_LIMIT)]
    transcript: Annotated[tuple[Call, ...], msgspec.Meta(max_length=ENTRY_LIMIT)] = ()
    notes: Annotated[tuple[Text, ...], msgspec.Meta(max_length=64)] = ()


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything read of a machine at one time, and the transcript it was read from.

    `notes` are remarks on the recording itself (where a synthetic one's formats were seen, say).
    """

    made_by: str
    made_at: datetime
    redacted: bool
    readings: Readings
    transcript: tuple[Call, ...] = ()
    notes: tuple[str, ...] = ()


class _Header(msgspec.Struct):
    format: str
    version: int


def encode(snapshot: Snapshot) -> bytes:
    """The snapshot's file: the same snapshot gives the same bytes."""
    entries = tuple(
        Entry[Any](fact=fact, subject=subject, reading=reading)
        for (fact, subject), reading in snapshot.readings.items()
    )
    file = File[Any](
        format=FORMAT,
        version=VERSION,
        made_by=snapshot.made_by,
        made_at=snapshot.made_at,
        redacted=snapshot.redacted,
        readings=entries,
        transcript=snapshot.transcript,
        notes=snapshot.notes,
    )
    return msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n"


class Reader:
    """Reads snapshots whose facts are among `facts`; make one and use it for many files."""

    def __init__(self, facts: Iterable[type[Fact]]) -> None:
        """Prepare the decoder for the facts known to this version."""
        self._facts = {fact_name(fact): fact for fact in facts}
        self._decoder = msgspec.json.Decoder(_file_type(self._facts.values()))

    def read(self, data: bytes) -> Snapshot:
        """Decode a snapshot file.

        Raises:
            BadSnapshot: truncated, foreign, of a newer version, or not what the schema says.
        """
        if len(data) > SIZE_LIMIT:
            raise BadSnapshot(_one_line(f"over {SIZE_LIMIT // 2**20} MiB: no warmspare snapshot is that large"))
        _check_header(data)
        try:
            file = self._decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
            raise BadSnapshot(_one_line(error)) from None
        if any(isinstance(c.answer, Gave) and _is_deep(c.answer.value) for c in file.transcript):
            raise BadSnapshot(DEEP)
        entries: dict[tuple[str, str], Reading[Fact]] = {}
        for entry in file.readings:
            self._check_entry(entry, entries, len(file.transcript))
            entries[entry.fact, entry.subject] = entry.reading
        return Snapshot(
            made_by=file.made_by,
            made_at=file.made_at,
            redacted=file.redacted,
            readings=Readings(entries),
            transcript=file.transcript,
            notes=file.notes,
        )

    def _check_entry(self, entry: Entry[Any], seen: dict[tuple[str, str], Any], calls: int) -> None:
        fact, problem = self._facts.get(entry.fact), None
        if fact is None:
            problem = f"unknown fact {entry.fact!r}: made by another version of warmspare?"
        elif (entry.fact, entry.subject) in seen:
            problem = f"{entry.fact} of {entry.subject} stands in it twice"
        elif isinstance(entry.reading, Known) and not isinstance(entry.reading.value, fact):
            problem = f"the reading of {entry.fact} holds another fact"
        elif kind_of(entry.subject) != fact.KIND.name or len(set(entry.subject.split("→"))) != (
            1 + entry.subject.count("→")
        ):
            problem = f"{entry.fact} is not about {entry.subject}"
        elif any(ref >= calls for ref in entry.reading.refs):
            problem = f"{entry.fact} of {entry.subject} refers past the end of the transcript"
        if problem:
            raise BadSnapshot(_one_line(problem))


def kind_of(subject: str) -> str:
    """The name of the kind of subject that a key is about."""
    if "→" in subject:
        return "pair"
    if "/link" in subject:
        return "link"
    return "gpu" if subject.startswith("gpu") else "host"


def schema(facts: Iterable[type[Fact]]) -> dict[str, Any]:
    """The JSON Schema of the snapshot file, as published with the package."""
    made = msgspec.json.schema(_file_type(facts))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": FORMAT, **made}


def _file_type(facts: Iterable[type[Fact]]) -> Any:  # noqa: ANN401 # a type made at run time
    union = functools.reduce(operator.or_, sorted(facts, key=fact_name))
    return File[union]  # type: ignore[valid-type]


def _check_header(data: bytes) -> None:
    try:
        header = msgspec.json.decode(data, type=_Header)
    except msgspec.ValidationError:
        message = "not a warmspare snapshot: it has no format and version"
        raise BadSnapshot(message) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise BadSnapshot(_one_line(error)) from None
    if header.format != FORMAT:
        raise BadSnapshot(_one_line(f"not a warmspare snapshot: its format is {header.format[:40]}"))
    if header.version > VERSION:
        message = f"its version {header.version!s:.20} is newer than this warmspare reads ({VERSION}): upgrade"
        raise BadSnapshot(message)


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(DEPTH_LIMIT):
        holders = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list)]
        level = [item for holder in holders for item in holder]
        if not level:
            return False
    return True


def _one_line(error: Exception | str) -> str:
    if isinstance(error, RecursionError):
        return DEEP
    return " ".join(ascii(str(error))[1:-1].split())[:200]
