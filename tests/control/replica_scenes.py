"""Scenes of a writer and a reader in two processes, each played out against the stand-in driver and checked here.

`python replica_scenes.py SCENE` plays one; with `write SOCKET` or `fork SOCKET` it is the writer of a scene.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, cast
from unittest import mock

from warmspare.control import cuda_abi as abi
from warmspare.control import process
from warmspare.control.cuda import Context, Driver
from warmspare.control.cuda_driver import CudaError
from warmspare.control.kernels import Kernels
from warmspare.control.replica import Ended, ProtocolError, Reader, ReaderGone, ReplicaError, Version, Writer, wire
from warmspare.control.replica.messages import Accepted, Goodbye, News, Ready, encoded
from warmspare.control.replica.slots import ReaderSlots, Sealed, Slot
from warmspare.trials.takeover_plants import sees_torn
from warmspare.trials.takeover_session import Session

A: Final = "GPU-731c59fc-2d85-9cee-6153-7dcdc0cf21fa"
C: Final = "GPU-68e89171-7855-c8dd-f2d1-11797f77ab20"
B: Final = "GPU-e9c863cf-f5c9-64e3-7d6a-b0470575a7aa"
SIZE: Final = 256 * 1024
PATIENCE_S: Final = 20.0
KILLS: Final = 12


class Seen:
    """What a reader's callbacks were told."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.versions: list[Version] = []
        self.deaths: list[Version | None] = []
        self.enough = threading.Event()

    def version(self, version: Version) -> None:
        """One more was accepted."""
        self.versions.append(version)
        if len(self.versions) >= 3:
            self.enough.set()


@contextlib.contextmanager
def played(role: str) -> Iterator[tuple[Reader, Seen, subprocess.Popen[str]]]:
    """A reader here, and a writer of that role in another process."""
    seen = Seen()
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, "socket")
        with Reader(B, SIZE, link, on_version=seen.version, on_death=seen.deaths.append) as reader:
            command = [sys.executable, __file__, role, str(link)]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            with subprocess.Popen(command, text=True, **pipes) as child:  # type: ignore[call-overload]
                try:
                    yield reader, seen, child
                finally:
                    child.kill()


def stop(child: subprocess.Popen[str]) -> None:
    """Stop it, and wait until it is: the signal alone does not say when."""
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)


def is_right(reader: Reader, version: Version) -> bool:
    """Whether a version is what its writer made, by the pattern and by its checksum."""
    found = Kernels(reader.context).check(version.pointer, version.size, version.number)
    return not found.wrong and reader.is_whole(version)


def write(link: str) -> None:
    """Publish version after version, each the pattern of its number; a line on stdin ends it in peace."""
    with Writer(A, link) as writer:
        kernels, state = Kernels(writer.context), writer.context.allocate(SIZE)
        while not process.ready([0], 0.0):
            kernels.fill(state.pointer, SIZE, writer.published + 1)
            writer.publish(state.pointer)
        os.write(1, f"{writer.flush()}\n".encode())


def fork(link: str) -> None:
    """As `write`, with a forked child that holds on to everything, the socket too."""
    with Writer(A, link) as writer:
        kernels, state = Kernels(writer.context), writer.context.allocate(SIZE)
        kernels.fill(state.pointer, SIZE, 1)
        writer.publish(state.pointer)
        writer.flush()
        if os.fork() == 0:
            os.write(1, f"{os.getpid()}\n".encode())
            sys.stdin.readline()
            os._exit(0)
        threading.Event().wait()


def killed_at_many_moments() -> None:
    """Whatever moment it dies at, what is taken over is whole, and the last known to be whole is not lost."""
    for _ in range(KILLS):
        session = Session(A, B, SIZE)
        session.be_ready(PATIENCE_S)
        assert session.run(PATIENCE_S) is None
        assert session.kill(PATIENCE_S)
        kill = session.verify_again(PATIENCE_S, again_s=0.0)
        assert kill.wrong is None, kill
        assert 0 < kill.acknowledged <= kill.version <= kill.published + 1, kill
        session.close()


def closed_in_peace() -> None:
    """A goodbye is no death, and the last version stays when the writer's process is gone."""
    with played("write") as (reader, seen, child):
        assert seen.enough.wait(PATIENCE_S)
        flushed, _ = child.communicate("\n", timeout=PATIENCE_S)
        ended = reader.wait(PATIENCE_S)
        assert ended
        assert (ended.how, seen.deaths) == ("closed", [])
        assert ended.version == reader.newest()
        assert ended.version
        assert ended.version.number == int(flushed)
        assert reader.writer_is_gone(PATIENCE_S)
        assert is_right(reader, ended.version)
        assert all(version.lag_s and version.lag_s > 0 for version in seen.versions)


