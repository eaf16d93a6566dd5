"""The process that calls the driver's checkpoint API: any of its calls may hang, and then it is killed.

Started with nothing but the standard library, so that it is up in some 30 ms. It reads one request a line on its
standard input and answers each with a line on its standard output; it ends with its input, and with its parent.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

from warmspare.control import cuda_abi as abi
from warmspare.control.cuda import Context
from warmspare.control.cuda_driver import CudaError, Driver
from warmspare.control.process import die_with_parent

START: Final = (
    "import sys; root, parent = sys.argv[1:]; sys.path.append(root);"
    " from warmspare.control import checkpoint_worker; checkpoint_worker.serve(int(parent))"
)
CALLS: Final = {
    "state": "cuCheckpointProcessGetState",
    "restore thread": "cuCheckpointProcessGetRestoreThreadId",
    "lock": "cuCheckpointProcessLock",
    "checkpoint": "cuCheckpointProcessCheckpoint",
    "restore": "cuCheckpointProcessRestore",
    "unlock": "cuCheckpointProcessUnlock",
}
"""Every call about a process, by what it does there. Source: cuda.h, group CUDA_CHECKPOINT."""
UUID_PREFIX: Final = "GPU-"


def serve(parent: int) -> None:
    """Answer requests until there are no more."""
    die_with_parent(parent)
    # A driver may print: what it says must not be taken for an answer.
    with os.fdopen(os.dup(1), "w", encoding="ascii") as answers:
        os.dup2(2, 1)
        caller = _Caller()
        for line in sys.stdin:
            answers.write(f"{json.dumps(caller.answer(json.loads(line)))}\n")
            answers.flush()


class _Caller:
    """The driver, loaded at the first request and initialised at the first that wants it."""

    def __init__(self) -> None:
        self._driver: Driver | None = None
        self._claimed: list[Context] = []

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What became of one request: `result` 0, or what the driver refused with; `result` None: it lacks the call."""
        begun = time.monotonic()
        try:
            value = self._carried_out(request)
        except CudaError as error:
            told: dict[str, Any] = {"result": error.result, "call": error.call, "name": error.name}
        else:
            told = {"result": abi.SUCCESS, "value": value}
        return {**told, "took_s": time.monotonic() - begun}

    def _carried_out(self, request: Mapping[str, Any]) -> object:
        self._driver = self._driver or Driver(initialise=False)
        match request["what"]:
            case "calls":
                return [call for call in CALLS.values() if not self._driver.has(call)]
            case "initialise":
                self._driver.initialise()
            case "claim":
                self._claim(self._driver, request["gpu"], request["bytes"], request["free_bytes"])
            case "release":
                self._release()
            case what:
                return call(self._driver, what, request)
        return None

    def _claim(self, driver: Driver, gpu: str, size: int, free: int) -> None:
        """Hold `size` of what was `free`, the context's own share of it included."""
        context = Context(driver.device(gpu))
        self._claimed.append(context)
        if (rest := size - max(0, free - context.memory().free)) > 0:
            context.allocate(rest)

    def _release(self) -> None:
        while self._claimed:
            self._claimed.pop().release()  # its memory goes with it


def call(driver: Driver, what: str, request: Mapping[str, Any]) -> int | None:
    """One call about a process, by its name in `CALLS`; the answer of those that ask.

    Raises:
        CudaError: the driver refuses, or lacks the call.
    """
    name, pid = CALLS[what], request["pid"]
    match what:
        case "state" | "restore thread":
            value = ctypes.c_int()
            driver.call(name, pid, ctypes.byref(value))
            return value.value
        case "lock":
            driver.call(name, pid, ctypes.byref(abi.LockArgs(timeout_ms=request["timeout_ms"])))
        case "restore":
            driver.call(name, pid, ctypes.byref(_mapping(request["gpus"])))
        case _:
            driver.call(name, pid, None)
    return None


def _mapping(gpus: Mapping[str, str]) -> abi.RestoreArgs:
    pairs = (abi.GpuPair * len(gpus))()
    for pair, names in zip(pairs, gpus.items(), strict=True):
        for field, name in zip((pair.old, pair.new), names, strict=True):
            field[:] = uuid.UUID(name.removeprefix(UUID_PREFIX)).bytes
    return abi.RestoreArgs(pairs=pairs, count=len(gpus))
