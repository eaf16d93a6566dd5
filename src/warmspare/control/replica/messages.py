"""What writer and reader say: small messages of fixed fields.

A message is its length (4 bytes) and its kind (1 byte), then the fields, little-endian. Nothing else is taken, and
nothing is unpickled: a peer that says anything else is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from warmspare.control.replica.errors import ProtocolError

MAGIC: Final = b"wsrp"
PROTOCOL: Final = 1
_HEAD: Final = struct.Struct("<IB")


class Hello(NamedTuple):
    """The reader's first words: where the replica is. `tag` is in every seal of this session."""

    magic: bytes
    protocol: int
    slots: int
    size: int
    tag: int
    gpu: bytes
    handle: bytes


class Ready(NamedTuple):
    """The writer's first words: it has opened the replica."""

    protocol: int


class News(NamedTuple):
    """The writer's: a version is whole. `published_ns` is CLOCK_MONOTONIC as `publish` was called."""

    version: int
    slot: int
    published_ns: int


class Accepted(NamedTuple):
    """The reader's: it holds this version now."""

    version: int
    slot: int


class Released(NamedTuple):
    """The reader's: the slot with this version may be written again."""

    version: int
    slot: int


class Goodbye(NamedTuple):
    """Either's: it closes in peace."""

    protocol: int = PROTOCOL


Message: TypeAlias = Hello | Ready | News | Accepted | Released | Goodbye
FORMS: Final = MappingProxyType({
    Hello: struct.Struct("<4sIQQQ48s64s"),
    Ready: struct.Struct("<I"),
    News: struct.Struct("<QQQ"),
    Accepted: struct.Struct("<QQ"),
    Released: struct.Struct("<QQ"),
    Goodbye: struct.Struct("<I"),
})  # fmt: skip
_KINDS: Final[tuple[type[Message], ...]] = tuple(FORMS)


def encoded(message: Message) -> bytes:
    """A message as it is sent."""
    fields = FORMS[type(message)].pack(*message)
    return _HEAD.pack(len(fields), _KINDS.index(type(message))) + fields


def decoded(data: bytearray) -> Iterator[Message]:
    """The whole messages at the beginning of `data`, which are taken out of it.

    Raises:
        ProtocolError: it begins with no message of ours.
    """
    while len(data) >= _HEAD.size:
        length, number = _HEAD.unpack_from(data)
        if number >= len(_KINDS) or length != FORMS[_KINDS[number]].size:
            message = f"{length} bytes of kind {number} are no message"
            raise ProtocolError(message)
        end = _HEAD.size + length
        if len(data) < end:
            return
        fields = FORMS[_KINDS[number]].unpack_from(data, _HEAD.size)
        del data[:end]
        yield _KINDS[number](*fields)