def hasty(link: str) -> None:
    """Publish, and close at once."""
    with Writer(A, link) as writer:
        state = writer.context.allocate(SIZE)
        for _ in range(2):
            writer.publish(state.pointer)


def a_goodbye_is_heard_late() -> None:
    """A writer that closed while the reader was still at work on what came before has not died."""
    deaths: list[Version | None] = []
    busy = threading.Event()

    def heed(_: Version) -> None:
        busy.set()
        child.wait(PATIENCE_S)

    with (
        tempfile.TemporaryDirectory() as folder,
        Reader(B, SIZE, link := Path(folder, "socket"), on_version=heed, on_death=deaths.append) as reader,
    ):
        child = subprocess.Popen([sys.executable, __file__, "hasty", str(link)])
        ended = reader.wait(PATIENCE_S)
        assert busy.is_set()
        assert ended
        assert (ended.how, deaths) == ("closed", [])
        assert ended.version
        assert ended.version.number == 2
    assert deaths == []


def broken(link: str) -> None:
    """A writer whose owner fails."""
    with contextlib.suppress(RuntimeError), Writer(A, link) as writer:
        writer.publish(writer.context.allocate(SIZE).pointer)
        raise RuntimeError
    sys.stdin.readline()


def an_error_is_a_death() -> None:
    """An owner that fails inside its `with` block is taken over from, though its process lives on."""
    with played("broken") as (reader, seen, child):
        ended = reader.wait(PATIENCE_S)
        assert ended
        assert ended.how == "died"
        assert child.poll() is None
    assert ended.version
    assert seen.deaths == [ended.version]


def closed_twice() -> None:
    """The second time is nothing, whoever has the descriptors' numbers by then."""
    near, far = socket.socketpair()
    with far, Reader(B, SIZE, near) as reader:
        reader.close()
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(32)]
            reader.close()
            assert not any(os.fstat(file.fileno()).st_size for file in files)


def forgetful(link: str) -> None:
    """A writer whose forked child leaves the `with` block as well."""
    with contextlib.suppress(SystemExit), Writer(A, link) as writer:
        writer.publish(writer.context.allocate(SIZE).pointer)
        writer.flush()
        child = os.fork()
        if not child:
            raise SystemExit
        os.waitpid(child, 0)
        os.write(1, b"left\n")
        threading.Event().wait()
    os._exit(0)


def a_forked_child_ends_nothing() -> None:
    """What a forked child of either side closes stays open for its parent."""
    with played("forgetful") as (reader, _, child):
        assert child.stdout
        assert child.stdout.readline() == "left\n"
        if not (ours := os.fork()):
            reader.close()
            os._exit(0)
        os.waitpid(ours, 0)
        assert reader.wait(0.2) is None
        child.kill()
        ended = reader.wait(PATIENCE_S)
        assert ended
        assert ended.how == "died"


def a_dead_readers_name_is_free() -> None:
    """After a reader that was killed the next may have its path; a living one's is refused, and undisturbed."""
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, "socket")
        if not (child := os.fork()):
            wire.listening(link)
            os._exit(0)
        os.waitpid(child, 0)
        assert link.is_socket()
        with Reader(B, SIZE, link) as reader:
            try:
                wire.listening(link)
            except OSError as error:
                assert error.errno == errno.EADDRINUSE  # noqa: PT017 # a scene is run without pytest
            else:
                raise AssertionError
            assert reader.wait(0.1) is None
        assert not link.exists()


def the_door_is_closed() -> None:
    """While a writer is served, and after its death, a second one is refused at once, and a new reader has the path."""
    with played("write") as (reader, seen, child):
        assert seen.enough.wait(PATIENCE_S)
        link = cast("list[str]", child.args)[-1]
        try:
            wire.connected(link, PATIENCE_S)
        except FileNotFoundError:
            pass
        else:
            raise AssertionError
        child.kill()
        assert reader.wait(PATIENCE_S)
        with Reader(B, SIZE, link):
            reader.close()
            assert Path(link).is_socket()


