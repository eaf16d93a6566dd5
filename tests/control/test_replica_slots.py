"""Whose slot is whose, over random histories: crashes anywhere, queued work that outlives its writer, silent faults."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from warmspare.control.replica.errors import ProtocolError
from warmspare.control.replica.slots import ALIGNMENT, Layout, ReaderSlots, Sealed, Slot, WriterSlots, laid_out

WORDS: Final = 3
TAG, OTHER_TAG = 7, 9


def pattern(version: int) -> list[int]:
    return [version * 100 + word for word in range(WORDS)]


class Work(NamedTuple):
    """One thing that the writer's GPU does, in the stream's order."""

    slot: int
    version: int
    what: int  # -1: the seal off; 0 to WORDS - 1: that word over; WORDS: the seal on, and then the news


class Machine(RuleBasedStateMachine):
    """Two processes, a GPU's queue between them, and the memory that both can reach."""

    @initialize(slots=st.integers(3, 5))
    def begin(self, slots: int) -> None:
        """Memory as it comes."""
        layout = Layout(slots, WORDS * 8)
        self.layout = layout
        # What was in the memory before: seals that look right, of another session.
        self.seals = {n: Sealed(50 + n, WORDS * 8, sum(pattern(50 + n)), OTHER_TAG) for n in range(slots)}
        self.words = {n: pattern(50 + n) for n in range(slots)}
        self.writer, self.reader = WriterSlots(slots), ReaderSlots(slots)
        self.queue: deque[Work] = deque()
        self.to_reader: deque[Slot] = deque()
        self.to_writer: deque[Slot] = deque()
        self.kept: list[Slot] = []
        self.spoiled: set[int] = set()
        self.completed = self.highest = 0
        self.published = 0
        self.is_dead = self.is_over = False

    def is_whole(self, slot: Slot) -> bool:
        """What the reader's GPU would say."""
        seal = self.seals[slot.slot]
        return (
            seal.version == slot.version
            and seal.may_be(self.layout, TAG)
            and seal.checksum == sum(self.words[slot.slot])
        )

    @precondition(lambda self: not self.is_dead and not self.writer.is_full)
    @rule()
    def publish(self) -> None:
        """The writer never has a slot that the reader holds."""
        version, slot = self.writer.take()
        assert slot not in {held.slot for held in (*self.kept, *filter(None, [self.reader.newest]))}
        self.published = version
        self.queue += [Work(slot, version, what) for what in range(-1, WORDS + 1)]

    @precondition(lambda self: self.queue)
    @rule(times=st.integers(1, 6), is_spoiled=st.sampled_from((False, False, False, True)))
    def gpu_works(self, times: int, is_spoiled: bool) -> None:  # noqa: FBT001 # hypothesis names it
        """Some of what is queued is done, perhaps with a word gone wrong."""
        for _ in range(min(times, len(self.queue))):
            slot, version, what = self.queue.popleft()
            if what < 0:
                self.seals[slot] = Sealed(0, 0, 0, 0)
            elif what < WORDS:
                self.words[slot][what] = pattern(version)[what] + is_spoiled
                self.spoiled |= {version} if is_spoiled else set()
            else:
                self.seals[slot] = Sealed(version, WORDS * 8, sum(pattern(version)), TAG)
                self.completed = version if version not in self.spoiled else self.completed
                if not self.is_dead:
                    self.writer.told(version, slot)
                    self.to_reader.append(Slot(version, slot))

    @precondition(lambda self: self.to_reader and not self.is_over)
    @rule(times=st.integers(1, 3))
    def reader_hears(self, times: int) -> None:
        """Some of the news, all of it settled."""
        for _ in range(min(times, len(self.to_reader))):
            self.reader.told(*self.to_reader.popleft())
        self.to_writer += self.reader.settle(self.is_whole)

    @precondition(lambda self: self.to_writer and not self.is_dead)
    @rule()
    def writer_hears(self) -> None:
        """One released slot."""
        released = self.to_writer.popleft()
        self.writer.released(released.version, released.slot)

    @precondition(lambda self: self.reader.newest)
    @rule()
    def keep(self) -> None:
        """Somebody uses the newest version."""
        slot = self.reader.keep()
        assert slot
        self.kept.append(slot)

    @precondition(lambda self: self.kept)
    @rule(which=st.integers(0, 9))
    def let_go(self, which: int) -> None:
        """And no longer."""
        released = self.reader.let_go(self.kept.pop(which % len(self.kept)))
        if released and not self.is_over:
            self.to_writer.append(released)

    @precondition(lambda self: not self.is_dead)
    @rule()
    def die(self) -> None:
        """The host's part of the writer is gone; what its GPU has queued may still be done, some time or never."""
        self.is_dead = True
        self.acknowledged = self.completed

    @precondition(lambda self: self.is_dead and not self.is_over)
    @rule()
    def take_over(self) -> None:
        """Nothing that was known to be whole is lost."""
        self.is_over = True
        seals = {slot: seal for slot, seal in self.seals.items() if seal.may_be(self.layout, TAG)}
        taken, _ = self.reader.take_over(seals, self.is_whole)
        assert (taken.version if taken else 0) >= max(self.acknowledged, self.highest)
        assert not taken or taken.version <= self.published
        assert not taken or self.published - taken.version <= self.layout.slots + len(self.spoiled)

    @precondition(lambda self: self.is_over)
    @rule()
    def look_again(self) -> None:
        """Later, when more of what was queued may have been done."""

    @invariant()
    def what_is_held_is_whole(self) -> None:
        """Whatever is queued or done: the reader's version has exactly its own bytes, and never goes back."""
        for held in (*self.kept, *filter(None, [self.reader.newest])):
            assert self.words[held.slot] == pattern(held.version)
            assert self.is_whole(held)
        assert (self.reader.newest.version if self.reader.newest else 0) >= self.highest
        self.highest = self.reader.newest.version if self.reader.newest else 0


Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestHistories = Machine.TestCase


