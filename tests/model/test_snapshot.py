"""The snapshot file: what is written is read again, and nothing else is."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import AT, FACTS, Bridges, Entries, known, snapshots

from warmspare.model.facts import HOST, TEXT_LIMIT, Absent, Cause, Fact, Known, Readings, Standing
from warmspare.model.snapshot import SIZE_LIMIT, BadSnapshot, Reader, Snapshot, encode
from warmspare.model.transcript import Call, Failed, Gave, Listed, Ran, Said, Verb

MANY = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Note(Fact, frozen=True, kw_only=True):
    """A fact with a text."""

    text: str


READER = Reader([*FACTS, Note])
SMALL = Snapshot(
    made_by="warmspare 0",
    made_at=AT,
    redacted=False,
    readings=Readings(
        {
            ("note", HOST): Known(value=Note(text="é→\x1b[2J"), standing=Standing.TRIED, at=AT, refs=(0,)),
            ("bridges", "gpu0"): known(Bridges, 1),
            ("wire", "gpu0/link0"): Absent(cause=Cause.DENIED, detail="why", refs=(1,)),
            ("peer", "gpu0→gpu1"): Absent(cause=Cause.SKIPPED),
        }
    ),
    transcript=(
        Call(verb="nvml", args=("name", "0"), answer=Gave({"a": [1, 2.5, None, True]}), took_s=0.5),
        Call(verb="run", args=("true",), answer=Ran(program="/bin/true", status=0, stdout="x")),
    ),
    notes=("synthetic",),
)
BYTES = encode(SMALL)
COMPACT = json.dumps(json.loads(BYTES)).encode()


def refusal(data: bytes) -> str | None:
    """Why a file is refused, or None; in time, in one short line, and never by another exception."""
    start, why = time.monotonic(), None
    try:
        READER.read(data)
    except BadSnapshot as error:
        why = str(error)
        assert why.isascii(), ascii(why)
        assert why.isprintable(), ascii(why)
        assert 0 < len(why) < 300
    assert time.monotonic() - start < 2
    return why


def changed(change: Callable[[Any], object]) -> bytes:
    document = json.loads(BYTES)
    change(document)
    return json.dumps(document).encode()


# --- what is written is read again -------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)
ANSWERS = st.one_of(
    st.builds(Said, TEXT),
    st.builds(Listed, st.lists(TEXT, max_size=3).map(tuple)),
    st.builds(Ran, program=TEXT, status=st.integers(-64, 255), stdout=TEXT, stderr=TEXT),
    st.builds(Gave, VALUES),
    st.builds(Failed, cause=st.sampled_from([None, *Cause]), detail=TEXT, code=st.none() | TEXT),
)
VERBS: list[Verb] = ["read", "list", "exists", "run", "nvml", "symbol", "experiment"]
CALLS = st.builds(
    Call,
    verb=st.sampled_from(VERBS),
    args=st.lists(TEXT, max_size=3).map(tuple),
    answer=ANSWERS,
    took_s=st.floats(0, 1e9),
)
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=3)), timezone(-timedelta(hours=11, minutes=30))])
TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=ZONES)  # noqa: DTZ001 # naive bounds


@MANY
@given(snapshots(), st.lists(CALLS, max_size=3), TIMES, st.lists(TEXT, max_size=2), st.data())
def test_a_snapshot_survives_its_file(
    entries: Entries, calls: list[Call], at: datetime, notes: list[str], data: st.DataObject
) -> None:
    shuffled = dict(data.draw(st.permutations(list(entries.items()))))
    made, again = (
        Snapshot(
            made_by="x",
            made_at=at,
            redacted=at.minute > 30,
            readings=Readings(readings),
            transcript=tuple(calls),
            notes=tuple(notes),
        )
        for readings in (entries, shuffled)
    )
    written = encode(made)
    read = READER.read(written)
    assert list(read.readings.items()) == list(made.readings.items())
    assert read.transcript == made.transcript
    assert (read.made_by, read.made_at, read.redacted, read.notes) == ("x", at, made.redacted, made.notes)
    assert encode(read) == encode(again) == written


def test_equal_snapshots_are_equal() -> None:
    assert READER.read(BYTES) == SMALL


# --- and nothing else is -----------------------------------------------------------------------------


def test_a_file_cut_off_anywhere_is_refused() -> None:
    for end in range(len(COMPACT) - 1):
        assert refusal(COMPACT[:end])
    assert refusal(COMPACT) is None


def put(path: str, value: object) -> bytes:
    """The small file with one value replaced, given as a dotted path."""

    def change(document: Any) -> None:  # noqa: ANN401 # any JSON
        *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        for step in way:
            document = document[step]
        document[last] = value

    return changed(change)


def raw(value: bytes) -> bytes:
    """The small file with these bytes for the answer of NVML."""
    return COMPACT.replace(b'{"a": [1, 2.5, null, true]}', value)


BRIDGES, NOTE, PEER, WIRE = range(4)  # the order of the facts' names
BAD = {
    "empty": b"",
    "spaces": b"  \n",
    "null": b"null",
    "a list": b"[]",
    "foreign": b'{"hello": 1}',
    "not JSON": b"\x7fELF\x02\x01\x01",
    "UTF-16": BYTES.decode().encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + BYTES,
    "something after it": BYTES + b"{}",
    "a NUL after it": BYTES + b"\0",
    "two of it": BYTES * 2,
    "65 MiB": COMPACT + b" " * (65 * 2**20),
    "64 MiB of spaces": b" " * SIZE_LIMIT,
    "64 MiB of brackets": b"[" * SIZE_LIMIT,
    "100000 brackets": b"[" * 100_000,
    "a deep unknown field": b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a deep value": raw(b"[" * 100_000 + b"]" * 100_000),
    "a deep object": raw(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "a deep open value": raw(b"[" * 10_000_000),
    "NaN": raw(b"NaN"),
    "Infinity": raw(b"-Infinity"),
    "a float too large": raw(b"1e400"),
    "an exponent of a million digits": raw(b"1e" + b"9" * 1_000_000),
    "an int of a million digits": raw(b"9" * 1_000_000),
    "invalid UTF-8": raw(b'"\xff"'),
    "an overlong NUL": raw(b'"\xc0\x80"'),
    "a lone surrogate": raw(b'"\\ud800"'),
    "a lone low surrogate": raw(b'"\\udfff"'),
    "a raw surrogate": raw(b'"\xed\xa0\x80"'),
    "a raw escape character": raw(b'"\x1b[2J"'),
    "another format": put("format", "sosreport"),
    "a newer version": put("version", 2),
    "a version of 400 digits": put("version", 10**400),
    "a version of 10000 digits": COMPACT.replace(b'"version": 1', b'"version": 1' + b"0" * 10_000),
    "version 0": put("version", 0),
    "a negative version": put("version", -(10**400)),
    "a version in words": put("version", "1"),
    "a huge figure": put(f"readings.{NOTE}.reading.refs", [10**400]),
    "a negative reference": put(f"readings.{NOTE}.reading.refs", [-1]),
    "a reference past the transcript": put(f"readings.{NOTE}.reading.refs", [2]),
    "an absent one's reference": put(f"readings.{WIRE}.reading.refs", [0, 2]),
    "a reading twice": changed(lambda d: d["readings"].append(d["readings"][NOTE])),
    "an unknown fact": put(f"readings.{NOTE}.fact", "astrology"),
    "a fact under another's name": put(f"readings.{NOTE}.fact", "plain"),
    "an unknown value": put(f"readings.{NOTE}.reading.value.fact", "astrology"),
    "an unknown kind of answer": put("transcript.0.answer.is", "sung"),
    "an escape in a tag": put("transcript.0.answer.is", "\x1b]0;x\x07" * 99),
    "an escape in a field's name": put("\x1b[2J" * 99, 1),
    "a long unknown field": put("é" * 1_000_000, 1),
    "a host's fact of a GPU": put(f"readings.{NOTE}.subject", "gpu0"),
    "a GPU's fact of the host": put(f"readings.{BRIDGES}.subject", "host"),
    "no such subject": put(f"readings.{NOTE}.subject", "gpu0000"),
    "a subject of a million digits": put(f"readings.{NOTE}.subject", "gpu" + "1" * 1_000_000),
    "a text too long": put("notes.0", "x" * (TEXT_LIMIT + 1)),
    "no such day": put("made_at", "2025-02-30T00:00:00Z"),
    "no such time": put("made_at", "2025-02-03T99:00:00Z"),
    "a time as a number": put("made_at", 1e300),
    "took for ever": put("transcript.0.took_s", 1e300),
    "took less than nothing": put("transcript.0.took_s", -1),
}
ACCEPTED_YET = {
    "a format that is no ASCII": (put("format", "→é" * 99), "the line is not ASCII"),
    "a format of wide escapes": (put("format", "\U0010ffff" * 99), "the line is over 300 characters"),
    "an unknown fact that is no ASCII": (put(f"readings.{NOTE}.fact", "é→"), "the line is not ASCII"),
    "an unknown fact of wide escapes": (put(f"readings.{NOTE}.fact", "\U0010ffff" * 128), "the line is too long"),
    "an unknown fact of escapes": (put(f"readings.{NOTE}.fact", "\x1b" * 128), "the line is too long"),
    "a pair's reading twice": (changed(lambda d: d["readings"].append(d["readings"][PEER])), "not ASCII"),
    "a host's fact of a pair": (put(f"readings.{NOTE}.subject", "gpu0→gpu1"), "not ASCII"),
    "a subject and a line's end": (put(f"readings.{NOTE}.subject", "host\n"), "accepted: $ matches before it"),
    "a GPU and a line's end": (put(f"readings.{NOTE}.subject", "gpu0\n"), "a line's end in the line"),
    "a foreign digit": (put(f"readings.{BRIDGES}.subject", "gpu٣"), r"accepted: \d matches every script's digits"),
    "a leading zero": (put(f"readings.{BRIDGES}.subject", "gpu00"), "accepted: gpu00 is not gpu0, and no subject"),
    "a pair of one": (put(f"readings.{PEER}.subject", "gpu0→gpu0"), "accepted"),
    "a time without a zone": (put("made_at", "2025-02-03T04:05:06"), "accepted: cannot be compared with another"),
}


@pytest.mark.parametrize(
    "data",
    [
        *(pytest.param(data, id=name) for name, data in BAD.items()),
        *(pytest.param(data, id=name) for name, (data, why) in ACCEPTED_YET.items()),
    ],
)
def test_bad_files_are_refused_in_one_line(data: bytes) -> None:
    assert refusal(data)


ESCAPES = ["\x1b]0;pwned\x07\x1b[2J", "\u202egnp.exe", "a\x00b", "\r\n" * 9, "\U0001f600", "{0}{x}%s"]


@pytest.mark.parametrize("value", ESCAPES)
def test_a_terminals_escapes_stay_data(value: str) -> None:
    read = READER.read(put(f"readings.{NOTE}.reading.value.text", value))
    found = read.readings.get(Note)
    assert isinstance(found, Known)
    assert found.value.text == value
    assert READER.read(encode(read)).readings.get(Note) == found
    assert b"\x1b" not in encode(read)


@pytest.mark.parametrize("digits", [20, 400, 4000])
def test_a_long_int_of_nvml_stays_itself(digits: int) -> None:
    read = READER.read(raw(b"9" * digits))
    assert read.transcript[0].answer == Gave(10**digits - 1)
    assert encode(READER.read(encode(read))) == encode(read)


def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:  # noqa: ANN401 # any JSON
    """The way to each value of a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(place for step, child in inner for place in places(child, (*way, step)))]


DROPPED = object()
NASTY = [DROPPED, 10**400, -(10**400), 1e308, "\x1b[2J" * 99, [[]] * 9, {"is": "known"}]
WRONG = st.one_of(VALUES, st.sampled_from(NASTY))


@MANY
@given(st.sampled_from(places(json.loads(BYTES))[1:]), WRONG)
def test_one_wrong_value_anywhere_is_refused_or_harmless(way: tuple[Any, ...], wrong: object) -> None:
    document = json.loads(BYTES)
    parent = document
    for step in way[:-1]:
        parent = parent[step]
    if wrong is DROPPED:
        del parent[way[-1]]
    else:
        parent[way[-1]] = wrong
    check_harmless(json.dumps(document).encode())


def check_harmless(data: bytes) -> None:
    """Whatever is read can be written, and read again."""
    try:
        read = READER.read(data)
    except BadSnapshot:
        return
    assert encode(READER.read(encode(read))) == encode(read)


@MANY
@given(st.binary(max_size=60), st.integers(0, len(COMPACT)), st.integers(0, 20))
def test_any_bytes_anywhere_are_refused_or_harmless(junk: bytes, at: int, over: int) -> None:
    check_harmless(COMPACT[:at] + junk + COMPACT[at + over :])
