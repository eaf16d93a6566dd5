"""Programs to be saved and restored: each writes `token n` lines as long as all of its parts work together.

The token is random and only in their memory: who goes on with it is who was saved.
"""

from __future__ import annotations

import itertools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

BEAT_S: Final = 0.005
LARGE: Final = 24 << 20
"""More than what is read before CRIU is started."""


def beat(path: str, check: Callable[[int], bool] = lambda _: True) -> None:
    """Write lines for ever, as long as `check` of the number is true."""
    token = os.urandom(8).hex()
    with Path(path).open("w", buffering=1, encoding="ascii") as file:
        for n in itertools.takewhile(check, itertools.count(1)):
            file.write(f"{token} {n}\n")
            time.sleep(BEAT_S)


def single(path: str) -> None:
    """One process."""
    beat(path)


def large(path: str) -> None:
    """One process with memory that can be damaged, no two words of it alike."""
    memory = bytearray(os.urandom(LARGE))
    beat(path, lambda n: bool(memory[n % LARGE] in memory))


def threads(path: str) -> None:
    """Threads that count with the first one."""
    counts = [0, 0]

    def count(index: int) -> None:
        while True:
            counts[index] += 1
            time.sleep(BEAT_S)

    for index in range(len(counts)):
        threading.Thread(target=count, args=(index,), daemon=True).start()
    seen = [0, 0]

    def moved(_: int) -> bool:
        before = list(seen)
        while any(now == then for now, then in zip(counts, before, strict=True)):
            time.sleep(BEAT_S)
        seen[:] = counts
        return True

    beat(path, moved)


def tree(path: str) -> None:
    """A child that answers, and its child, that answers it."""
    near, far = socket.socketpair()
    if os.fork() == 0:
        near.close()
        mine, its = socket.socketpair()
        if os.fork() == 0:
            mine.close()
            far.close()
            echo(its)
        its.close()
        echo(far, through=mine)
    far.close()
    beat(path, lambda n: asked(near, n))


def loopback(path: str) -> None:
    """A child at the other end of a TCP connection on this machine."""
    listening = socket.create_server(("127.0.0.1", 0))
    if os.fork() == 0:
        echo(socket.create_connection(listening.getsockname()))
    near, _ = listening.accept()
    beat(path, lambda n: asked(near, n))


def locks(path: str) -> None:
    """One that holds a lock on a file, which CRIU refuses by itself."""
    import fcntl  # noqa: PLC0415

    held = Path(f"{path}.lock").open("w")  # noqa: SIM115 # as long as it lives
    fcntl.flock(held, fcntl.LOCK_EX)
    beat(path)


def deleted(path: str) -> None:
    """One with a file open that has lost the name it was opened by."""
    first, second = Path(f"{path}.1"), Path(f"{path}.2")
    held = first.open("w")  # as long as it lives
    second.hardlink_to(first)
    first.unlink()
    beat(path, lambda _: not held.closed)


def terminal(path: str) -> None:
    """One with a terminal open: the one that is named, or one whose other end it has too."""
    import pty  # noqa: PLC0415

    held = os.open(os.environ["TERMINAL"], os.O_RDWR | os.O_NOCTTY) if "TERMINAL" in os.environ else pty.openpty()
    beat(path, lambda _: bool(held))


def job(path: str) -> None:
    """A child in its parent's session."""
    if os.fork():
        os.wait()
    beat(path)


def uring(path: str) -> None:
    """One with an io_uring. Source: io_uring_setup(2), by one number on every architecture."""
    import ctypes  # noqa: PLC0415

    assert ctypes.CDLL(None).syscall(425, 4, ctypes.create_string_buffer(120)) > 0
    beat(path)


def served(path: str) -> None:
    """A server's loop: on an io_uring, or on epoll where the kernel has none; a thread and a child have none either."""
    import ctypes  # noqa: PLC0415
    import select  # noqa: PLC0415

    def ring() -> int:
        return int(ctypes.CDLL(None).syscall(425, 4, ctypes.create_string_buffer(120)))

    if ring() > 0:
        beat(path)
    near, far = socket.socketpair()
    mine, its = socket.socketpair()
    threading.Thread(target=echo, args=(its, None, lambda: ring() < 0), daemon=True).start()
    if os.fork() == 0:
        near.close()
        echo(far, None, lambda: ring() < 0)
    far.close()
    poll = select.epoll()
    poll.register(near, select.EPOLLIN)

    def turn(n: int) -> bool:
        near.sendall(n.to_bytes(8, "big"))
        return poll.poll(10) == [(near.fileno(), select.EPOLLIN)] and told(near) == n and asked(mine, n) and ring() < 0

    beat(path, turn)


def cuda(path: str) -> None:
    """GPU memory with a pattern that the GPU checks itself at each beat."""
    from warmspare.control.cuda import Context  # noqa: PLC0415
    from warmspare.control.cuda_driver import Driver  # noqa: PLC0415
    from warmspare.control.kernels import Kernels  # noqa: PLC0415

    context = Context(Driver().devices()[0])
    kernels, buffer = Kernels(context), context.allocate(4 << 20)
    kernels.fill(buffer.pointer, buffer.size, 7)
    beat(path, lambda _: kernels.check(buffer.pointer, buffer.size, 7).wrong == 0)


def cuda_pair(path: str) -> None:
    """One with a child that has a context of its own."""
    if os.fork() == 0:
        cuda(f"{path}.child")
        os._exit(0)
    cuda(path)


def asked(end: socket.socket, number: int) -> bool:
    """Whether the other end answers with this number."""
    end.sendall(number.to_bytes(8, "big"))
    return told(end) == number


def told(end: socket.socket) -> int:
    """The number that comes from the other end."""
    return int.from_bytes(end.recv(8), "big")


def echo(end: socket.socket, through: socket.socket | None = None, check: Callable[[], bool] = lambda: True) -> None:
    """Answer until the other end is gone, or the check fails."""
    while (data := end.recv(8)) and check():
        if through is not None and not asked(through, int.from_bytes(data, "big")):
            break
        end.sendall(data)
    os._exit(0)


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
