"""Redaction: identities out of a snapshot, stable pseudonyms in.

Two mentions of one thing stay equal, so a redacted recording can still be read by the probes. The
pseudonym is keyed by a secret of the machine, so that a serial number cannot be found by trying all.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec

from warmspare.model.facts import Fact, Known, Readings
from warmspare.model.snapshot import Snapshot
from warmspare.model.transcript import Call, Failed, Gave, Listed, Ran, Said

UUID: Final = re.compile(
    r"(?<![0-9a-f])[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?![0-9a-f])", re.IGNORECASE
)
SERIAL: Final = re.compile(r"(?i)(\b(?:serial(?: ?number|_number|no)?|board id|machine-id)\b\W{1,20})([\w.-]{4,64})")
MAC: Final = re.compile(r"(?<![0-9a-f:])(?:[0-9a-f]{2}:){5}[0-9a-f]{2}(?![0-9a-f:])", re.IGNORECASE)
HOME: Final = re.compile(r"(?P<root>/home/|/Users/|/mnt/[a-z]/Users/|[A-Za-z]:\\Users\\)(?P<name>[^/\\\s:'\"]{1,64})")
BUILDER: Final = re.compile(r"\((?P<who>[\w.+-]{1,64}@[\w.-]{1,255})\)")
"""Who built the kernel, as /proc/version says it."""


class Identities(msgspec.Struct, frozen=True):
    """What this machine and its user are called. `key` is a secret of the machine."""

    hosts: tuple[str, ...]
    users: tuple[str, ...]
    key: bytes


def redact(snapshot: Snapshot, who: Identities) -> Snapshot:
    """The snapshot without hostnames, serials, UUIDs, MAC addresses, user names and home paths."""
    clean = _cleaner(who)
    return msgspec.structs.replace(
        snapshot,
        redacted=True,
        readings=Readings({key: _reading(reading, clean) for key, reading in snapshot.readings.items()}),
        transcript=tuple(_call(call, clean) for call in snapshot.transcript),
        notes=tuple(clean(note) for note in snapshot.notes),
    )


def _cleaner(who: Identities) -> Callable[[str], str]:
    def digest(kind: str, name: str) -> str:
        return hmac.new(who.key, f"{kind}:{name}".encode(), hashlib.sha256).hexdigest()

    def uuid(found: re.Match[str]) -> str:
        d = digest("uuid", found[0].lower())
        return f"{d[:8]}-{d[8:12]}-{d[12:16]}-{d[16:20]}-{d[20:32]}"

    words = {name: f"host-{digest('host', name)[:6]}" for name in who.hosts}
    words |= {name: f"user-{digest('user', name)[:6]}" for name in who.users}
    named = _any_word(words)

    def clean(text: str) -> str:
        text = UUID.sub(uuid, text)
        text = SERIAL.sub(lambda m: f"{m[1]}{digest('serial', m[2])[:12]}", text)
        text = MAC.sub("00:00:00:00:00:00", text)
        text = BUILDER.sub("(builder@redacted)", text)
        text = HOME.sub(lambda m: f"{m['root']}{words.get(m['name']) or 'user-' + digest('user', m['name'])[:6]}", text)
        return named.sub(lambda m: words[m[0]], text) if named else text

    return clean


def _any_word(names: Iterable[str]) -> re.Pattern[str] | None:
    found = sorted(filter(None, names), key=len, reverse=True)
    return re.compile(r"(?<![\w-])(?:" + "|".join(map(re.escape, found)) + r")(?![\w-])") if found else None


def _reading(reading: Any, clean: Callable[[str], str]) -> Any:  # noqa: ANN401 # any fact's reading
    if isinstance(reading, Known):
        return msgspec.structs.replace(reading, value=_fact(reading.value, clean))
    return msgspec.structs.replace(reading, detail=clean(reading.detail))


def _fact(fact: Fact, clean: Callable[[str], str]) -> Fact:
    hints = get_type_hints(type(fact))
    changes = {
        field: _value(getattr(fact, field), clean)
        for field in fact.__struct_fields__
        if not _is_vocabulary(hints.get(field))
    }
    return msgspec.structs.replace(fact, **changes)


def _is_vocabulary(hint: object) -> bool:
    """Whether a field holds our own words, which a user called `linux` must not spoil."""
    arms = get_args(hint)
    return get_origin(hint) is Literal or any(get_origin(arm) is Literal for arm in arms)


def _value(value: Any, clean: Callable[[str], str]) -> Any:  # noqa: ANN401 # any value a fact may hold
    match value:
        case str():
            return clean(value)
        case tuple():
            return tuple(_value(item, clean) for item in value)
        case list():
            return [_value(item, clean) for item in value]
        case dict():
            return {key: _value(item, clean) for key, item in value.items()}
        case msgspec.Struct() if not isinstance(value, Fact):
            return msgspec.structs.replace(
                value, **{f: _value(getattr(value, f), clean) for f in value.__struct_fields__}
            )
    return value


def _call(call: Call, clean: Callable[[str], str]) -> Call:
    match call.answer:
        case Said(text):
            answer: Any = Said(clean(text))
        case Listed(names):
            answer = Listed(tuple(clean(name) for name in names))
        case Ran() as ran:
            answer = msgspec.structs.replace(
                ran, program=clean(ran.program), stdout=clean(ran.stdout), stderr=clean(ran.stderr)
            )
        case Gave(value):
            answer = Gave(_value(value, clean))
        case Failed() as failed:
            answer = msgspec.structs.replace(failed, detail=clean(failed.detail))
    return msgspec.structs.replace(call, args=tuple(clean(arg) for arg in call.args), answer=answer)
