"""Which slot of a replica is whose, and which version may be believed: decided here, without a GPU or a socket.

The reader's process owns the memory. A slot is either the reader's or, once released, the writer's, who may write
one version into it and then must wait for its next release. So whatever a writer left queued when it died lands in
slots that the reader had released; the version that the reader holds is never among them.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, NamedTuple

from warmspare.control.replica.errors import ProtocolError

WORD_BYTES: Final = 8
SEAL_BYTES: Final = 4 * WORD_BYTES
ALIGNMENT: Final = 256
"""Of each slot and its state, so that copies and kernels run at full width."""
LEAST_SLOTS: Final = 3
"""One is held by the reader, one is on its way to being accepted, one is written."""
MOST_SLOTS: Final = 64


class Layout(NamedTuple):
    """How the replica lies in memory: `slots` times a seal and `size` bytes of state, each aligned."""

    slots: int
    size: int

    @property
    def stride(self) -> int:
        """Bytes from a slot to the next."""
        return ALIGNMENT + -(-self.size // ALIGNMENT) * ALIGNMENT

    @property
    def total(self) -> int:
        """Bytes of all slots."""
        return self.slots * self.stride

    def seal(self, slot: int) -> int:
        """Where the seal of a slot is, in bytes from the start."""
        return slot * self.stride

    def state(self, slot: int) -> int:
        """Where the state of a slot is, in bytes from the start."""
        return slot * self.stride + ALIGNMENT


def laid_out(slots: int, size: int) -> Layout:
    """A layout that is possible.

    Raises:
        ValueError: too few or too many slots, or a size that is no positive multiple of 8 bytes.
    """
    if not LEAST_SLOTS <= slots <= MOST_SLOTS:
        message = f"a replica has {LEAST_SLOTS} to {MOST_SLOTS} slots, not {slots}"
        raise ValueError(message)
    if size <= 0 or size % WORD_BYTES:
        message = f"a replica's size is a positive multiple of {WORD_BYTES} bytes, not {size}"
        raise ValueError(message)
    return Layout(slots, size)


class Sealed(NamedTuple):
    """The words of a seal as they are found in memory. Version 0 is no version: the slot is being written."""

    version: int
    size: int
    checksum: int
    tag: int

    def may_be(self, layout: Layout, tag: int) -> bool:
        """Whether it can be a seal of this session at all; then the checksum decides."""
        return self.version > 0 and self.tag == tag and 0 < self.size <= layout.size and self.size % WORD_BYTES == 0


class Slot(NamedTuple):
    """A version and the slot it is in."""

    version: int
    slot: int


class Version(NamedTuple):
    """A version that was verified: `size` bytes at `pointer`, on the reader's GPU.

    `lag_s` is the time from the call of `publish` to its acceptance; None where it was found after the writer's death.
    """

    number: int
    pointer: int
    size: int
    slot: int
    lag_s: float | None = None


class Ended(NamedTuple):
    """How a session ended. Times are of CLOCK_MONOTONIC, in seconds.

    `died`: the socket closed without a goodbye, and `version` is what was taken over. `closed`: the writer said
    goodbye. `broken`: it said what it must not say, the reader's own GPU failed (also where the writer had died, and
    what it left could not be verified), or a callback raised something; `problem` says which.
    `unsealed` slots were being written, `torn` ones had a seal and not the bytes that it is of.
    """

    how: Literal["died", "closed", "broken"]
    version: Version | None
    noticed_s: float
    verified_s: float
    unsealed: int = 0
    torn: int = 0
    problem: str = ""


class WriterSlots:
    """The writer's view: which slots it may write, and what it has written into the others."""

    def __init__(self, slots: int) -> None:
        """All slots are the writer's at first."""
        self._free = deque(range(slots))
        self._told: dict[int, int] = {}
        self._newest = 0

    @property
    def is_full(self) -> bool:
        """Whether no slot is left to write."""
        return not self._free

    def take(self) -> Slot:
        """The next version, and the slot to write it into; there must be one."""
        self._newest += 1
        return Slot(self._newest, self._free.popleft())

    def untaken(self, taken: Slot) -> None:
        """Nothing was written that is whole, and nothing is on its way: the slot is free; the version stays unused."""
        self._free.append(taken.slot)

    def told(self, version: int, slot: int) -> None:
        """The reader is about to be told of a version; from now on it may release the slot."""
        self._told[slot] = version

    def released(self, version: int, slot: int) -> None:
        """The reader released a slot.

        Raises:
            ProtocolError: that version is not there, or the reader was not told of it.
        """
        if self._told.get(slot) != version:
            message = f"the reader released version {version} in slot {slot}, which is not there"
            raise ProtocolError(message)
        del self._told[slot]
        self._free.append(slot)


class ReaderSlots:
    """The reader's view: what it holds, what it was told of, and what in a released slot would be stale."""

    def __init__(self, slots: int) -> None:
        """All slots are the writer's at first."""
        self._floors = dict.fromkeys(range(slots), 0)
        self._told: list[Slot] = []
        self._last_told = 0
        self._kept: dict[Slot, int] = {}
        self.newest: Slot | None = None

    def told(self, version: int, slot: int) -> None:
        """The writer says that a version is whole.

        Raises:
            ProtocolError: it is not newer than the last, or in a slot that is not the writer's.
        """
        mine = {held.slot for held in (*self._told, *self._kept, *filter(None, [self.newest]))}
        if slot not in self._floors or slot in mine or version <= self._last_told:
            message = f"the writer told of version {version} in slot {slot}, which cannot be"
            raise ProtocolError(message)
        self._last_told = version
        self._told.append(Slot(version, slot))

    def settle(self, is_whole: Callable[[Slot], bool]) -> Iterable[Slot]:
        """Accept the newest version told of that is whole; gives the slots that may be released now, oldest first.

        Those told of that are older than an accepted one are not looked at; one that is not whole is released as
        well, and what is held stays.
        """
        told, self._told = self._told, []
        accepted = next((found for found in reversed(told) if is_whole(found)), None)
        done = [found for found in told if found != accepted]
        if accepted:
            if self.newest and self.newest not in self._kept:
                done.insert(0, self.newest)
            self.newest = accepted
        return [self._release(slot) for slot in done]

    def keep(self) -> Slot | None:
        """Hold on to the newest version, also when it is superseded; `let_go` as often."""
        if self.newest:
            self._kept[self.newest] = self._kept.get(self.newest, 0) + 1
        return self.newest

    def let_go(self, slot: Slot) -> Slot | None:
        """Need a version no more; gives it if its slot may be released now."""
        self._kept[slot] -= 1
        if self._kept[slot]:
            return None
        del self._kept[slot]
        return None if slot == self.newest else self._release(slot)

    def take_over(self, seals: Mapping[int, Sealed], is_whole: Callable[[Slot], bool]) -> tuple[Slot | None, int]:
        """The writer is gone: the highest version that is whole, of all slots, and how many higher ones are torn.

        `seals` are those that can be of this session. In a slot that was released, what had been there before is
        stale: its successor may be on its way still. Nothing is released any more.
        """
        found = sorted(
            (Slot(s.version, slot) for slot, s in seals.items() if s.version > self._floors[slot]), reverse=True
        )
        torn = list(itertools.takewhile(lambda slot: not is_whole(slot), found))
        self.newest = found[len(torn)] if len(torn) < len(found) else None
        return self.newest, len(torn)

    def _release(self, slot: Slot) -> Slot:
        # Everything told of so far is stale there: also a version that was refused, or put elsewhere by mistake.
        self._floors[slot.slot] = max(self._floors[slot.slot], slot.version)
        return slot
