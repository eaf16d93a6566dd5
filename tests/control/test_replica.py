"""A writer and a reader in two processes, against the stand-in driver; and what they say to each other."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from replica_scenes import SCENES

from standins import Drivers
from warmspare.control.cuda_driver import CudaError
from warmspare.control.replica import ProtocolError, Refused, Writer, wire
from warmspare.control.replica.messages import (
    FORMS,
    MAGIC,
    PROTOCOL,
    Accepted,
    Goodbye,
    Hello,
    News,
    Ready,
    Released,
    decoded,
    encoded,
)
from warmspare.control.replica.undo import Undo

SCENE: Final = Path(__file__).with_name("replica_scenes.py")
EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "replica.py"
NOBODY: Final = 65534
WORDS = st.integers(0, 2**64 - 1)
SMALL = st.integers(0, 2**32 - 1)
MESSAGES = st.one_of(
    st.builds(Hello, st.binary(min_size=4, max_size=4), SMALL, WORDS, WORDS, WORDS,
              st.binary(min_size=48, max_size=48), st.binary(min_size=64, max_size=64)),
    st.builds(Ready, SMALL), st.builds(News, WORDS, WORDS, WORDS), st.builds(Accepted, WORDS, WORDS),
    st.builds(Released, WORDS, WORDS), st.builds(Goodbye, SMALL),
)  # fmt: skip


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {**os.environ, **Drivers(tmp_path_factory.mktemp("drivers")).world("honest")}


@pytest.mark.parametrize("scene", SCENES)
def test_scene(scene: str, honest: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, str(SCENE), scene], env=honest, capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_example_takes_over(honest: dict[str, str]) -> None:
    command = [sys.executable, str(EXAMPLE), "--mib", "1", "--seconds", "0.3"]
    done = subprocess.run(command, env=honest, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "behind" in done.stdout
    assert "is whole" in done.stdout


def test_importing_it_loads_no_driver_and_nothing_beside_the_standard_library(honest: dict[str, str]) -> None:
    code = (
        "import sys, warmspare.replica; assert not {'msgspec', 'click', 'rich', 'pynvml'} & set(sys.modules);"
        " assert 'libcuda' not in open('/proc/self/maps').read()"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=honest, check=True, timeout=60)


@given(st.lists(MESSAGES, max_size=5), st.integers(1, 40))
def test_messages_arrive_as_sent_in_whatever_pieces(
    sent: list[Hello | Ready | News | Accepted | Released | Goodbye], piece: int
) -> None:
    stream, data = b"".join(map(encoded, sent)), bytearray()
    heard = []
    for start in range(0, len(stream), piece):
        data += stream[start : start + piece]
        heard += list(decoded(data))
    assert heard == sent
    assert not data


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(noise: bytes) -> None:
    data = bytearray(noise)
    try:
        heard = list(decoded(data))
    except ProtocolError:
        return
    assert all(type(message) in FORMS for message in heard)


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(Refused, match="private"):
        wire.listening(folder / "socket")


def test_a_folder_is_made_private(tmp_path: Path) -> None:
    wire.listening(tmp_path / "new" / "socket").close()
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_only_unix_stream_sockets_are_spoken_over() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far, pytest.raises(Refused, match="stream"):
        wire.Wire(near)


@pytest.mark.parametrize("how", [socket.SHUT_RDWR, None])
def test_what_cannot_be_sent_is_said_to_nobody(how: int | None) -> None:
    near, far = socket.socketpair()
    with near, far:
        spoken = wire.Wire(near)
        near.close() if how is None else near.shutdown(how)
        with pytest.raises(wire.Closed):
            spoken.send(Goodbye())


def test_a_goodbye_instead_of_the_first_words_is_an_end() -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(encoded(Ready(1)) + encoded(Goodbye()))
        with pytest.raises(wire.Closed):
            wire.Wire(near).first(Ready, 1.0)


@pytest.mark.parametrize(("slots", "size"), [(2, 8), (2**40, 8), (3, 12), (3, 0)])
def test_a_replica_that_cannot_be_is_refused(slots: int, size: int) -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(encoded(Hello(MAGIC, PROTOCOL, slots, size, 1, bytes(48), bytes(64))))
        with pytest.raises(ProtocolError, match="a replica"):
            Writer("GPU-of-nobody", near)


def freed(undo: Undo, *names: str) -> None:
    for name in names:
        undo.freeing(partial(refuse, name))


def refuse(name: str) -> None:
    raise CudaError(name, 700, "ILLEGAL_ADDRESS")


def used(undo: Undo, done: list[str], first: Exception | None = None) -> None:
    with undo:
        undo.callback(done.append, "all of it")
        freed(undo, "third", "second")
        if first:
            raise first


def test_what_fails_on_the_way_out_does_not_hide_what_failed_first() -> None:
    done: list[str] = []
    with pytest.raises(ValueError, match="the first"):
        used(Undo(), done, ValueError("the first"))
    assert done


def test_what_cannot_be_freed_is_said_and_the_rest_is_freed() -> None:
    done: list[str] = []
    with pytest.raises(CudaError, match="second"):
        used(Undo(), done)
    assert done


@pytest.mark.root
def test_another_users_process_is_refused() -> None:
    ours, theirs = socket.socketpair()
    if (child := os.fork()) == 0:
        try:
            os.setuid(NOBODY)
            made = socket.socketpair()
            socket.send_fds(theirs, [b"!"], [made[0].fileno()])
        finally:
            os._exit(0)
    with ours, theirs:
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        with socket.socket(fileno=descriptors[0]) as near, pytest.raises(Refused, match=str(NOBODY)):
            wire.Wire(near)
    os.waitpid(child, 0)


@pytest.mark.parametrize("wants_pid", [False, True])
def test_descriptors_sent_along_are_not_kept(*, wants_pid: bool) -> None:
    near, far = socket.socketpair()
    with near, far:
        spoken = wire.Wire(near, wants_pid=wants_pid)
        held = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 # names
        socket.send_fds(far, [encoded(Ready(1))], [0])
        if wants_pid:  # the kernel drops them: there is room for the credentials alone
            assert spoken.receive() == [Ready(1)]
            assert spoken.peer_pid == os.getpid()
        else:
            with pytest.raises(ProtocolError, match="descriptors"):
                spoken.receive()
        assert len(os.listdir("/proc/self/fd")) == held  # noqa: PTH208 # names