def a_death_of_its_own_is_no_kill() -> None:
    """A writer that died before it was killed shows nothing about a kill, whatever was taken over from it."""
    session = Session(A, B, SIZE)
    session.be_ready(PATIENCE_S)
    assert session.run(PATIENCE_S) is None
    os.kill(session._writer.pid, signal.SIGSEGV)  # noqa: SLF001 # nobody else has a reason to
    assert session.reader.wait(PATIENCE_S)
    assert session.kill(PATIENCE_S)
    try:
        kill = session.verify_again(PATIENCE_S, again_s=0.0)
    except ChildProcessError as error:
        assert "before it was killed" in str(error)  # noqa: PT017 # a scene is run without pytest
    else:
        raise AssertionError(kill)
    session.close()


def what_must_not_be_is_wrong() -> None:
    """A kill after which something was sealed and torn, or an older version than the reader's own was taken over."""
    session = Session(A, B, SIZE)
    session.be_ready(PATIENCE_S)
    assert session.run(PATIENCE_S) is None
    ended = session.kill(PATIENCE_S)
    assert ended
    assert ended.version
    for spoiled, why in (
        (ended._replace(torn=1), "1 versions had their seal on"),
        (ended._replace(version=ended.version._replace(number=session._last_accepted - 1)), "had been accepted"),  # noqa: SLF001
    ):
        kill = session._kill(spoiled, "9 1", None)  # noqa: SLF001 # no fault of a driver's does either
        assert why in (kill.wrong or ""), kill
    session.close()


def a_takeover_that_believes_all_is_seen() -> None:
    """The plants: a takeover that takes the highest seal for whole, or any session's for its own, is found out."""
    context = Context(Driver().device(B))
    kernels = Kernels(context)

    def highest(slots: ReaderSlots, seals: dict[int, Sealed], _: object) -> tuple[Slot | None, int]:
        slots.newest = max(Slot(sealed.version, slot) for slot, sealed in seals.items())
        return slots.newest, 0

    def accepted(slots: ReaderSlots, *_: object) -> tuple[Slot | None, int]:
        return slots.newest, 0

    assert sees_torn(context, kernels, 5)
    for blind in (highest, accepted):
        with mock.patch.object(ReaderSlots, "take_over", blind), mock.patch.object(Reader, "_version", version_of):
            assert not sees_torn(context, kernels, 5), blind


def version_of(_: Reader, slot: Slot, lag_s: float | None) -> Version:
    """A version, of whatever size."""
    return Version(slot.version, 0, SIZE, slot.slot, lag_s)


def a_callback_that_raises_breaks() -> None:
    """What a callback raises is how the session ended, and nothing is printed and lost."""
    for error in (RuntimeError("of its own"), SystemExit("of its own")):

        def fail(_: Version | None, error: BaseException = error) -> None:
            raise error

        for callbacks in ({"on_version": fail}, {"on_death": fail}):
            near, far = socket.socketpair()
            with far, Reader(B, SIZE, near, **callbacks) as reader:  # type: ignore[arg-type] # one of each
                with mock.patch.object(reader.replica, "verified", return_value=Sealed(1, SIZE, 0, 0)):
                    assert far.recv(4096)
                    far.sendall(encoded(Ready(1)) + encoded(News(1, 0, 0)))
                    far.close()
                    ended = reader.wait(PATIENCE_S)
                assert ended
                assert (ended.how, ended.version is None) == ("broken", "on_death" in callbacks), ended
                assert f"a callback raised {type(error).__name__}: of its own" in ended.problem


def on_death_may_wait() -> None:
    """The callback asks for the end that it is told of."""
    asked: list[Ended | None] = []
    near, far = socket.socketpair()
    with far, Reader(B, SIZE, near, on_death=lambda _: asked.append(reader.wait(PATIENCE_S))) as reader:
        assert far.recv(4096)
        far.sendall(encoded(Ready(1)))
        far.close()
        assert reader.wait(PATIENCE_S)
    assert asked == [reader.ended]


def what_cannot_be_verified_is_not_taken_over() -> None:
    """A writer that died, and a GPU of the reader's that fails just then: broken, and nobody is told of a death."""
    near, far = socket.socketpair()
    deaths: list[Version | None] = []
    with far, Reader(B, SIZE, near, on_death=deaths.append) as reader:
        failing = mock.Mock(side_effect=CudaError("cuStreamSynchronize", 700, "CUDA_ERROR_ILLEGAL_ADDRESS"))
        with mock.patch.object(reader.replica, "seals", failing):
            assert far.recv(4096)
            far.sendall(encoded(Ready(1)))
            far.close()
            ended = reader.wait(PATIENCE_S)
        assert ended
        assert (ended.how, deaths) == ("broken", [])
        assert "the writer died" in ended.problem
        assert "700" in ended.problem


