"""Suspending processes on the stand-in driver, by the raw calls: each step, each refusal, and what is lost."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import checkpoint_scenes as scenes
import pytest
from checkpoint_players import (
    CHECKPOINTED,
    LATE,
    LOCKED,
    NO_CUDA,
    NO_SUPPORT,
    NO_SYSTEM,
    NOT_ALLOWED,
    RIGHT,
    RUNNING,
    STEPS,
    WRONG_STATE,
    Asker,
    Player,
    one,
    used,
)  # fmt: skip

from conftest import CI
from scenes import SIZE, played
from standins import Drivers, compilers, gpu_ids
from worlds import as_nobody, in_world, reachable

pytestmark = pytest.mark.skipif(not compilers() and not CI, reason="needs a C compiler, or the wheel ziglang")
GPU0, GPU1, GPU2, GPU3 = gpu_ids()
MOVED: Final = [[GPU0, GPU2], [GPU1, GPU1], [GPU2, GPU0], [GPU3, GPU3]]
PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
WAIT_ALL: Final = 0x40000000
"""__WALL: threads too."""
World = Callable[..., dict[str, str]]


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    return Drivers(tmp_path_factory.mktemp("standins"))


@pytest.fixture
def world(drivers: Drivers, tmp_path: Path) -> World:
    """A world of the test's own."""
    return lambda *plan, **more: drivers.world(tmp_path.name, *plan, **more)


