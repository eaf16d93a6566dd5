"""What measures a host: figures that are there, workers that die, file systems told apart, tools that say nonsense."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import pytest

from warmspare.control import file_speed, speed, speed_tools
from warmspare.control.file_speed import CHUNK, LEAST, PAGE, Files, kind_of
from worlds import fake

MOUNTS: Final = r"""22 28 0:20 / /proc rw,nosuid - proc proc rw
28 1 253:0 / / rw,relatime - ext4 /dev/vda rw
30 28 0:25 / /dev/shm rw shared:3 master:1 - tmpfs tmpfs rw
31 28 0:31 / /mnt/c rw,noatime - 9p C:\134 rw,aname=drvfs;path=C:\;uid=1000
32 28 0:32 / /a\040disk rw - xfs /dev/vdb rw
33 28 0:33 / /twice rw - ext4 /dev/vdc rw
34 33 0:34 / /twice rw - btrfs /dev/vdd rw
"""


@pytest.mark.parametrize(
    ("folder", "found"),
    [
        ("/var", ("/", "ext4")),
        ("/dev/shm/x", ("/dev/shm", "tmpfs")),  # noqa: S108 # only looked up
        ("/dev/shmx", ("/", "ext4")),  # noqa: S108 # likewise
        ("/mnt/c/Users", ("/mnt/c", "9p")),
        ("/a disk/x", ("/a disk", "xfs")),
        ("/twice", ("/twice", "btrfs")),
    ],
)
def test_a_folder_is_on_the_mount_that_lies_over_it(folder: str, found: tuple[str, str]) -> None:
    assert kind_of(Path(folder), MOUNTS) == found


def test_what_is_mounted_nowhere_is_unknown() -> None:
    assert kind_of(Path("/x"), "") == ("", "unknown")


def test_two_workers_do_what_both_did() -> None:
    """By a work of a fixed size: each worker alone tells of one second, so two tell of two."""
    alone, both = (speed._rate(n, lambda: _nap, 0.05, 2) for n in (1, 2))  # noqa: SLF001 # with a work of ours
    assert alone < 1 / NAP_S
    assert both == pytest.approx(2 * alone, rel=0.4)


NAP_S: Final = 0.01


def _nap() -> int:
    signal.sigtimedwait([], NAP_S)
    return 1


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def _never_ready() -> NoReturn:
    raise MemoryError


@pytest.mark.parametrize("ready", [_die, _never_ready, lambda: _die], ids=["dies", "fails", "dies at work"])
def test_a_worker_that_dies_is_told_and_none_is_left(ready: Callable[[], speed.Work]) -> None:
    with pytest.raises(ChildProcessError, match="without an answer"):
        speed._rate(2, ready, 0.01, 1)  # noqa: SLF001 # with a work of ours
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_one_worker_that_is_lost_does_not_leave_us_waiting_with_the_others(tmp_path: Path) -> None:
    def ready() -> speed.Work:
        try:
            (tmp_path / "first").mkdir()
        except FileExistsError:
            return _nap
        return _die()

    began = time.monotonic()
    with pytest.raises(ChildProcessError, match="without an answer"):
        speed._rate(3, ready, 0.01, 2)  # noqa: SLF001 # with a work of ours
    assert time.monotonic() - began < 5


def test_figures_are_there_and_plausible() -> None:
    assert 0.01 < speed.hashing(1, 0.02, 1) < 100
    assert 0.1 < speed.copying(2, 16 * 2**20, 0.02, 1) < 10_000
    assert 0 < speed.starting("/bin/true", 0.02) < 1000


def test_a_program_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        speed.starting("/nope", 0.01)


def test_files_are_written_within_the_budget_and_cleared_by_whoever_owns_the_folder(tmp_path: Path) -> None:
    files = Files(tmp_path, 3 * CHUNK, 0.1)
    assert files.writing(1) > 0
    assert LEAST <= (tmp_path / "data").stat().st_size <= 3 * CHUNK
    assert files.creating() > 0
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_no_block_is_written_twice_so_that_none_can_be_kept_once(tmp_path: Path) -> None:
    files = Files(tmp_path, 4 * CHUNK, 10)
    blocks: set[bytes] = set()
    for _ in range(2):
        files.writing(1)
        data = (tmp_path / "data").read_bytes()
        blocks |= {data[at : at + PAGE] for at in range(0, len(data), PAGE)}
    assert len(blocks) == 2 * 4 * CHUNK // PAGE


def test_a_slow_disk_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    files = Files(tmp_path, 10 * CHUNK, 1e-9)
    assert files.writing(3) > 0
    assert files.size_bytes == (tmp_path / "data").stat().st_size == LEAST
    assert len(synced) == 1


def test_pages_that_stay_give_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(tmp_path, LEAST, 0.01)
    files.writing(1)
    monkeypatch.setattr(os, "posix_fadvise", lambda *_: None)  # as sandboxes ignore it
    assert (files.reading(1), files.reading_at_random()) == (None, None)


@pytest.fixture
def _no_nowait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that does not know RWF_NOWAIT, as overlay does not and older tmpfs did not."""
    preadv = os.preadv

    def refuse(descriptor: int, buffers: list[bytearray], place: int, flags: int = 0) -> int:
        if flags:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return preadv(descriptor, buffers, place)

    monkeypatch.setattr(os, "preadv", refuse)