def idle(link: str) -> None:
    """A writer that publishes nothing more, and says what is mapped of the reader's when a line comes."""
    with Writer(A, link) as writer:
        writer.publish(writer.context.allocate(SIZE).pointer)
        for _ in sys.stdin:
            os.write(1, f"{Path('/proc/self/maps').read_text().count('stand-in-gpu')}\n".encode())


def the_memory_is_let_go_before_it_is_freed() -> None:
    """A reader that is closed while its writer lives, and says nothing, waits until that has unmapped the memory."""
    with played("idle") as (reader, _, child):
        assert child.stdin
        assert child.stdout
        while not reader.newest():
            assert reader.wait(0.005) is None
        counts = []
        for is_closed in (False, True):
            if is_closed:
                reader.close()
            child.stdin.write("\n")
            child.stdin.flush()
            counts.append(int(child.stdout.readline()))
        assert counts[1] == counts[0] - 1, counts


def a_stopped_writer_is_not_waited_for_long() -> None:
    """A writer that cannot hear the goodbye delays the close, and no more."""
    with played("idle") as (reader, _, child):
        while not reader.newest():
            assert reader.wait(0.005) is None
        stop(child)
        reader.close()
        assert child.poll() is None


def death_is_told_once() -> None:
    """The callback has the version that was taken over, once."""
    with played("write") as (reader, seen, child):
        assert seen.enough.wait(PATIENCE_S)
        child.kill()
        ended = reader.wait(PATIENCE_S)
        assert ended
        assert ended.version
        assert ended.version.number >= seen.versions[-1].number
        assert is_right(reader, ended.version)
    assert seen.deaths == [ended.version]


def a_child_holds_the_socket() -> None:
    """A forked child keeps the socket open, and the writer's death is noticed all the same."""
    with played("fork") as (reader, _, child):
        assert child.stdout
        other = int(child.stdout.readline())
        child.kill()
        ended = reader.wait(PATIENCE_S)
        os.kill(other, signal.SIGKILL)
        assert ended
        assert ended.how == "died"


def held_versions_stay() -> None:
    """A version that is held is not written again, however many come after it."""
    with played("write") as (reader, seen, _):
        assert seen.enough.wait(PATIENCE_S)
        with reader.hold() as held:
            assert held
            more = len(seen.versions) + 20
            while len(seen.versions) < more:
                assert reader.wait(0.005) is None
            assert is_right(reader, held)
            assert (newest := reader.newest())
            assert newest.number > held.number


def read(link: str) -> None:
    """A reader that holds what it has until it is killed."""
    with Reader(B, SIZE, link) as reader:
        os.write(1, b"listening\n")
        reader.wait()


@contextlib.contextmanager
def being_read() -> Iterator[tuple[Writer, int, subprocess.Popen[str]]]:
    """A writer here, its state, and a reader in another process."""
    with tempfile.TemporaryDirectory() as folder:
        link = str(Path(folder, "socket"))
        command = [sys.executable, __file__, "read", link]
        with subprocess.Popen(command, text=True, stdout=subprocess.PIPE) as child:
            assert child.stdout
            child.stdout.readline()
            try:
                with Writer(A, link) as writer:
                    yield writer, writer.context.allocate(SIZE).pointer, child
            finally:
                child.kill()


def a_reader_that_dies_harms_nobody() -> None:
    """The writer is told so clearly, every time, and its GPU works on."""
    with being_read() as (writer, state, child):
        assert writer.publish(state) == 1
        assert writer.flush(PATIENCE_S) == 1
        child.kill()
        child.wait()
        for _ in range(2):
            with contextlib.suppress(TimeoutError):
                while True:
                    try:
                        writer.publish(state)
                    except ReaderGone:
                        break
        kernels = Kernels(writer.context)
        kernels.fill(state, SIZE, 5)
        assert kernels.check(state, SIZE, 5).wrong == 0


