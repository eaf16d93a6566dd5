"""A dump that was whole and then of no use: the tree goes on, with its connections, files and signals."""

from __future__ import annotations

import os
import pty
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from driver_model import Driver, tools_on
from saved_scenes import Saved, as_parent, reads_sockets

from conftest import CI
from warmspare.control import network_lock
from warmspare.control.criu import Criu, Options, log_of
from warmspare.control.target import is_same, tree
from warmspare.runtime import checkpointing, frozen, hosts
from warmspare.runtime.guards import Seen
from warmspare.runtime.looking import look
from warmspare.runtime.obstacles import obstacles
from warmspare.runtime.outcomes import NotActed
from warmspare.runtime.suspending import Options as Acting

pytestmark = [pytest.mark.root, pytest.mark.criu]


@pytest.fixture(autouse=True)
def _parent() -> Iterator[None]:
    with as_parent():
        yield


def dumped(saved: Saved, images: Path, options: Options) -> str:
    """CRIU's log of a dump that left the tree stopped."""
    images.mkdir()
    criu = Criu.found()
    assert criu
    running = criu.dumping(saved.pid, images, options)
    ended = running.wait(60)
    assert ended is not None
    assert ended.status == 0, ended
    assert running.has_ended()
    assert all(one.state == "T" for one in tree(saved.pid))
    return log_of(images, "dump")


def test_connections_are_given_back(tmp_path: Path) -> None:
    if not reads_sockets():
        pytest.skip("this CRIU reads no TCP socket on this kernel: CRIU 4.2 does")
    with Saved("loopback", tmp_path) as saved:
        log = dumped(saved, tmp_path / "images", Options(tcp_established=True))
        tables = network_lock.tables(log)
        assert len(tables) == 1
        assert frozen.go_on(tree(saved.pid), log) == ""
        assert saved.goes_on()
        network_lock.take_back(tables[0])  # one that is not there is as good


def test_a_name_that_criu_left_is_removed(tmp_path: Path) -> None:
    with Saved("deleted", tmp_path) as saved:
        dumped(saved, tmp_path / "images", Options(link_remap=True))
        assert len(list(tmp_path.glob("link_remap.*"))) == 1
        assert frozen.go_on(tree(saved.pid)) == ""
        assert saved.goes_on()
        assert list(tmp_path.glob("link_remap.*")) == []


def test_another_process_under_the_number_is_neither_continued_nor_killed(tmp_path: Path) -> None:
    with Saved("single", tmp_path) as saved:
        (one,) = tree(saved.pid)
        other = msgspec.structs.replace(one, started=one.started + 1)
        frozen.send(other, signal.SIGKILL)
        assert frozen.end([other]) == ()
        assert saved.goes_on()
        assert frozen.end([one]) == ()
        assert saved.is_gone()


def test_what_criu_would_refuse_is_seen_beforehand(tmp_path: Path) -> None:
    with Saved("single", tmp_path) as saved:
        assert obstacles(tree(saved.pid), Options()) == ()
    with Saved("terminal", tmp_path) as saved:
        assert obstacles(tree(saved.pid), Options()) == ()  # both of its ends are in the tree
    _master, slave = pty.openpty()
    with Saved("terminal", tmp_path, {"TERMINAL": os.ttyname(slave)}) as saved:
        (why,) = obstacles(tree(saved.pid), Options())
        assert why.startswith(f"process {saved.pid} ({saved.name}) has the terminal /dev/pts/")
        assert obstacles(tree(saved.pid), Options(shell_job=True)) == ()
    with Saved("job", tmp_path) as saved:
        (why,) = obstacles([one for one in tree(saved.pid) if one.pid != saved.pid], Options())
        assert f"is in session {saved.pid}: its session's leader is outside the tree" in why


def test_an_io_uring_is_seen_beforehand(tmp_path: Path) -> None:
    if Path("/proc/sys/kernel/io_uring_disabled").read_text().strip() != "0" and not CI:
        pytest.skip("this kernel gives nobody an io_uring")
    with Saved("uring", tmp_path) as saved:
        (why,) = obstacles(tree(saved.pid), Options())
        assert "has an io_uring open" in why


@pytest.mark.parametrize("late", [False, True])
def test_another_process_under_the_number_is_not_dumped_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, late: bool
) -> None:
    criu = Criu.found()
    assert criu
    image, checked = tmp_path / "image", iter([True, True] if late else [])

    def seen_before(*args: Any) -> Seen:  # noqa: ANN401 # as it takes them
        seen = look(*args)
        (one,) = seen.tree
        return msgspec.structs.replace(seen, tree=(msgspec.structs.replace(one, started=one.started + 1),))

    monkeypatch.setattr(checkpointing, "look", seen_before)
    monkeypatch.setattr(checkpointing, "is_same", lambda one: next(checked, False) or is_same(one))
    with Saved("single", tmp_path) as saved, tools_on(Driver(tmp_path), tmp_path / "state", print) as tools:
        means = checkpointing.With(criu, hosts.here(criu, None), no_gpu=True)
        with pytest.raises(NotActed, match=f"process {saved.pid} .* has ended"):
            checkpointing.checkpoint(tools, saved.pid, image, means, Acting())
        assert saved.goes_on()
        assert not image.exists()
