"""Faults planted for a takeover to see, before one is believed: an oracle that cannot fail is none."""

from __future__ import annotations

import socket
from typing import Final

from warmspare.control.cuda import Context
from warmspare.control.kernels import WORD_BYTES, Kernels, Seal
from warmspare.control.replica import Reader
from warmspare.control.replica.memory import Replica
from warmspare.control.replica.messages import PROTOCOL, Hello, News, Ready, encoded
from warmspare.control.replica.slots import Slot, laid_out
from warmspare.control.replica.wire import Wire

_PLANTED_BYTES: Final = 65_536
_PATIENCE_S: Final = 5.0
_SLOTS: Final = 4


def sees_torn(context: Context, kernels: Kernels, seed: int) -> bool:
    """Whether what is torn or stale is refused on this GPU, and what is whole is not: one by one, and in a takeover."""
    return _verifies(context, kernels, seed) and _takes_over_the_right_one(context, kernels, seed)


def _takes_over_the_right_one(context: Context, kernels: Kernels, seed: int) -> bool:
    """Whether a reader whose writer is gone takes version 2 of these, and counts one that is torn.

    Version 1 is whole and the reader was told of it, 2 is whole and it was not, 3 has a wrong word, and 4 is whole and
    has the seal of another session.
    """
    near, far = socket.socketpair()
    with far, Reader(context.device.uuid, _PLANTED_BYTES, near, slots=_SLOTS) as reader:
        tag = reader.replica.tag
        for version, session in ((1, tag), (2, tag), (3, tag), (4, tag ^ 2)):
            _plant(reader.replica, kernels, seed, Seal(version, _PLANTED_BYTES, 0, session))
        _spoil(reader.replica, 2, seed)
        Wire(far).first(Hello, _PATIENCE_S)
        far.sendall(encoded(Ready(PROTOCOL)) + encoded(News(1, 0, 0)))
        far.close()
        ended = reader.wait(_PATIENCE_S)
        found = ended and ended.version
        return bool(ended and found and (ended.how, found.number, ended.torn, reader.refused) == ("died", 2, 1, 0))


def _plant(replica: Replica, kernels: Kernels, seed: int, seal: Seal) -> None:
    """A whole version, in the slot of its number less one."""
    slot, total = seal.version - 1, replica.context.allocate(WORD_BYTES * 2)
    kernels.fill(replica.state(slot), seal.size, seed + seal.version)
    kernels.start_checksum(replica.state(slot), seal.size, total.pointer)
    kernels.seal(replica.buffer.pointer + replica.layout.seal(slot), seal._replace(checksum_at=total.pointer))
    replica.context.synchronize()
    total.free()


def _spoil(replica: Replica, slot: int, seed: int) -> None:
    """One wrong bit in what is in a slot."""
    word_at = replica.layout.state(slot) + seed % (_PLANTED_BYTES // WORD_BYTES) * WORD_BYTES
    was = replica.buffer.read(WORD_BYTES, word_at)
    replica.buffer.write(bytes([was[0] ^ 1, *was[1:]]), word_at)


def _verifies(context: Context, kernels: Kernels, seed: int) -> bool:
    """Whether the verification of one version takes what is whole and refuses what is not.

    Planted are a wrong word, the seal of another session, and another version's number.
    """
    tag = seed | 1
    with Replica(context, laid_out(3, _PLANTED_BYTES), tag) as replica:
        state, total = replica.state(0), replica.state(1)
        seal_at = replica.buffer.pointer + replica.layout.seal(0)
        kernels.fill(state, _PLANTED_BYTES, seed)
        kernels.start_checksum(state, _PLANTED_BYTES, total)
        kernels.seal(seal_at, Seal(1, _PLANTED_BYTES, total, tag))
        context.synchronize()
        takes_whole = replica.verified(Slot(1, 0)) is not None
        takes_other_number = replica.verified(Slot(2, 0)) is not None
        word_at = replica.layout.state(0) + seed % (_PLANTED_BYTES // WORD_BYTES) * WORD_BYTES
        whole = replica.buffer.read(WORD_BYTES, word_at)
        replica.buffer.write(bytes([whole[0] ^ 1, *whole[1:]]), word_at)
        takes_torn = replica.verified(Slot(1, 0)) is not None
        replica.buffer.write(whole, word_at)
        kernels.seal(seal_at, Seal(1, _PLANTED_BYTES, total, tag ^ 2))
        context.synchronize()
        takes_stale = replica.verified(Slot(1, 0)) is not None
    return takes_whole and not (takes_other_number or takes_torn or takes_stale)