def a_reader_that_lags_is_waited_for() -> None:
    """Slots that are not released are not written: versions are dropped or waited for, as the caller likes."""
    with being_read() as (writer, state, child):
        writer.publish(state)
        writer.flush(PATIENCE_S)
        stop(child)
        assert [writer.publish(state, wait=False) for _ in range(4)] == [2, 3, None, None]
        try:
            writer.publish(state, timeout_s=0.05)
        except TimeoutError:
            child.send_signal(signal.SIGCONT)
        assert writer.publish(state, timeout_s=PATIENCE_S) == 4
        assert writer.flush(PATIENCE_S) == 4


def nobody_waits_behind_one_who_waits() -> None:
    """While a thread waits for a slot, another drops a version at once, and a close ends the waiting."""
    with being_read() as (writer, state, child):
        writer.publish(state)
        writer.flush(PATIENCE_S)
        stop(child)
        assert [writer.publish(state, wait=False) for _ in range(3)] == [2, 3, None]
        got: list[int | None] = []
        waits = threading.Thread(target=lambda: got.append(writer.publish(state, timeout_s=PATIENCE_S)))
        waits.start()
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            assert writer.publish(state, wait=False) is None
        assert waits.is_alive()  # or it was waited for
        child.send_signal(signal.SIGCONT)
        waits.join(PATIENCE_S)
        assert got == [4]
        stop(child)
        failed: list[str] = []

        def fill() -> None:
            try:
                while True:
                    writer.publish(state, timeout_s=PATIENCE_S)
            except ReplicaError as error:
                failed.append(str(error))

        fills = threading.Thread(target=fill)
        fills.start()
        while writer.publish(state, wait=False):
            pass
        writer.close()
        fills.join(PATIENCE_S)
        assert failed == ["the writer is closed"]


def what_cannot_be_published_is_refused() -> None:
    """Sizes and pointers that are not of whole words, or of too many."""
    with being_read() as (writer, state, _):
        for pointer, size in ((state, 12), (state, 0), (state, SIZE + 8), (state + 4, 8)):
            try:
                writer.publish(pointer, size)
            except ValueError:
                continue
            raise AssertionError((pointer, size))
        assert writer.publish(state, 8) == 1
        assert writer.flush(PATIENCE_S) == 1


def near_the_end(context: Context) -> int:
    """A page before the end of what is mapped of a reservation: of such memory nobody can tell where it ends."""
    size, handle, pointer = 2**21, ctypes.c_ulonglong(), ctypes.c_ulonglong()
    wanted = abi.AllocationProperties(
        type=abi.ALLOCATION_PINNED, location=abi.Location(abi.LOCATION_DEVICE, context.device.ordinal)
    )
    context.call("cuMemCreate", ctypes.byref(handle), size, ctypes.byref(wanted), 0)
    context.call("cuMemAddressReserve", ctypes.byref(pointer), 2 * size, 0, 0, 0)
    context.call("cuMemMap", pointer, size, 0, handle, 0)
    return pointer.value + size - 4096


def what_is_not_there_is_refused() -> None:
    """Pointers that the driver does not know, another GPU's, and too short an allocation: before a slot is taken."""
    with being_read() as (writer, state, _):
        other = Context(writer.context.driver.device(C))
        cases = {0x1000: "no memory", other.allocate(SIZE).pointer: "device 2", state + 4096: "ends 258048 bytes"}
        for pointer, why in cases.items():
            for _ in range(4):
                try:
                    writer.publish(pointer)
                except ValueError as error:
                    assert why in str(error), error  # noqa: PT017 # a scene is run without pytest
                else:
                    raise AssertionError(why)
        assert writer.publish(state + 4096, SIZE - 4096) == writer.flush() == 1
        assert writer.publish(writer.context.allocate_managed(SIZE).pointer) == writer.flush() == 2


def current(context: Context) -> int | None:
    """This thread's current context."""
    found = ctypes.c_void_p()
    context.driver.call("cuCtxGetCurrent", ctypes.byref(found))
    return found.value


def the_callers_context_stays() -> None:
    """A thread in which torch has made another device current finds it so again, whatever it did here."""
    elsewhere = Context(Driver().device(C))
    elsewhere.memory()
    seen = [current(elsewhere)]
    with tempfile.TemporaryDirectory() as folder:
        link = str(Path(folder, "socket"))
        with subprocess.Popen([sys.executable, __file__, "read", link], text=True, stdout=subprocess.PIPE) as child:
            assert child.stdout
            child.stdout.readline()
            with Writer(A, link) as writer:
                seen.append(current(elsewhere))
                state = writer.context.allocate(SIZE).pointer
                elsewhere.memory()
                writer.publish(state)
                seen.append(current(elsewhere))
                writer.flush()
                seen.append(current(elsewhere))
            seen.append(current(elsewhere))
            child.kill()
    with played("write") as (reader, told, _):
        seen.append(current(elsewhere))
        assert told.enough.wait(PATIENCE_S)
        with reader.hold() as held:
            assert held
            assert reader.is_whole(held)
        seen.append(current(elsewhere))
    seen.append(current(elsewhere))
    assert set(seen) == {elsewhere.handle.value}, (seen, elsewhere.handle.value)


