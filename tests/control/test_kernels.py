"""The patterns, sums and seals of kernels.py, and its kernels: by the stand-in's C, and as text for the assembler."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import copy_scenes
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from conftest import CI
from scenes import played
from standins import Drivers, compilers
from warmspare.control.kernels import ALL, checksum_of, mix, ptx, word

WORDS = st.integers(0, ALL)
LISTS = st.lists(WORDS, min_size=2, max_size=8)


@pytest.mark.skipif(not compilers() and not CI, reason="needs a C compiler, or the wheel ziglang")
def test_each_kernel_does_what_its_python_says(tmp_path: Path) -> None:
    found = played(Drivers(tmp_path).world("honest"), copy_scenes.kernels_agree)
    assert {name for name, good in found.items() if not good} == set()
    assert len(found) == 11


def test_a_pattern_is_known_from_outside() -> None:
    # The first numbers of splitmix64 for the seed 1234567, as its authors' C gives them.
    assert [word(1234567, index) for index in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@given(WORDS, WORDS)
def test_the_mix_is_a_bijection_and_no_two_words_of_a_pattern_are_the_same(one: int, other: int) -> None:
    assume(one != other)
    assert mix(one) != mix(other)
    assert word(7, one >> 1) != word(7, other >> 1) or one >> 1 == other >> 1


@given(LISTS, st.data())
def test_another_word_gives_another_checksum(words: list[int], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(words) - 1))
    other = data.draw(WORDS.filter(lambda one: one != words[at]))
    assert checksum_of([*words[:at], other, *words[at + 1 :]]) != checksum_of(words)


@given(LISTS, LISTS)
def test_other_words_give_another_checksum(words: list[int], others: list[int]) -> None:
    assume(words != others)
    assert checksum_of(words) != checksum_of(others)


@given(LISTS, st.data())
def test_the_same_words_elsewhere_give_another_checksum(words: list[int], data: st.DataObject) -> None:
    moved = data.draw(st.permutations(words))
    assume(moved != words)
    assert checksum_of(moved) != checksum_of(words)


def test_no_mark_of_ours_is_left_in_the_ptx() -> None:
    code = re.sub(r"//.*", "", ptx())
    assert "!" not in code.replace("@!", "")
    assert code.count(".visible .entry") == 9


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="needs ptxas, of the CUDA toolkit")
@pytest.mark.parametrize("target", ["sm_75", "sm_90"])
def test_the_assembler_takes_the_ptx(tmp_path: Path, target: str) -> None:
    source = tmp_path / "kernels.ptx"
    source.write_text(ptx())
    command = ["ptxas", "--gpu-name", target, "--warning-as-error", "--output-file", "/dev/null", str(source)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")
