"""Redaction: identities out of a snapshot, stable pseudonyms in.

Two mentions of one thing stay equal, so a redacted recording can still be read by the probes. The
pseudonym is keyed by a secret of the machine, so that a serial number cannot be found by trying all.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec

from warmspare.model.facts import TEXT_LIMIT, Known, Readings
from warmspare.model.snapshot import Snapshot
from warmspare.model.transcript import Call, Failed, Gave, Listed, Ran, Said

HEX: Final = "[0-9a-fA-F]"
UUID: Final = re.compile(
    rf"(?<!{HEX}){HEX}{{8}}(?P<dash>[-_]){HEX}{{4}}(?P=dash){HEX}{{4}}(?P=dash){HEX}{{4}}(?P=dash){HEX}{{12}}(?!{HEX})"
)
LONG: Final = re.compile(rf"(?<![0-9a-zA-Z]){HEX}{{32,64}}(?![0-9a-zA-Z])")
"""Ids of containers and machines."""
SERIAL: Final = re.compile(r"(?i)((?:serial(?:[ _]?(?:number|no))?|board id|machine-id)[\W_]{1,80})([\w.-]{4,64})")
MAC: Final = re.compile(rf"(?<!{HEX})(?<!{HEX}[:-])(?:{HEX}{{2}}[:-]){{5,19}}{HEX}{{2}}(?!{HEX})(?![:-]{HEX})")
NAME: Final = r"(?P<name>[^/\\\s:'\"]+(?: [^/\\\s:'\"]+){0,3}(?=[/\\])|[^/\\\s:'\"]{1,64})"
HOME: Final = re.compile(
    rf"(?i)(?P<root>/home/|/Users/|/mnt/[a-z]/Users/|[a-z]:\\{{1,2}}Users\\{{1,2}}|\\{{1,2}}home\\{{1,2}}){NAME}"
)
BUILDER: Final = re.compile(r"\([\w.+-]{1,64}@[\w.-]{0,255}\)")
"""Who built the kernel, as /proc/version says it."""

SECRET: Final = re.compile(r"(?i)serial|machine-id|product_uuid|boot_id|board.?id")
"""Questions whose whole answer is an identity."""

Clean = Callable[[str], str]


class Identities(msgspec.Struct, frozen=True):
    """What this machine and its user are called, and the user's home folders. `key` is a secret of the machine."""

    hosts: tuple[str, ...]
    users: tuple[str, ...]
    key: bytes
    homes: tuple[str, ...] = ()


def redact(snapshot: Snapshot, who: Identities) -> Snapshot:
    """The snapshot without hostnames, serials, UUIDs, MAC addresses, user names and home paths."""
    if snapshot.redacted:
        return snapshot
    cleaner = _Cleaner(who, (arg for call in snapshot.transcript for arg in call.args))
    return msgspec.structs.replace(
        snapshot,
        redacted=True,
        readings=Readings({key: cleaner.reading(reading) for key, reading in snapshot.readings.items()}),
        transcript=tuple(cleaner.call(call) for call in snapshot.transcript),
        notes=tuple(cleaner.text(note) for note in snapshot.notes),
    )


