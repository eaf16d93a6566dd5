"""The follower behind writers that are fast, slow, and not what they should be."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from leftovers import until
from warmspare.runtime import follower as program
from warmspare.runtime.follower import CHUNK
from warmspare.runtime.following import Follower, Unfollowed, compare
from warmspare.runtime.manifest import File, NoImage

PAGES: Final = "pages-1.img"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def block(number: int, size: int = CHUNK) -> bytes:
    """Bytes that no other block has."""
    return (number.to_bytes(8, "big") * (size // 8 + 1))[:size]


def digests(data: bytes) -> tuple[str, ...]:
    return tuple(hashlib.sha256(data[at : at + CHUNK]).hexdigest() for at in range(0, len(data), CHUNK))


def reads(descriptor: int) -> int:
    """How many bytes the process has read so far. Source: proc_pid_io(5)."""
    return int(Path(f"/proc/{descriptor}/io").read_text().split()[1])


@pytest.mark.parametrize("sizes", [(), (0,), (1,), (CHUNK - 1,), (CHUNK,), (CHUNK + 1,), (CHUNK * 2 + 5, 7, CHUNK)])
def test_what_a_fast_writer_wrote_is_summed(tmp_path: Path, folder: int, sizes: tuple[int, ...]) -> None:
    with Follower(folder, "write") as follower:
        for number, size in enumerate(sizes):
            (tmp_path / f"pages-{number}.img").write_bytes(block(number, size))
        (tmp_path / "core-1.img").write_bytes(b"core")
        found = follower.sums().files
    assert found.pop("core-1.img") == File(size=4, chunks=digests(b"core"))
    assert found == {
        f"pages-{number}.img": File(size=size, chunks=digests(block(number, size))) for number, size in enumerate(sizes)
    }


def test_a_slow_writer_is_followed_while_it_writes(tmp_path: Path, folder: int) -> None:
    with Follower(folder, "write") as follower, (tmp_path / PAGES).open("wb", buffering=0) as file:
        before = reads(follower.pid)
        for number in range(3):
            file.write(block(number))
            assert until(lambda: reads(follower.pid) >= before + (number + 1) * CHUNK), "it waits for the end"  # noqa: B023
        file.write(b"rest")
        found = follower.sums().files
    whole = b"".join(map(block, range(3))) + b"rest"
    assert found == {PAGES: File(size=len(whole), chunks=digests(whole))}


def truncated(path: Path) -> None:
    os.truncate(path, 10)


def replaced(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def test_a_file_that_shrinks_is_told_and_not_summed(tmp_path: Path, folder: int) -> None:
    path = tmp_path / PAGES
    with Follower(folder, "write") as follower:
        before = reads(follower.pid)
        path.write_bytes(block(1, 2 * CHUNK))
        assert until(lambda: reads(follower.pid) >= before + 2 * CHUNK)
        os.truncate(path, CHUNK)
        with pytest.raises(Unfollowed, match=r"cannot be relied on: pages-1\.img became smaller"):
            follower.sums()


@pytest.mark.parametrize(("change", "says"), [(replaced, "symbolic links"), (piped, "is no regular file")])
def test_what_is_no_file_is_told(tmp_path: Path, folder: int, change: Callable[[Path], None], says: str) -> None:
    path = tmp_path / "core-1.img"
    path.touch()
    change(path)
    with Follower(folder, "write") as follower, pytest.raises(Unfollowed, match=says):
        follower.sums()


def test_files_are_read_for_a_comparison(tmp_path: Path, folder: int) -> None:
    data = block(1, CHUNK + 9)
    (tmp_path / PAGES).write_bytes(data)
    said = {PAGES: File(size=len(data), chunks=digests(data))}
    with Follower(folder, "read") as follower:
        follower.read([PAGES])
        found = follower.sums().files
    assert found == said
    compare(said, found)
    wrong = {PAGES: File(size=len(data), chunks=(digests(data)[0], "0" * 64))}
    with pytest.raises(NoImage, match=rf"pages-1\.img is damaged: its 64 MiB from byte {CHUNK} on"):
        compare(wrong, found)
    with pytest.raises(NoImage, match=rf"pages-1\.img has {len(data)} bytes, and its manifest says 3"):
        compare({PAGES: File(size=3, chunks=("0" * 64,))}, found)


def test_a_file_that_is_not_there_is_told(folder: int) -> None:
    with Follower(folder, "read") as follower:
        follower.read([PAGES])
        with pytest.raises(Unfollowed, match="No such file"):
            follower.sums()


def test_nothing_to_read_is_nothing_wrong(folder: int) -> None:
    with Follower(folder, "read") as follower:
        follower.read([])
        assert follower.sums().files == {}


def test_it_ends_with_who_started_it(tmp_path: Path, folder: int) -> None:
    (tmp_path / PAGES).write_bytes(block(1))
    command = [sys.executable, "-I", "-S", program.__file__, str(folder), "write"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, pass_fds=(folder,)) as alone:
        assert alone.stdin
        alone.stdin.close()
        assert alone.wait(20) == 0
        assert alone.stdout
        assert alone.stdout.read() == b""


def test_one_that_was_killed_is_told(folder: int) -> None:
    with Follower(folder, "write") as follower:
        os.kill(follower.pid, 9)
        with pytest.raises(Unfollowed, match=r"died \(status -9\)"):
            follower.sums()
