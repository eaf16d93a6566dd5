"""Each guard, by a real process where one can be had, and by what was seen of it where not."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from driver_model import GPUS, Driver, tools_on

from warmspare.control.target import Target, target
from warmspare.runtime.guards import Room, Seen, before_any, before_resume, before_suspend, standing
from warmspare.runtime.looking import has_nccl_memory, look
from warmspare.runtime.memory_room import rooms
from warmspare.runtime.outcomes import NotActed
from warmspare.runtime.suspending import Options, suspend
from warmspare.runtime.unit import Tools

PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
FORCED = Options(force=True)


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return Driver(tmp_path)


@pytest.fixture
def tools(driver: Driver, tmp_path: Path) -> Iterator[Tools]:
    with tools_on(driver, tmp_path / "state", lambda _: None) as made:
        yield made


def refused(tools: Tools, pid: int, options: Options = FORCED) -> str:
    """Why a suspend is refused, with nothing written or done."""
    with pytest.raises(NotActed) as told:
        suspend(tools, pid, options)
    assert told.value.end == "refused"
    assert not tools.journal._store.operations("1")  # noqa: SLF001
    return str(told.value)


def test_a_process_that_is_not_there(tools: Tools) -> None:
    assert "there is no process 4194305; `warmspare ps`" in refused(tools, 4194305)


def test_a_process_without_cuda(tools: Tools) -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        assert f"process {sleeper.pid} (sleep) does not use CUDA" in refused(tools, sleeper.pid)
        sleeper.kill()


def test_ourselves_and_who_started_us(tools: Tools) -> None:
    assert "started this very command, or is it" in refused(tools, os.getpid())
    assert "started this very command, or is it" in refused(tools, os.getppid())


def test_a_thread_of_the_kernel(tools: Tools) -> None:
    thread = target(2)
    if thread is None or thread.name != "kthreadd":
        pytest.skip("no kernel thread is seen in this pid namespace")
    assert "is a thread of the kernel's" in refused(tools, 2)


def test_a_zombie(tools: Tools) -> None:
    with subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        assert f"has ended, and waits only for its parent {os.getpid()}" in refused(tools, ended.pid)


def test_a_stopped_one_is_not_asked_about(driver: Driver, tools: Tools) -> None:
    with driver.tree(2) as pids:
        os.kill(pids[1], signal.SIGSTOP)
        while (found := target(pids[1])) and found.state != "T":
            pass
        assert "is stopped, and" in refused(tools, pids[0])
        assert f"kill -CONT {pids[1]}" in refused(tools, pids[0])
        os.kill(pids[1], signal.SIGCONT)


def test_a_traced_one_is_not_asked_about(driver: Driver, tools: Tools) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with driver.tree(1) as (pid,):
        if libc.ptrace(PTRACE_SEIZE, pid, None, None):
            pytest.skip(f"ptrace: {os.strerror(ctypes.get_errno())}")
        assert f"is traced by process {os.getpid()}" in refused(tools, pid)


def test_a_silent_one(driver: Driver, tools: Tools) -> None:
    with driver.tree(1, flaws=("silent",)) as (pid,):
        assert "cannot be asked about: cuCheckpointProcessGetState did not" in refused(tools, pid)


@pytest.mark.root
def test_another_users_process(driver: Driver, tools: Tools, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with driver.tree(1) as (pid,):
        seen = look(pid, tools.levers, driver.cards())
        not_ours = msgspec.structs.replace(seen, uid=1000, may_trace=False)
        assert "belongs to user 0, and you may not act on it" in before_any(not_ours)[0].why
        powerless = msgspec.structs.replace(
            seen, tree=(msgspec.structs.replace(seen.tree[0], uid=65534),), may_trace=False
        )
        assert "root without CAP_SYS_PTRACE may not" in before_any(powerless)[0].why
        assert not before_any(msgspec.structs.replace(powerless, may_trace=True))


def test_one_that_was_lost_before(driver: Driver, tools: Tools) -> None:
    with driver.tree(1) as (pid,):
        driver.set(pid, state="failed")
        assert refused(tools, pid).endswith("is lost: the driver says FAILED, and nothing brings it back")


def test_beside_one_that_was_lost_it_is_said_when_the_others_can_be_resumed(driver: Driver, tools: Tools) -> None:
    with driver.tree(2) as (pid, child):
        driver.set(child, state="failed")
        assert refused(tools, pid).endswith("; the others can be resumed once it has ended")


def test_two_gpus_want_force(driver: Driver, tools: Tools) -> None:
    with driver.tree(1) as (pid,):
        driver.set(pid, vram={GPUS[0]: 10, GPUS[1]: 10})
        assert "holds memory on 2 GPUs" in refused(tools, pid, Options())
        suspend(tools, pid, FORCED)
        assert driver.state(pid) == "checkpointed"


SHARED = (
    "import mmap,sys; f=open(sys.argv[1],'r+b'); m=mmap.mmap(f.fileno(),0); print('ready',flush=True); sys.stdin.read()"
)


def test_shared_memory_of_nccl_wants_force(driver: Driver, tools: Tools) -> None:
    shared = Path(f"/dev/shm/nccl-warmspare-{os.getpid()}")  # noqa: S108
    shared.write_bytes(b"\0" * 4096)
    command = [sys.executable, "-I", "-S", "-c", SHARED, str(shared)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as rank, driver.tree(1) as (pid,):
        assert rank.stdout
        rank.stdout.readline()
        shared.unlink()  # as NCCL does once all ranks have it
        assert has_nccl_memory(rank.pid)
        assert not has_nccl_memory(pid)
        seen = msgspec.structs.replace(look(pid, tools.levers, driver.cards()), nccl=(pid,))
        found = before_suspend(seen)
        assert "shared memory of NCCL's" in found[0].why
        assert standing(found, force=True) is None
        rank.kill()


ROOT = Target(pid=7, started=1, parent=1, name="x", uid=0, state="S", tracer=0, threads=1)
SEEN = Seen(pid=7, tree=(ROOT,), cuda={7: "running"}, vram={7: {GPUS[0]: 500}})


def test_too_little_host_memory_is_not_forced() -> None:
    small = msgspec.structs.replace(SEEN, rooms=(Room(name="the limit of /x", free_mib=499, pids=(7,)),))
    (why,) = before_suspend(small)
    assert "500 MiB of GPU memory would have to fit into 499 MiB of host memory (the limit of /x)" in why.why
    assert standing((why,), force=True) == why
    elsewhere = msgspec.structs.replace(SEEN, rooms=(Room(name="/y", free_mib=1, pids=(8,)),))
    assert not before_suspend(elsewhere)


def test_where_nvml_is_silent_all_that_is_in_use_must_fit() -> None:
    room = (Room(name="the machine", free_mib=100, pids=(7,)),)
    silent = msgspec.structs.replace(SEEN, vram=None, most_mib=101, rooms=room)
    assert standing(before_suspend(silent), force=False)
    assert not standing(before_suspend(silent), force=True)
    assert not before_suspend(msgspec.structs.replace(silent, most_mib=99))


def test_the_machine_and_every_limit_above_a_process_are_rooms() -> None:
    found = rooms([os.getpid()])
    assert found[0].name == "the machine"
    assert found[0].free_mib > 0
    assert all(room.pids == (os.getpid(),) for room in found)


def test_a_resume_wants_what_was_freed() -> None:
    suspended = msgspec.structs.replace(SEEN, cuda={7: "checkpointed"}, vram={})
    assert not before_resume(suspended, {GPUS[0]: 500}, {GPUS[0]: 500})
    assert "499 MiB free, and 500 MiB are needed" in before_resume(suspended, {GPUS[0]: 500}, {GPUS[0]: 499})[0].why
    assert before_resume(suspended, {GPUS[0]: 500}, None)[0].force
    known = msgspec.structs.replace(suspended, most_mib=400)
    assert not before_resume(known, None, {GPUS[0]: 400, GPUS[1]: 900})
    assert before_resume(known, None, {GPUS[0]: 399, GPUS[1]: 900})[0].force
    assert not before_resume(msgspec.structs.replace(SEEN, cuda={7: "locked"}), None, None)


def test_a_reused_pid_is_not_touched(driver: Driver, tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    with driver.tree(1) as (pid,):
        seen = look(pid, tools.levers, driver.cards())
        first = msgspec.structs.replace(seen.tree[0], started=seen.tree[0].started - 1)
        before = msgspec.structs.replace(seen, tree=(first,))
        monkeypatch.setattr("warmspare.runtime.suspending.look", lambda *_: before)
        with pytest.raises(NotActed, match=r"nothing was done: process .* has ended"):
            suspend(tools, pid, FORCED)
        assert driver.state(pid) == "running"
