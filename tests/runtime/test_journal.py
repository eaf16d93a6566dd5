"""The journal: who may read it, what two controllers do to each other, what is left when one is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from warmspare.control.checkpointer import Asked, CheckpointFailed, Done
from warmspare.control.target import Target
from warmspare.runtime.journal import Entry, Journal
from warmspare.runtime.operations import Busy, JournalFailed
from warmspare.runtime.store import FILE

ONE = Target(pid=4242, started=17, parent=1, name="python", uid=0, state="S", tracer=0, threads=3)
OTHER = msgspec.structs.replace(ONE, pid=4243)
LATER = msgspec.structs.replace(ONE, started=18)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


def killed(folder: Path, do: Callable[[Journal], None]) -> None:
    """Let a child do something, and kill it with -9."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException), Journal.opened(folder) as journal:
            do(journal)
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_it_is_its_owners_alone(folder: Path) -> None:
    before = os.umask(0)
    try:
        with Journal.opened(folder) as journal, journal.begin("suspend", [ONE], [ONE.pid]):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
            assert len(list(folder.iterdir())) > 3
    finally:
        os.umask(before)


def test_what_was_done_and_what_was_meant_is_read_again(folder: Path) -> None:
    with Journal.opened(folder) as journal, journal.begin("move", [ONE, OTHER], [OTHER.pid], a="b") as entry:
        entry.tell("lock", OTHER.pid, None)
        entry.tell("lock", OTHER.pid, Done(action="lock", pid=OTHER.pid, took_s=0.5, state="locked"))
        entry.tell("checkpoint", OTHER.pid, None)
        entry.tell("checkpoint", OTHER.pid, CheckpointFailed(Asked("checkpoint", 4243), "refused", "801 X", "it", 801))
        entry.tell("unlock", OTHER.pid, None)
        entry.stage("suspended")
        entry.note(c="d")
        found = entry.operation()
    assert (found.action, found.targets, found.cuda, found.pid) == ("move", (ONE, OTHER), (4243,), 4242)
    assert found.detail == {"a": "b", "c": "d"}
    assert [(one.action, one.ended, one.took_s, one.state) for one in found.steps] == [
        ("lock", "done", 0.5, "locked"),
        ("checkpoint", "801 X", None, None),
        ("unlock", None, None, None),
    ]
    assert (found.stage, found.outcome, found.rebooted) == ("suspended", None, False)
    assert found.touched(4243)
    assert not found.touched(4242)
    assert found.was_under_way(4243)


def test_two_at_once_on_one_process_do_not_meet(folder: Path) -> None:
    with Journal.opened(folder) as journal, Journal.opened(folder) as second:
        with journal.begin("suspend", [ONE, OTHER], []) as entry:
            with pytest.raises(Busy) as busy:
                second.begin("resume", [OTHER], [])
            assert busy.value.lives
            assert busy.value.other.controller == os.getpid()
            assert [one.id for one in second.under_way()] == [entry.id]
            assert not second.interrupted()
            second.begin("suspend", [LATER], [])  # the number is another's: another process
            entry.end("done")
        second.begin("resume", [OTHER], [])


def test_one_that_was_killed_is_found_and_taken_over_once(folder: Path) -> None:
    def begins(journal: Journal) -> None:
        journal.begin("suspend", [ONE], [ONE.pid]).tell("lock", ONE.pid, None)

    killed(folder, begins)
    with Journal.opened(folder) as journal, Journal.opened(folder) as second:
        (found,) = journal.interrupted()
        assert found.was_under_way(ONE.pid)
        with pytest.raises(Busy) as busy:
            second.begin("suspend", [ONE], [])
        assert not busy.value.lives
        entry = journal.taken_over(found)
        assert entry is not None
        assert second.taken_over(found) is None
        with entry:
            entry.end("stranded", "it is left")
        assert second.taken_over(found) is None
        assert [one.told for one in second.stranded()] == ["it is left"]
        with second.begin("resume", [ONE], []) as later:
            later.end("done")
        assert not second.stranded()
    assert not list(folder.glob("operation-*"))


def test_one_killed_before_it_was_written_leaves_nothing(folder: Path) -> None:
    def begins(journal: Journal) -> None:
        with journal._store.alone():  # noqa: SLF001
            values = "1, 'suspend', '', '', '', '', '', '', 1, '', NULL, NULL, NULL, NULL"
            journal._store.write(f"INSERT INTO operations VALUES ({values})")  # noqa: S608, SLF001
            journal._store.lock(1)  # noqa: SLF001
            os.kill(os.getpid(), signal.SIGKILL)

    killed(folder, begins)
    with Journal.opened(folder) as journal:
        assert not journal.interrupted()
        with journal.begin("suspend", [ONE], []) as entry:
            entry.end("done")


@pytest.mark.parametrize(("column", "found"), [("boot", [True]), ("namespace", []), ("machine", [])])
def test_operations_of_elsewhere(folder: Path, column: str, found: list[bool]) -> None:
    with Journal.opened(folder) as journal:
        journal.begin("suspend", [ONE], []).__exit__()
        journal._store.write(f"UPDATE operations SET {column} = 'another'")  # noqa: S608, SLF001
        assert [one.rebooted for one in journal.interrupted()] == found
        with journal.begin("suspend", [ONE], []):  # that was another process
            pass


def test_many_open_a_new_one_at_once(folder: Path) -> None:
    children = []
    for number in range(8):
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException), Journal.opened(folder) as journal:
                with journal.begin("suspend", [msgspec.structs.replace(ONE, pid=number + 1)], []) as entry:
                    entry.end("done")
                code = 0
            os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 8


def test_one_that_cannot_be_used_is_refused_in_a_line(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(JournalFailed, match="file is not a database"):
        Journal.opened(folder)
    (folder / FILE).unlink()
    (folder / FILE).symlink_to(folder / "elsewhere")
    with pytest.raises(JournalFailed, match=r"journal\.sqlite cannot be used"):
        Journal.opened(folder)
    assert not (folder / "elsewhere").exists()
    (folder / FILE).unlink()
    folder.chmod(0o777)
    with pytest.raises(JournalFailed, match="not a folder of ours alone"):
        Journal.opened(folder)


def test_one_of_a_newer_version_is_left_alone(folder: Path) -> None:
    Journal.opened(folder).__exit__()
    connection = sqlite3.connect(folder / FILE)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(JournalFailed, match="newer warmspare"):
        Journal.opened(folder)


def test_an_entry_that_is_left_counts_as_interrupted(folder: Path) -> None:
    def left(entry: Entry) -> None:
        with entry:
            raise KeyError

    with Journal.opened(folder) as journal:
        with pytest.raises(KeyError):
            left(journal.begin("suspend", [ONE], []))
        assert len(journal.interrupted()) == 1