def a_refused_copy_costs_no_slot() -> None:
    """The driver refuses a pointer again and again, and what comes next is published."""
    with being_read() as (writer, state, _):
        pointer = near_the_end(writer.context)
        for _ in range(4):
            try:
                writer.publish(pointer)
            except CudaError:
                pass
            else:
                raise AssertionError
        assert writer.publish(state) == writer.flush() == writer.published


def what_a_writer_must_not_say() -> None:
    """Each ends the session, with its reason, and never reaches the memory."""
    ready = encoded(Ready(1))
    spoken: list[bytes] = [
        b"GET / HTTP/1.1\r\n\r\n",
        encoded(News(1, 0, 0)),
        ready + ready,
        encoded(Ready(2)),
        ready + encoded(News(1, 3, 0)),
        ready + encoded(News(0, 0, 0)),
        ready + encoded(News(1, 0, 0)) + encoded(News(1, 1, 0)),
        ready + encoded(Accepted(1, 0)),
    ]
    for words in spoken:
        near, far = socket.socketpair()
        with far, Reader(B, SIZE, near) as reader:
            far.sendall(words)
            ended = reader.wait(PATIENCE_S)
            assert ended, words
            far.close()
            assert (ended.how, ended.version) == ("broken", None), (words, ended)
            assert ProtocolError.__name__ in ended.problem, ended


def a_lie_is_not_accepted() -> None:
    """News of a version that was never written: it is refused, its slot released, and the session goes on."""
    near, far = socket.socketpair()
    with far, Reader(B, SIZE, near) as reader:
        far.sendall(encoded(Ready(1)) + encoded(News(1, 0, 0)) + encoded(Goodbye()))
        ended = reader.wait(PATIENCE_S)
        assert ended
        assert (ended.how, ended.version, reader.refused) == ("closed", None, 1)


def nothing_is_left() -> None:
    """Closed again and again: descriptors, threads and GPU memory are as before."""
    ours, others = socket.socketpair()
    with others, Reader(B, SIZE, ours) as first:
        before = first.context.memory().free
        held = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(5):
            near, far = socket.socketpair()
            with far, Reader(B, SIZE, near):
                pass
        assert first.context.memory().free == before
        assert len(list(Path("/proc/self/fd").iterdir())) == held
        assert threading.active_count() == 2


ROLES: Final = {
    "write": write,
    "fork": fork,
    "read": read,
    "hasty": hasty,
    "forgetful": forgetful,
    "broken": broken,
    "idle": idle,
}
SCENES: Final[dict[str, Callable[[], None]]] = {
    scene.__name__: scene
    for scene in (
        killed_at_many_moments,
        closed_in_peace,
        a_goodbye_is_heard_late,
        an_error_is_a_death,
        closed_twice,
        a_forked_child_ends_nothing,
        a_dead_readers_name_is_free,
        the_door_is_closed,
        a_death_of_its_own_is_no_kill,
        what_must_not_be_is_wrong,
        a_takeover_that_believes_all_is_seen,
        a_callback_that_raises_breaks,
        on_death_may_wait,
        what_cannot_be_verified_is_not_taken_over,
        the_memory_is_let_go_before_it_is_freed,
        a_stopped_writer_is_not_waited_for_long,
        death_is_told_once,
        a_child_holds_the_socket,
        held_versions_stay,
        a_reader_that_dies_harms_nobody,
        a_reader_that_lags_is_waited_for,
        nobody_waits_behind_one_who_waits,
        what_cannot_be_published_is_refused,
        a_refused_copy_costs_no_slot,
        what_is_not_there_is_refused,
        the_callers_context_stays,
        what_a_writer_must_not_say,
        a_lie_is_not_accepted,
        nothing_is_left,
    )
}

if __name__ == "__main__":
    if len(sys.argv) > 2:
        ROLES[sys.argv[1]](sys.argv[2])
    else:
        SCENES[sys.argv[1]]()
