"""kernels.ptx itself, run on a machine for its few instructions, against what kernels.py says of each kernel."""

from __future__ import annotations

import struct
from typing import Final

import pytest

from ptx import BASE, Kernel, Memory
from warmspare.control.kernels import ALL, checksum_of, ptx, word

SEED: Final = 20261122
COUNT: Final = 7
RESULT: Final = BASE + 8 * COUNT
GRIDS: Final = [(1, 1), (2, 2), (3, 5)]
PATTERN: Final = [word(SEED, index) for index in range(COUNT)]
each_grid = pytest.mark.parametrize(("blocks", "threads"), GRIDS)


def after(name: str, memory: Memory, *arguments: float, blocks: int = 1, threads: int = 1) -> list[int]:
    Kernel(ptx(), name).run(memory, *arguments, blocks=blocks, threads=threads)
    return memory.words


@each_grid
def test_fill_and_add(blocks: int, threads: int) -> None:
    memory = Memory([1] * (COUNT + 1))
    assert after("fill", memory, BASE, COUNT, SEED, blocks=blocks, threads=threads) == [*PATTERN, 1]
    more = [one + ALL & ALL for one in PATTERN]
    assert after("add", memory, BASE, COUNT, ALL, blocks=blocks, threads=threads) == [*more, 1]


@each_grid
@pytest.mark.parametrize("wrong", [[], [0], [6], [2, 3, 5]])
def test_check(blocks: int, threads: int, wrong: list[int]) -> None:
    memory = Memory([one ^ (index in wrong) << 63 for index, one in enumerate(PATTERN)] + [0, ALL])
    found = after("check", memory, BASE, COUNT, SEED, RESULT, blocks=blocks, threads=threads)[COUNT:]
    assert found == [len(wrong), min(wrong, default=ALL)]


@pytest.mark.parametrize(("blocks", "threads"), [(1, 32), (2, 64), (3, 32)])
def test_checksum(blocks: int, threads: int) -> None:
    words = [0, ALL, *PATTERN[2:]]
    found = after("checksum", Memory([*words, 0]), BASE, COUNT, RESULT, blocks=blocks, threads=threads)
    assert found == [*words, checksum_of(words)]


def floats(memory: Memory) -> list[float]:
    return list(struct.unpack_from(f"<{COUNT}f", memory.data))


@each_grid
def test_floats(blocks: int, threads: int) -> None:
    memory = Memory([0] * (COUNT + 2))
    after("fill_floats", memory, BASE, COUNT, SEED, 3, blocks=blocks, threads=threads)
    assert floats(memory) == [(one >> 48) + 3 for one in PATTERN]
    struct.pack_into(f"<{COUNT}f", memory.data, 0, *[4 * (one >> 48) + 9 for one in PATTERN])
    for plus, found in ((9, [0, ALL]), (8, [COUNT, 0])):
        struct.pack_into("<QQ", memory.data, 8 * COUNT, 0, ALL)
        said = after("check_floats", memory, BASE, COUNT, SEED, 4, plus, RESULT, blocks=blocks, threads=threads)
        assert said[COUNT:] == found


@pytest.mark.parametrize(("steps", "end"), [(1, 16), (2, 8), (3, 24), (4, 0)])
def test_chase(steps: int, end: int) -> None:
    ring = [BASE + 16, BASE + 24, BASE + 8, BASE]
    assert after("chase", Memory([*ring, 0]), BASE, steps, BASE + 32)[-1] == BASE + end


@pytest.mark.parametrize(("flag", "patience", "seen"), [(5, 10**6, 1), (4, 1000, 0), (5, 0, 1)])
def test_hold(flag: int, patience: int, seen: int) -> None:
    assert after("hold", Memory([flag, 9]), BASE, 5, patience, BASE + 8) == [flag, seen]


class Late(Memory):
    """Its first word becomes 5 once it has been looked at ten times."""

    looks = 0

    def load(self, kind: str, address: int) -> float:
        """Count the looks at the first word."""
        self.looks += address == BASE
        if self.looks == 10:
            self.store("u64", BASE, 5)
        return super().load(kind, address)


@pytest.mark.parametrize(("patience", "seen"), [(10**6, 1), (200, 0)])
def test_hold_looks_until_it_sees_or_loses_patience(patience: int, seen: int) -> None:
    assert after("hold", Late([4, 9]), BASE, 5, patience, BASE + 8)[1] == seen


def test_a_seal_gets_its_version_last() -> None:
    kernel = Kernel(ptx(), "seal")
    stores = [operation for _, _, operation, _ in kernel.parts if operation.startswith(("st.", "membar"))]
    assert stores == ["st.global.u64"] * 3 + ["membar.sys", "st.volatile.global.u64"]
    assert after("seal", Memory([0, 0, 0, 0, 77]), BASE, 6, BASE + 32, 7, 5) == [5, 6, 77, 7, 77]
