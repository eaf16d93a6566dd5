"""The calls of NIXL's Python that the trial makes, carried out by CUDA's own IPC on whatever driver is there.

`FAKE_NIXL` is a fate, perhaps after the one operation that it meets: `WRITE nowhere`, `READ hangs`, `refuses to load`.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import NoReturn

from warmspare.control.cuda import Buffer, Context, Driver, Event, Stream

FATE = os.environ.get("FAKE_NIXL", "")
TABLE = """\
[1795361605.247527] [vm:6938 :0]   +--------+-------------+---+
[1795361605.247527] [vm:6938 :0]   | {name} intra-node cfg#1 |
[1795361605.247527] [vm:6938 :0]   | remote memory {operation} |
[1795361605.247527] [vm:6938 :0]   +--------+-------------+---+
[1795361605.247527] [vm:6938 :0]   | Range  | Description | Config |
[1795361605.247527] [vm:6938 :0]   | 0..inf | {lane} |
[1795361605.247527] [vm:6938 :0]   +--------+-------------+---+
"""
SAYS = {
    "WRITE": "write by ucp_put*(multi) from cuda/GPU0 to cuda/dev[1]",
    "READ": "read by ucp_get*(multi) into cuda/GPU1 from cuda/dev[0]",
}
PAGE = 4096


class nixlBackendError(Exception):  # noqa: N801 # NIXL's own name
    """NIXL's own."""


if "refuses to load" in FATE:
    message = "libucp.so.0: cannot open shared object file"
    raise ImportError(message)


class nixl_agent_config:  # noqa: N801 # NIXL's own name
    """Which backends an agent is to have."""

    def __init__(self, *, backends: list[str]) -> None:
        """Keep them."""
        self.backends = backends


class Handle:
    """A transfer that can be posted again and again."""

    def __init__(self, operation: str, mine: int, theirs: int, size: int) -> None:
        """What goes where."""
        self.operation, self.size = operation, size
        self.to, self.from_ = (theirs, mine) if operation == "WRITE" else (mine, theirs)


class nixl_agent:  # noqa: N801 # NIXL's own name
    """An agent with one region."""

    def __init__(self, agent_name: str, nixl_conf: nixl_agent_config) -> None:
        """Name it."""
        self.name, self.backends = agent_name, nixl_conf.backends
        self._peers: dict[str, dict[str, object]] = {}
        self._context: Context
        self._stream: Stream
        self._event: Event

    def register_memory(self, reg_list: list[tuple[int, int, int, str]], mem_type: str) -> object:
        """Share the region; the device's number is CUDA's in this process."""
        assert mem_type == "VRAM"
        if FATE == "raises":
            message = "NIXL_ERR_BACKEND"
            raise nixlBackendError(message)
        ((address, size, ordinal, _),) = reg_list
        self._context = Context(Driver().devices()[ordinal])
        self._stream, self._event = self._context.stream(), self._context.event()
        shared = Buffer(self._context, address, size).shared()
        self._region = {"address": address, "size": size, "device": ordinal, "shared": shared.hex()}
        return reg_list

    def get_agent_metadata(self) -> bytes:
        """What another agent must know."""
        return json.dumps({"name": self.name, **self._region}).encode()

    def add_remote_agent(self, metadata: bytes) -> bytes:
        """Learn of another agent; the real one gives its name as bytes, too."""
        peer = json.loads(metadata)
        self._peers[peer["name"]] = peer
        peer["pointer"] = self._context.open_shared(bytes.fromhex(peer["shared"]), peer["size"]).pointer
        return str(peer["name"]).encode()

    def get_xfer_descs(self, descs: list[tuple[int, int, int]], mem_type: str) -> list[tuple[int, int, int]]:
        """Where the bytes are."""
        assert mem_type == "VRAM"
        return descs

    def initialize_xfer(
        self, operation: str, mine: list[tuple[int, int, int]], theirs: list[tuple[int, int, int]], peer: str
    ) -> Handle:
        """Get a transfer ready; addresses of a region that was not told of are refused."""
        other = self._peers[peer]
        if theirs != [(other["address"], other["size"], other["device"])]:
            message = "NIXL_ERR_NOT_FOUND"
            raise nixlBackendError(message)
        self._told(operation)
        return Handle(operation, mine[0][0], int(str(other["pointer"])), mine[0][1])

    def query_xfer_backend(self, handle: Handle) -> str:
        """Whose transfer it is; that says nothing of the way."""
        assert handle
        return self.backends[0]

    def transfer(self, handle: Handle) -> str:
        """Begin."""
        fate = FATE.removeprefix(f"{handle.operation} ")
        if fate == "dies":
            os.write(2, b"ucp_worker.c: Assertion failed\n")
            os.abort()
        if fate == "gives up":
            return "ERR"
        if fate == "nowhere":
            return "DONE"
        if fate == "hangs":
            wait_for_ever()
        size = handle.size - PAGE if fate == "loses a page" else handle.size
        self._context.copy(handle.to, handle.from_, size, self._stream)
        self._event.record(self._stream)
        return "PROC"

    def check_xfer_state(self, handle: Handle) -> str:
        """Whether it is over."""
        return "PROC" if f"{handle.operation} never ends" == FATE or not self._event.is_over() else "DONE"

    def release_xfer_handle(self, handle: Handle) -> None:
        """Give it up."""
        assert handle

    def _told(self, operation: str) -> None:
        lane = "software emulation | sysv/memory" if f"{operation} emulated" == FATE else "zero-copy | cuda_ipc/cuda"
        if os.environ.get("UCX_PROTO_INFO") == "y" and FATE != "silent":
            with Path(os.environ["UCX_LOG_FILE"]).open("a") as log:
                log.write(TABLE.format(name=self.name, operation=SAYS[operation], lane=lane))


def wait_for_ever() -> NoReturn:
    """A call that does not come back."""
    while True:
        time.sleep(60)
