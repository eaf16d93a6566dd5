"""One NIXL agent, in a process of its own under the engine's Python: orders come in and answers go out as JSON lines.

`nixl.py` starts it. That Python has NIXL and may have nothing of ours: here only the standard library, NIXL and our
levers on the CUDA driver are used, in the words of Python 3.10.

Source: ai-dynamo/nixl, src/api/python/_api.py.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import json
import os
import time
from typing import Any, Final, TextIO

from warmspare.control.cuda import Buffer, Context, Driver
from warmspare.control.kernels import POISON, WORD_BYTES, Kernels
from warmspare.control.lever import LeverRefused

PACKAGES: Final = ("nixl", "nixl_cu13", "nixl_cu12")
"""What may be imported as NIXL; engines import the first."""
BACKEND: Final = "UCX"
VRAM: Final = "VRAM"
ENOUGH_S: Final = 4.0
"""A measurement that has taken this long is broken off after the transfer that is running."""

Answer = dict[str, Any]


class Agent:
    """A buffer on one GPU, and the NIXL agent that offers it. Each public method is an order."""

    def __init__(self, name: str) -> None:
        """Name the agent; NIXL tells agents apart by that."""
        self._name = name
        self._context: Context
        self._kernels: Kernels
        self._buffer: Buffer
        self._module: Any = None
        self._agent: Any = None

    def look(self) -> Answer:
        """Which package of NIXL is here, and its version; nothing of it is run."""
        package = next((name for name in PACKAGES if importlib.util.find_spec(name)), None)
        return {"package": package, "version": package and _version(package)}

    def open(self, gpu: str) -> Answer:
        """Make the primary context of a GPU, by UUID or PCI address: CUDA's own number for it is told to NIXL."""
        self._context = Context(Driver().device(gpu))
        self._kernels = Kernels(self._context)
        return {"free": self._context.memory().free}

    def allocate(self, size: int, seed: int) -> Answer:
        """Take the buffer, and try the check kernel on a planted fault."""
        self._buffer = self._context.allocate(size)
        return {"sees_faults": self._kernels.sees_faults(self._buffer, seed)}

    def load(self, package: str) -> Answer:
        """Import NIXL."""
        self._module = importlib.import_module(f"{package}._api")
        return {}

    def join(self) -> Answer:
        """Make the agent, register the buffer, and tell what the other agent must know."""
        self._context.set_words(self._buffer.pointer, POISON, 1)  # the context is current in this thread from here on
        self._agent = self._module.nixl_agent(self._name, self._module.nixl_agent_config(backends=[BACKEND]))
        place = (self._buffer.pointer, self._buffer.size, self._context.device.ordinal)
        self._agent.register_memory([(*place, "")], VRAM)
        return {"metadata": self._agent.get_agent_metadata().hex(), "place": place}

    def meet(self, metadata: str) -> Answer:
        """Learn of the other agent, and what NIXL calls it."""
        name = self._agent.add_remote_agent(bytes.fromhex(metadata))
        return {"peer": name.decode() if isinstance(name, bytes) else name}

    def fill(self, seed: int) -> Answer:
        """Write a pattern over the buffer."""
        self._kernels.fill(self._buffer.pointer, self._buffer.size, seed)
        self._context.synchronize()
        return {}

    def poison(self) -> Answer:
        """Write over the buffer what no pattern is made of."""
        self._context.set_words(self._buffer.pointer, POISON, self._buffer.size // (WORD_BYTES // 2))
        self._context.synchronize()
        return {}

    def transfer(self, operation: str, peer: str, place: list[int], times: int) -> Answer:
        """WRITE the buffer to the peer's, or READ the peer's into it, so many times one after the other."""
        own = (self._buffer.pointer, self._buffer.size, self._context.device.ordinal)
        mine, theirs = (self._agent.get_xfer_descs([tuple(one)], VRAM) for one in (own, place))
        handle = self._agent.initialize_xfer(operation, mine, theirs, peer)
        backend = self._agent.query_xfer_backend(handle)
        started, done = time.monotonic(), 0
        while done < times and time.monotonic() - started < ENOUGH_S:
            self._once(handle)
            done += 1
        took_s = time.monotonic() - started
        self._agent.release_xfer_handle(handle)
        return {"backend": str(backend), "transfers": done, "took_s": took_s}

    def _once(self, handle: object) -> None:
        """Wait for one transfer; the trial's own deadline ends one that never ends."""
        state = self._agent.transfer(handle)
        while state == "PROC":
            state = self._agent.check_xfer_state(handle)
        if state != "DONE":
            raise LeverRefused(str(state), "NIXL gave the transfer up")

    def check(self, seed: int) -> Answer:
        """Compare the buffer with a pattern, on its own GPU; `poison`: nothing came to the first wrong word."""
        found = self._kernels.check(self._buffer.pointer, self._buffer.size, seed)
        at = (found.first or 0) * WORD_BYTES
        held = self._buffer.read(WORD_BYTES, at)
        return {"wrong": found.wrong, "at": at, "poison": held == POISON.to_bytes(WORD_BYTES // 2, "little") * 2}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def obey(agent: Agent, order: Answer) -> Answer:
    """Carry one order out; a refusal is an answer too, `refused` with its code."""
    try:
        answer: Answer = getattr(agent, order.pop("do"))(**order)
    except LeverRefused as refusal:
        return {"refused": refusal.code, "detail": refusal.detail}
    except Exception as error:  # noqa: BLE001 # NIXL's exceptions have no base of their own: each goes by its name
        return {"refused": type(error).__name__, "detail": str(error)}
    return answer


def serve(name: str, orders: TextIO, answers: TextIO) -> None:
    """Obey until the orders end. Then the process ends at once: how NIXL is taken down is not what is tried."""
    agent, libc = Agent(name), ctypes.CDLL(None)
    for line in orders:
        answer = obey(agent, json.loads(line))
        libc.fflush(None)  # what UCX has logged so far is read after the answer
        print(json.dumps(answer), file=answers, flush=True)
    os._exit(0)