@given(st.integers(3, 64), st.integers(1, 10**6))
def test_slots_are_aligned_and_do_not_overlap(slots: int, words: int) -> None:
    layout = laid_out(slots, words * 8)
    ends = [layout.state(slot) + layout.size for slot in range(slots)]
    assert all(layout.state(slot) % ALIGNMENT == layout.seal(slot) % ALIGNMENT == 0 for slot in range(slots))
    assert all(end <= layout.seal(slot + 1) for slot, end in enumerate(ends[:-1]))
    assert ends[-1] <= layout.total


@pytest.mark.parametrize(("slots", "size"), [(2, 8), (65, 8), (3, 0), (3, -8), (3, 12)])
def test_a_layout_that_cannot_be_is_refused(slots: int, size: int) -> None:
    with pytest.raises(ValueError, match="a replica"):
        laid_out(slots, size)


def test_what_was_in_a_released_slot_is_stale_even_if_it_looks_whole_later() -> None:
    reader = ReaderSlots(3)
    reader.told(1, 0)
    assert list(reader.settle(lambda _: False)) == [Slot(1, 0)]
    taken, torn = reader.take_over({0: Sealed(1, 8, 0, TAG)}, lambda _: True)
    assert (taken, torn) == (None, 0)


def test_a_torn_version_falls_back_to_the_one_before() -> None:
    reader = ReaderSlots(3)
    reader.told(1, 0)
    reader.settle(lambda _: True)
    seals = {0: Sealed(1, 8, 0, TAG), 1: Sealed(2, 8, 0, TAG), 2: Sealed(3, 8, 0, TAG)}
    assert reader.take_over(seals, lambda slot: slot.version < 2) == (Slot(1, 0), 2)


@pytest.mark.parametrize("news", [(1, 0), (2, 0), (2, 3), (1, 1), (0, 1)])
def test_news_that_cannot_be_is_refused(news: tuple[int, int]) -> None:
    reader = ReaderSlots(3)
    reader.told(1, 0)
    reader.settle(lambda _: True)
    with pytest.raises(ProtocolError):
        reader.told(*news)


@pytest.mark.parametrize("released", [(1, 1), (2, 0), (1, 9)])
def test_a_release_of_what_is_not_there_is_refused(released: tuple[int, int]) -> None:
    writer = WriterSlots(3)
    writer.told(*writer.take())
    with pytest.raises(ProtocolError):
        writer.released(*released)


def test_a_slot_that_the_reader_was_not_told_of_cannot_be_released() -> None:
    writer = WriterSlots(3)
    writer.take()
    with pytest.raises(ProtocolError):
        writer.released(1, 0)
