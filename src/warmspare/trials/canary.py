"""The canary: a small CPU process tree whose memory, threads, files and sockets must all survive.

Started as a program of its own, with the standard library alone. It reads a secret from its standard
input, which is then closed, and at each beat writes a line of counters, sealed with that secret, into its
open file. Only the trial and the canary's memory hold the secret: whatever writes on without that memory
cannot seal a line.

Source for what CRIU must carry: threads, a child, a socket pair, an open file with its position.
"""

import hmac
import os
import socket
import sys
import threading
import time

BEAT_S = 0.005
SECRET_BYTES = 32
TAG = b"WARMSPARE_TRIAL"


def beat(path: str, keeper: int) -> None:
    """Run until the keeper is gone, writing `seal beats threads child pid child_pid` lines to `path`."""
    secret = os.read(0, SECRET_BYTES)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # CRIU refuses a pipe to the outside
    counts = [0, 0]
    for index in range(len(counts)):
        threading.Thread(target=_count, args=(counts, index), daemon=True).start()
    near, far = socket.socketpair()
    near.settimeout(30)
    child = os.fork()
    if child == 0:
        near.close()
        _echo(far)
    far.close()
    beats = echoed = 0
    with open(path, "w", buffering=1, encoding="ascii") as file:  # noqa: PTH123 # few imports, small dump
        while _is_kept(keeper):
            beats += 1
            near.send(beats.to_bytes(8, "big"))
            echoed = int.from_bytes(near.recv(8), "big")
            line = f"{beats} {min(counts)} {echoed - 1} {os.getpid()} {child}"
            file.write(f"{seal(secret, line)} {line}\n")
            time.sleep(BEAT_S)


def seal(secret: bytes, line: str) -> str:
    """The mark of a line that only a holder of the secret can make."""
    return hmac.new(secret, line.encode(), "sha256").hexdigest()


def _count(counts: list[int], index: int) -> None:
    while True:
        counts[index] += 1
        time.sleep(BEAT_S)


def _echo(far: socket.socket) -> None:
    """The child: counts what it echoes, and ends when its parent does."""
    while data := far.recv(8):
        far.send((int.from_bytes(data, "big") + 1).to_bytes(8, "big"))
    os._exit(0)


def _is_kept(keeper: int) -> bool:
    """Whether the keeper lives, told by the trial's token in its environment.

    Its start time would not do: CRIU restores into a new time namespace, where start times are shifted.
    """
    try:
        with open(f"/proc/{keeper}/environ", "rb") as file:  # noqa: PTH123 # few imports, small dump
            return TAG + b"=" + os.environb[TAG] in file.read()
    except OSError:
        return False


if __name__ == "__main__":
    beat(sys.argv[1], int(sys.argv[2]))
