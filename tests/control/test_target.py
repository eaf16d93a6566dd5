"""What is known of a process before anything is done to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from leftovers import until
from warmspare.control.target import has_libcuda, is_same, target, tree

FAMILY = """
import os, sys
def wait(): sys.stdin.read()
inner = os.fork()
if inner == 0:
    innermost = os.fork()
    if innermost == 0:
        print('ready', flush=True)
    wait()
    os._exit(0)
wait()
"""


@pytest.fixture
def family() -> Iterator[subprocess.Popen[str]]:
    """Three processes, one under the other, that wait."""
    with subprocess.Popen([sys.executable, "-c", FAMILY], stdin=-1, stdout=-1, text=True) as root:
        assert root.stdout
        assert root.stdout.readline() == "ready\n"
        yield root


def test_a_process_is_told_as_the_kernel_has_it(family: subprocess.Popen[str]) -> None:
    assert until(lambda: (seen := target(family.pid)) and seen.state == "S")  # it is ready, and then sleeps
    found = target(family.pid)
    assert found
    assert (found.pid, found.parent, found.uid) == (family.pid, os.getpid(), os.geteuid())
    assert (found.state, found.tracer, found.threads) == ("S", 0, 1)
    assert found.name.startswith("python")


def test_a_tree_is_all_of_it_with_its_root_first(family: subprocess.Popen[str]) -> None:
    found = tree(family.pid)
    assert [one.parent for one in found] == [os.getpid(), found[0].pid, found[1].pid]


def test_a_stopped_one_is_told(family: subprocess.Popen[str]) -> None:
    os.kill(family.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, family.pid, os.WSTOPPED)
    found = target(family.pid)
    assert found
    assert found.state == "T"
    os.kill(family.pid, signal.SIGCONT)


def test_there_is_none_with_a_number_that_nobody_has() -> None:
    assert target(2**22 + 1) is None
    assert tree(2**22 + 1) == ()
    assert has_libcuda(2**22 + 1) is None


def test_a_later_process_is_not_the_same() -> None:
    ours = target(os.getpid())
    assert ours
    assert is_same(ours)
    earlier = type(ours)(**{**{f: getattr(ours, f) for f in ours.__struct_fields__}, "started": ours.started - 1})
    assert not is_same(earlier)


def test_one_that_has_ended_is_not_the_same_though_nobody_reaped_it() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) as child:
        seen = target(child.pid)
        assert seen
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not is_same(seen)


def test_a_process_without_the_driver_s_library_is_told() -> None:
    assert has_libcuda(os.getpid()) is False


def test_a_number_of_a_thread_is_no_process() -> None:
    begun, end = threading.Event(), threading.Event()
    numbers: list[int] = []

    def waits() -> None:
        numbers.append(threading.get_native_id())
        begun.set()
        end.wait()

    thread = threading.Thread(target=waits)
    thread.start()
    begun.wait()
    try:
        assert Path(f"/proc/{numbers[0]}/stat").exists()
        assert target(numbers[0]) is None
        assert tree(numbers[0]) == ()
    finally:
        end.set()
        thread.join()