class _Cleaner:
    def __init__(self, who: Identities, questions: Iterable[str]) -> None:
        self._key = who.key
        self._homes = _folders(who.homes)
        asked = _vocabulary(self._homes.sub(" ", question) if self._homes else question for question in questions)
        hosts = [name for name in who.hosts if name and name.lower() not in asked]
        users = [name for name in who.users if name and name.lower() not in asked]
        self._words = {name.lower(): f"host-{self._digest('host', name.lower())[:6]}" for name in hosts}
        self._words |= {name.lower(): f"user-{self._digest('user', name.lower())[:6]}" for name in users}
        # A host's name may stand in a file's name; a user called admin is not in sys_admin.
        found = [_any_of(hosts, "a-z0-9-"), _any_of(users, "a-z0-9_-")]
        self._named = [pattern for pattern in found if pattern]

    def _digest(self, kind: str, name: str) -> str:
        return hmac.new(self._key, f"{kind}:{name}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()

    def _uuid(self, found: re.Match[str]) -> str:
        d = self._digest("uuid", found[0].lower().replace("_", "-"))
        return found["dash"].join((d[:8], d[8:12], d[12:16], d[16:20], d[20:32]))

    def _home(self, found: re.Match[str]) -> str:
        name = found["name"].lower()
        return f"{found['root']}{self._words.get(name) or 'user-' + self._digest('user', name)[:6]}"

    def text(self, text: str) -> str:
        """Any text of a machine; never longer than a snapshot may hold."""
        text = self.key(text)
        for named in self._named:
            text = named.sub(lambda m: self._words[m[0].lower()], text)
        return text[:TEXT_LIMIT]

    def key(self, text: str) -> str:
        """The same without looking for names: for what an experiment calls the parts of its answer."""
        text = self._homes.sub("~", text) if self._homes else text
        text = SERIAL.sub(lambda m: f"{m[1]}{self._digest('serial', m[2])[:12]}", UUID.sub(self._uuid, text))
        text = LONG.sub(lambda m: self._digest("id", m[0].lower())[: len(m[0])], text)
        text = BUILDER.sub("(builder@redacted)", MAC.sub("00:00:00:00:00:00", text))
        return HOME.sub(self._home, text)

    def secret(self, text: str) -> str:
        """An answer that is itself an identity."""
        return self._digest("serial", text)[:12] if text.strip() else text

    def reading(self, reading: Any) -> Any:  # noqa: ANN401 # any fact's reading
        if isinstance(reading, Known):
            return msgspec.structs.replace(reading, value=self._struct(reading.value))
        return msgspec.structs.replace(reading, detail=self.text(reading.detail))

    def _struct(self, value: msgspec.Struct) -> msgspec.Struct:
        hints = get_type_hints(type(value))
        changes = {
            field: self._value(getattr(value, field), self.text)
            for field in value.__struct_fields__
            if not _is_vocabulary(hints.get(field))
        }
        return msgspec.structs.replace(value, **changes)

    def _value(self, value: Any, clean: Clean, *, ours: bool = False) -> Any:  # noqa: ANN401 # any value at all
        """A value cleaned through; `ours`: the keys in it are words of an experiment, which a replay must find."""
        match value:
            case Enum():
                return value
            case str():
                return clean(value)
            case tuple() | list():
                return type(value)(self._value(item, clean, ours=ours) for item in value)
            case dict():
                items = {
                    key: self._value(v, self.secret if SECRET.search(key) else clean, ours=ours)
                    for key, v in value.items()
                }
                return {self.key(key) if ours else clean(key): item for key, item in items.items()}
            case msgspec.Struct():
                return self._struct(value)
        return value

    def call(self, call: Call) -> Call:
        clean = self.secret if SECRET.search(" ".join(call.args)) else self.text
        match call.answer:
            case Said(text):
                answer: Any = Said(clean(text))
            case Listed(names):
                answer = Listed(tuple(map(self.text, names)))
            case Ran(stdout=out, stderr=err) as ran:
                program = self.text(ran.program)
                answer = msgspec.structs.replace(ran, program=program, stdout=clean(out), stderr=clean(err))
            case Gave(value):
                answer = Gave(self._value(value, clean, ours=call.verb == "experiment"))
            case Failed(code=code) as failed:
                code = None if code is None else self.text(code)
                answer = msgspec.structs.replace(failed, detail=self.text(failed.detail), code=code)
        return msgspec.structs.replace(call, args=tuple(map(self.text, call.args)), answer=answer)


def _vocabulary(questions: Iterable[str]) -> frozenset[str]:
    """Words that our own questions are made of: no identity, and a replay must find them again.

    Home folders and control groups carry the machine's own names into a question; those are left out.
    """
    own = (HOME.sub(" ", q.rsplit("/", 1)[1] if q.startswith("/sys/fs/cgroup/") else q) for q in questions)
    words = {word for question in own for word in re.findall(r"[a-z0-9_-]+", question.lower())}
    return frozenset(words | {part for word in words for part in re.split(r"[_-]", word)})


def _any_of(names: Iterable[str], word: str) -> re.Pattern[str] | None:
    found = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return re.compile(rf"(?i)(?<![{word}])(?:{found})(?![{word}])") if found else None


def _folders(paths: Iterable[str]) -> re.Pattern[str] | None:
    found = "|".join(map(re.escape, sorted(paths, key=len, reverse=True)))
    return re.compile(rf"(?<![\w.~-])(?:{found})(?![\w-])") if found else None


def _is_vocabulary(hint: object) -> bool:
    """Whether a field holds our own words, which a user called `kvm` must not spoil."""
    return get_origin(hint) is Literal or any(_is_vocabulary(arm) for arm in get_args(hint))
