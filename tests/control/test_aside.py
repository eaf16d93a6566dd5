"""Work done aside: what it told counts, however it ends, and it holds nobody up."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from warmspare.control import aside


def test_what_it_tells_is_taken_in_order() -> None:
    taken: list[bytes] = []

    def work(tell: aside.Tell) -> None:
        for n in range(3):
            tell({"n": n, "text": "x" * 40_000})

    assert aside.follow(work, taken.append, 60) is None
    assert [line[:7] for line in taken] == [b'{"n":%d,' % n for n in range(3)]


def test_one_that_hangs_is_stopped_and_what_it_told_before_counts(tmp_path: Path) -> None:
    def work(tell: aside.Tell) -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        tell("first")
        signal.pause()

    taken: list[bytes] = []
    assert aside.follow(work, taken.append, 0.5) == "it took longer than 0.5 s"
    child = int((tmp_path / "pid").read_text())
    try:
        assert taken == [b'"first"']
        assert os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1]), "it keeps its locks, and does no more"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize(("number", "said"), [(signal.SIGKILL, "signal 9"), (0, "exit 1")])
def test_one_that_dies_is_told(number: int, said: str) -> None:
    def work(_: aside.Tell) -> None:
        os.kill(os.getpid(), number)
        raise MemoryError

    assert aside.follow(work, print, 60) == f"what asked it died ({said})"