def ptrace(request: int, thread: int) -> None:
    """Make a request that takes no data."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.ptrace(request, thread, None, None) == 0, os.strerror(ctypes.get_errno())


@contextlib.contextmanager
def held(pid: int, but: int) -> Iterator[None]:
    """All threads of a process but one are held by us."""
    threads = [int(one.name) for one in Path(f"/proc/{pid}/task").iterdir() if int(one.name) != but]
    for thread in threads:
        ptrace(PTRACE_SEIZE, thread)
        ptrace(PTRACE_INTERRUPT, thread)
        os.waitpid(thread, WAIT_ALL)
    yield
    for thread in threads:
        ptrace(PTRACE_DETACH, thread)


def test_a_cycle_keeps_everything_where_it_was_and_frees_the_gpu_in_between(world: World) -> None:
    env = world()
    idle, nobody = used(env)
    with one(env) as (target, asker):
        held, listed = used(env)
        assert held - idle > SIZE + (2 << 20)
        assert listed == [[target.pid, held - idle]]
        addresses = target("addresses")
        assert target("replay") == 1
        for cycle in (1, 2):
            assert (asker.do("Lock"), asker.state) == (0, LOCKED)
            assert used(env) == (held, listed)
            assert (asker.do("Checkpoint"), asker.state) == (0, CHECKPOINTED)
            assert used(env) == (idle, nobody)
            assert (asker.do("Restore"), asker.state) == (0, LOCKED)
            assert used(env) == (held, listed)
            assert (asker.do("Unlock"), asker.state) == (0, RUNNING)
            assert (target("check"), target("addresses"), target("replay")) == (RIGHT, addresses, 1 + cycle)
            assert target("write") is None
            assert target("check") == [1, 0, 0]  # the check can see it
            assert (asker.all(*STEPS), target("check")) == ([0] * 4, [1, 0, 0])
            target("fill")


def test_its_memory_is_its_own_meanwhile_and_no_file_of_the_gpu_stays_open(world: World) -> None:
    def files(pid: int) -> int:
        links = [link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir()]
        return sum("stand-in-gpu" in str(link) for link in links)

    def in_maps(pid: int) -> int:
        return Path(f"/proc/{pid}/maps").read_text().count("stand-in-gpu")

    with one(world()) as (target, asker):
        before = files(target.pid), in_maps(target.pid)
        assert min(before) > 0
        asker.all("Lock", "Checkpoint")
        assert (files(target.pid), in_maps(target.pid)) == (0, 0)
        asker.all("Restore", "Unlock")
        assert (files(target.pid), in_maps(target.pid)) == before


@pytest.mark.parametrize("reached", [(), ("Lock",), ("Lock", "Checkpoint"), ("Lock", "Checkpoint", "Restore")])
def test_each_step_has_one_state_to_begin_in(world: World, reached: tuple[str, ...]) -> None:
    right = {"Lock": (RUNNING,), "Checkpoint": (LOCKED,), "Restore": (CHECKPOINTED,), "Unlock": (LOCKED,)}
    with one(world()) as (_, asker):
        assert asker.all(*reached) == [0] * len(reached)
        state = asker.state
        for step in STEPS:
            if state not in right[step]:
                assert (asker.do(step), asker.state) == (WRONG_STATE, state)


def test_who_is_no_cuda_process_is_told_apart(world: World) -> None:
    env = world()
    questions = ("GetState", "GetRestoreThreadId", *STEPS)
    with one(env) as (target, asker), Player(env, scenes.stranger) as stranger, Player(env, scenes.idle) as idle:
        own, threads = target.pid, Path(f"/proc/{target.pid}/task")
        code, thread = asker.do("GetRestoreThreadId")
        assert code == 0
        assert thread != own
        assert threads.joinpath(str(thread)).exists()
        for pid, wanted in (
            (stranger.pid, NO_CUDA),
            (target("fork"), NO_CUDA),
            (2**22 + 1, NO_SYSTEM),
            (-1, NO_SYSTEM),
        ):
            asker.of = pid
            assert asker.all(*questions) == [[wanted, -1], [wanted, -1], *[wanted] * 4], pid
        asker.of = idle.pid
        assert [asker.state, asker.all(*STEPS), asker.state] == [RUNNING, [0] * 4, RUNNING]
        idle.process.kill()
        os.waitid(os.P_PID, idle.pid, os.WEXITED | os.WNOWAIT)
        assert asker.all(*questions) == [[NO_CUDA, -1], [NO_CUDA, -1], *[NO_CUDA] * 4]  # a zombie
        idle.process.wait()
        assert asker.all(*questions) == [[NO_SYSTEM, -1], [NO_SYSTEM, -1], *[NO_SYSTEM] * 4]


def test_a_process_may_ask_about_itself(world: World) -> None:
    with Asker(world(), 0) as asker:
        asker.of = asker.pid
        assert [asker.state, asker.all(*STEPS)] == [RUNNING, [0] * 4]


def test_only_a_restore_wants_cuda_initialised_in_who_asks(world: World) -> None:
    env = world()
    with one(env) as (target, able), Asker(env, target.pid, initialised=False) as bare:
        assert bare.all(*STEPS) == [0, 0, NO_CUDA, WRONG_STATE]
        assert (bare.state, able.do("Restore"), bare.do("Unlock")) == (CHECKPOINTED, 0, 0)


@pytest.mark.root
def test_another_users_process_is_not_told_of(world: World) -> None:
    with tempfile.TemporaryDirectory() as folder, one(world()) as (target, asker):
        Path(folder).chmod(0o755)
        env = {**os.environ, **Drivers(Path(folder)).world("open")}
        script = (
            "import ctypes, sys; from warmspare.control.cuda_driver import Driver; d = Driver(initialise=False);"
            " print(*(d.result('cuCheckpointProcess' + call, int(sys.argv[1]), *more) for call, *more in"
            " (('GetState', ctypes.byref(ctypes.c_int())), ('Lock', None), ('Checkpoint', None))))"
        )
        command = as_nobody(sys.executable, "-P", "-c", script, str(target.pid))
        asked = in_world(reachable(), *command, env=env)
        assert asked.stdout.split() == [str(NOT_ALLOWED)] * 3, asked
        assert asker.state == RUNNING


def test_a_lock_waits_for_the_work_that_was_begun_or_lets_it_go_on(world: World) -> None:
    with one(world()) as (target, asker):
        target("hold")
        assert (asker.do("Lock", 50), asker.state) == (LATE, RUNNING)
        assert target("more")  # it is not held up
        asker.begin("Lock", 0)
        assert not asker.answers()
        target("let_go")
        assert (asker.hear(), asker.state) == (0, LOCKED)


def test_a_lock_waits_for_a_call_that_waits_itself(world: World) -> None:
    env = world()
    with one(env) as (target, asker):
        target("hold")
        target.tell("wait")
        assert (asker.do("Lock", 50), asker.state) == (LATE, RUNNING)
        assert not target.answers(0)


def test_a_lock_waits_for_a_call_that_never_returns(world: World) -> None:
    with one(world("cuMemAlloc_v2 gpu0 nth4: hangs")) as (target, asker):
        target.tell("more")
        while asker.do("Lock", 50) != LATE:  # it has not come to it yet
            assert asker.do("Unlock") == 0
        assert asker.state == RUNNING


@pytest.mark.parametrize("what", ["more", "check", "synchronize", "wait", "replay"])
def test_a_call_of_a_locked_process_waits_until_it_is_unlocked(world: World, what: str) -> None:
    with one(world()) as (target, asker):
        assert asker.do("Lock") == 0
        target.tell(what)
        assert not target.answers()
        assert asker.all("Checkpoint", "Restore") == [0, 0]
        assert not target.answers()
        assert asker.do("Unlock") == 0
        target.hear()
        assert target("check") == RIGHT


def test_managed_memory_is_refused_and_the_process_stays_locked(world: World) -> None:
    with one(world(), scenes.managed) as (target, asker):
        assert asker.all("Lock", "Checkpoint") == [0, NO_SUPPORT]
        assert (asker.state, asker.do("Restore"), asker.do("Unlock")) == (LOCKED, WRONG_STATE, 0)
        assert target("check") == RIGHT


@pytest.mark.parametrize(
    ("enabled", "memory", "is_lost"),
    [("enabled", "memory", True), ("enabled", "none", False), ("none", "memory", False)],
)
def test_peers_memory_is_lost_on_restore(world: World, enabled: str, memory: str, *, is_lost: bool) -> None:
    with one(world(), scenes.peers, enabled, memory) as (target, asker):
        assert asker.all("Lock", "Checkpoint") == [0, 0]
        if is_lost:
            assert (asker.do("Restore"), asker.state) == (1, CHECKPOINTED)
            assert asker.all(*STEPS) == [WRONG_STATE, WRONG_STATE, 1, WRONG_STATE]
            target.tell("check")
            assert not target.answers()
        else:
            assert (asker.all("Restore", "Unlock"), target("check")) == ([0, 0], RIGHT)


def test_another_processs_memory_is_lost_on_restore_and_its_owner_is_not(world: World) -> None:
    env = world()
    with Player(env, scenes.owner) as owner, one(env, scenes.guest, owner("share")) as (guest, asker):
        assert guest("shared") == 0
        assert asker.all("Lock", "Checkpoint", "Restore") == [0, 0, 1]
        assert asker.state == CHECKPOINTED
        asker.of = owner.pid
        assert asker.all(*STEPS) == [0] * 4


def test_too_little_free_memory_at_a_restore_strands_the_process_for_good(world: World) -> None:
    env = world("memory gpu0: gives 8")
    with one(env) as (_, asker):
        asker.all("Lock", "Checkpoint")
        with Player(env, scenes.thief, "7") as thief:
            assert asker.do("Restore") == 2
            thief("free")
        assert asker.all("Restore", "Unlock", "Restore") == [NO_SYSTEM, WRONG_STATE, NO_SYSTEM]
        assert asker.state == CHECKPOINTED


def test_nvml_and_cuda_agree_on_what_is_left_of_a_planned_memory(world: World) -> None:
    assert played(world("memory gpu0: gives 8"), scenes.left) == [(8 << 20) - SIZE] * 2


def test_a_process_moves_to_another_gpu_by_their_uuids(world: World) -> None:
    env = world()
    with one(env) as (target, asker):
        addresses, (here, listed) = target("addresses"), used(env)
        there = used(env, 2)[0]
        assert asker.all("Lock", "Checkpoint") == [0, 0]
        assert (asker.do("Restore", MOVED), asker.do("Unlock")) == (0, 0)
        assert used(env, 2) == (there + listed[0][1], listed)
        assert used(env) == (here - listed[0][1], [])
        assert (target("check"), target("addresses")) == (RIGHT, addresses)
        target("more")
        assert used(env, 2)[1] == [[target.pid, listed[0][1] + SIZE]]
        assert [asker.all("Lock", "Checkpoint"), asker.do("Restore", MOVED), asker.do("Unlock")] == [[0, 0], 0, 0]
        assert used(env)[1] == [[target.pid, listed[0][1] + SIZE]]
        assert target("check") == RIGHT


@pytest.mark.parametrize(
    "pairs",
    [
        MOVED[:3],
        [[GPU0, GPU1], *MOVED[1:]],
        [["GPU-00000000-0000-0000-0000-000000000000", GPU2], *MOVED[1:]],
        [[GPU0, GPU3], [GPU1, GPU1], [GPU2, GPU2], [GPU3, GPU0]],
    ],
    ids=["not all", "two to one", "one that is not there", "another kind"],
)
def test_a_move_names_every_gpu_and_one_of_its_kind(world: World, pairs: list[list[str]]) -> None:
    with one(world("kind gpu3: gives 1")) as (target, asker):
        asker.all("Lock", "Checkpoint")
        assert (asker.do("Restore", pairs), asker.state) == (1, CHECKPOINTED)
        assert (asker.do("Restore", MOVED), asker.do("Unlock"), target("check")) == (0, 0, RIGHT)


def test_a_stopped_process_does_not_answer_and_does_what_it_was_asked_when_it_goes_on(world: World) -> None:
    env = world()
    with one(env) as (target, asker):
        os.kill(target.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, target.pid, os.WSTOPPED)
        assert asker.do("GetRestoreThreadId")[0] == 0
        with Asker(env, target.pid) as hung, Asker(env, target.pid) as waiting:
            hung.put("Lock", 50)
            assert not hung.answers()
            waiting.begin("GetState")
            assert not waiting.answers()
            hung.process.kill()
            hung.process.wait()
            assert not waiting.answers()
            os.kill(target.pid, signal.SIGCONT)
            assert waiting.hear() == [0, LOCKED]
        assert asker.all("Checkpoint", "Restore", "Unlock") == [0, 0, 0]
        assert target("check") == RIGHT


def test_a_locked_process_needs_no_thread_but_its_restore_thread(world: World) -> None:
    """CRIU's plugin holds all the others while it checkpoints."""
    with one(world()) as (target, asker):
        _, thread = asker.do("GetRestoreThreadId")
        asker.do("Lock")
        target.tell("more")
        with held(target.pid, but=thread):
            assert asker.all("Checkpoint", "Restore", "Checkpoint") == [0, 0, 0]
        assert asker.all("Restore", "Unlock") == [0, 0]
        assert target.hear()
        assert target("check") == RIGHT


def test_a_stopped_process_is_not_restored(world: World) -> None:
    with one(world()) as (target, asker):
        asker.all("Lock", "Checkpoint")
        os.kill(target.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, target.pid, os.WSTOPPED)  # until then a thread of it may answer
        asker.put("Restore")
        assert not asker.answers()
        os.kill(target.pid, signal.SIGCONT)
        assert asker.hear() == 0
