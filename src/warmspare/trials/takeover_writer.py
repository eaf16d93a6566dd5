"""The writer that a takeover trial kills: a process of its own that publishes version after version.

Version v is the pattern of `seed_of(seed, v)`. On its standard output it says `ready`, and once it is told to go (a
byte on its standard input) after each publish `PUBLISHED SEALED`: the last version queued, and the last known to be
whole on the other GPU. Where the driver refuses, it says `refused CODE`, a tab and the detail, and ends.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Final

from warmspare.control import process
from warmspare.control.kernels import Kernels, word
from warmspare.control.lever import LeverRefused
from warmspare.control.replica import Writer

START: Final = (
    "import sys; sys.path.append(sys.argv[5]); from warmspare.trials import takeover_writer; takeover_writer.main()"
)
"""Run with `-P -c`, and the arguments GPU, SEED, SOCKET, PARENT, ROOT."""
READY: Final = "ready"
REFUSED: Final = "refused "


def seed_of(seed: int, version: int) -> int:
    """The seed of a version's pattern: no two versions have a word in common but by chance."""
    return word(seed, version)


def main() -> None:
    """Write until killed, or until the parent or the reader is gone."""
    gpu, seed, link, parent = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    process.die_with_parent(parent)
    try:
        _write(gpu, seed, socket.socket(fileno=link))
    except LeverRefused as refused:
        _say(f"{REFUSED}{refused.code}\t{refused.detail}")


def _write(gpu: str, seed: int, link: socket.socket) -> None:
    with Writer(gpu, link) as writer:
        kernels, size = Kernels(writer.context), writer.layout.size
        source = writer.context.allocate(size)
        kernels.fill(source.pointer, size, seed)
        writer.context.synchronize()
        _say(READY)
        if not os.read(0, 1):
            return
        version = 0
        while True:
            # In the stream's order: the pattern of the next version is written when this one has been copied.
            kernels.fill(source.pointer, size, seed_of(seed, version + 1))
            version = writer.publish(source.pointer) or version
            _say(f"{writer.published} {writer.sealed}")


def _say(line: str) -> None:
    os.write(1, f"{line}\n".encode("ascii", "replace"))