@pytest.mark.usefixtures("_no_nowait")
def test_where_reads_cannot_be_asked_the_mapping_is(tmp_path: Path) -> None:
    with (tmp_path / "data").open("wb+") as file:
        file.write(bytes(PAGE))
        file.truncate(2 * PAGE)
        file.flush()
        assert file_speed._is_cached(file.fileno(), 0)  # noqa: SLF001 # just written
        assert not file_speed._is_cached(file.fileno(), PAGE)  # noqa: SLF001 # a hole that nobody has read


@pytest.mark.usefixtures("_no_nowait")
def test_memory_without_an_answer_to_reads_gives_no_figure() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:  # a private folder, in memory
        files = Files(Path(folder), LEAST, 0.01)
        files.writing(1)
        assert (files.reading(1), files.reading_at_random()) == (None, None)


@pytest.mark.parametrize(("refusal", "cached"), [(errno.ENODEV, False), (errno.EACCES, True)])
@pytest.mark.usefixtures("_no_nowait")
def test_a_file_that_cannot_be_mapped_has_no_pages_and_an_unknown_answer_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int, *, cached: bool
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(mmap, "mmap", refuse)
    with (tmp_path / "data").open("wb+") as file:
        assert file_speed._is_cached(file.fileno(), 0) is cached  # noqa: SLF001 # a part of the look


def test_pages_that_are_gone_give_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(tmp_path, LEAST, 0.01)
    files.writing(1)
    monkeypatch.setattr(file_speed, "_is_cached", lambda *_: False)
    assert files.reading(1)
    assert files.reading_at_random()


JOB: Final = '{{"jobs": [{{"error": {error}, "read": {{"iops": {r}}}, "write": {{"iops": {w}}}}}]}}'


def test_what_a_tool_says_names_no_folder_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = fake(tmp_path / "tool", 'echo "fio: failed to open $PWD/fio" >&2; exit 1')
    monkeypatch.setenv("WARMSPARE_FIO", script)
    with pytest.raises(speed_tools.Unusable, match=r"failed to open its folder/fio$"):
        speed_tools.fio(tmp_path, "randread", LEAST)


def test_tools_that_are_not_installed_are_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSPARE_FIO", "/nope")
    monkeypatch.setenv("WARMSPARE_SYSBENCH", "/nope")
    assert speed_tools.fio(tmp_path, "randread", LEAST) is None
    assert speed_tools.sysbench_cpu(1) is speed_tools.sysbench_memory(1) is None


def test_what_tools_say_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = f"note: a remark of older versions\n{JOB.format(error=0, r=123.5, w=0)}"
    monkeypatch.setenv("WARMSPARE_FIO", fake(tmp_path / "fio", f"cat <<'EOF'\n{said}\nEOF"))
    script = """case $1 in
cpu) echo '    events per second:  1234.56';;
memory) echo '10240.00 MiB transferred (8000.00 MiB/sec)';;
esac"""
    monkeypatch.setenv("WARMSPARE_SYSBENCH", fake(tmp_path / "sysbench", script))
    assert speed_tools.fio(tmp_path, "randread", LEAST) == 123.5
    assert speed_tools.sysbench_cpu(2) == 1234.56
    assert speed_tools.sysbench_memory(2) == pytest.approx(8000 * 2**20 / 1e9)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'fio: O_DIRECT refused' >&2; exit 1", "ended with status 1: fio: O_DIRECT refused"),
        ("exit 3", "ended with status 3: nothing"),
        ("echo no figure", "fio's answer was not understood"),
        ("echo '{}'", "fio's answer was not understood"),
        ("""echo '{"jobs": []}'""", "fio's answer was not understood"),
        (f"echo '{JOB.format(error=22, r=5, w=5)}'", "error 22"),
        (f"echo '{JOB.format(error=0, r=5, w=0)}'", "error 0"),
        ("exec sleep 60", "did not end within 1 s"),
    ],
)
def test_tools_that_fail_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str) -> None:
    monkeypatch.setenv("WARMSPARE_FIO", fake(tmp_path / "fio", script))
    monkeypatch.setattr(speed_tools, "PATIENCE_S", 1.0)
    with pytest.raises(speed_tools.Unusable, match=said):
        speed_tools.fio(tmp_path, "randwrite", LEAST)


def test_a_sysbench_that_says_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSPARE_SYSBENCH", fake(tmp_path / "sysbench", "echo nothing"))
    with pytest.raises(speed_tools.Unusable, match="has no figure"):
        speed_tools.sysbench_cpu(1)


def test_a_tool_that_cannot_be_started_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fio").write_bytes(b"\x7fELF")
    (tmp_path / "fio").chmod(0o755)
    monkeypatch.setenv("WARMSPARE_FIO", str(tmp_path / "fio"))
    with pytest.raises(speed_tools.Unusable, match="could not be started"):
        speed_tools.fio(tmp_path, "randread", LEAST)
