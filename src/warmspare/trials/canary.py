"""The canary: a small CPU process tree whose memory, threads, files and sockets must all survive.

Started as a program of its own, with the standard library alone. It holds a secret that exists nowhere
but in its memory, and writes a line of counters and the secret's digest into its open file at each beat:
a program started anew instead of restored has another secret and counters from zero.

Source for what CRIU must carry: threads, a child, a socket pair, an open file with its position.
"""

import hashlib
import os
import secrets
import socket
import sys
import threading
import time

BEAT_S = 0.005
TAG = b"WARMSPARE_TRIAL"


def beat(path: str, keeper: int) -> None:
    """Run until the keeper is gone, writing `digest main threads child socket` lines to `path`."""
    secret = secrets.token_bytes(32)
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
            digest = hashlib.sha256(secret).hexdigest()
            file.write(f"{digest} {beats} {min(counts)} {echoed - 1} {os.getpid()} {child}\n")
            time.sleep(BEAT_S)


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
