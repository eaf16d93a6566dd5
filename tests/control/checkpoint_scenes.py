"""Processes to be suspended, line by line, and one that asks the driver to do it by its raw calls."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

import pynvml

from scenes import SEED, SIZE, perform, refusal, say
from warmspare.control import cuda_abi as abi
from warmspare.control import vmm
from warmspare.control.cuda import Buffer, Context, HostBuffer, Stream
from warmspare.control.cuda_driver import Driver
from warmspare.control.kernels import WORD_BYTES, Kernels

LETTING_GO: Final = 1
BEAT_S: Final = 0.01


def first() -> Context:
    """A context on the first GPU, and on no other."""
    return Context(Driver().devices()[0])


def captured(context: Context, stream: Stream, work: Callable[[], object]) -> abi.Handle:
    """What `work` gives the stream as a graph that can be launched."""
    graph, executable = abi.Handle(), abi.Handle()
    context.call("cuStreamBeginCapture_v2", stream.handle, abi.CAPTURE_MODE_THREAD_LOCAL)
    work()
    context.call("cuStreamEndCapture", stream.handle, ctypes.byref(graph))
    context.call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
    context.call("cuGraphDestroy", graph)
    return executable


class Busy:
    """A process with memory of every kind that can be suspended, a graph, and a stream."""

    def __init__(self, context: Context) -> None:
        """Fill everything with its pattern, and wait."""
        self.context, self.kernels, self.stream = context, Kernels(context), context.stream()
        size = vmm.granularity(context)
        self.reserved = vmm.Reservation(context, 2 * size)
        chunk = vmm.create(context, size)
        self.buffers = [context.allocate(SIZE), self.reserved.map(chunk, size, 0), self.reserved.map(chunk, size, size)]
        self.fill()
        self.pinned = context.pin(WORD_BYTES)
        self.counter = context.allocate(WORD_BYTES)
        context.set_words(self.counter.pointer, 0, 2)
        count = self.kernels.add
        self.graph = captured(context, self.stream, lambda: count(self.counter.pointer, WORD_BYTES, 1, self.stream))
        context.synchronize()

    def check(self) -> list[int]:
        """How many words are wrong in each buffer, checked by the GPU."""
        return [self.kernels.check(buffer.pointer, buffer.size, SEED).wrong for buffer in self.buffers]

    def fill(self) -> None:
        """Fill each buffer with its pattern."""
        for buffer in self.buffers:
            self.kernels.fill(buffer.pointer, buffer.size, SEED)

    def addresses(self) -> list[int]:
        """Where the buffers are."""
        return [buffer.pointer for buffer in self.buffers]

    def replay(self) -> int:
        """Launch the graph, and give the count that it has come to."""
        self.context.call("cuGraphLaunch", self.graph, self.stream.handle)
        self.stream.synchronize()
        return int.from_bytes(self.counter.read(WORD_BYTES), "little")

    def hold(self) -> None:
        """Start work that does not end by itself."""
        self.pinned.bytes()[0] = 0
        self.kernels.hold(self.pinned.pointer, LETTING_GO, 100, self.stream)

    def let_go(self) -> None:
        """Let that work end."""
        self.pinned.bytes()[0] = LETTING_GO

    def more(self) -> int:
        """Take more memory."""
        return self.context.allocate(SIZE).pointer

    def write(self) -> Any:  # noqa: ANN401
        """Write into the first buffer; what that was refused with, if it was."""
        return refusal(lambda: self.buffers[0].write(bytes(WORD_BYTES)))

    def synchronize(self) -> None:
        """Wait for the GPU, and do nothing before that."""
        self.context.synchronize()

    def wait(self) -> None:
        """Wait for the stream."""
        self.stream.synchronize()

    def fork(self) -> int:
        """A child that is no CUDA process, and ends with us."""
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            os.close(theirs)
            os.read(ours, 1)
            os._exit(0)
        return child


def obey(commands: Mapping[str, Callable[[], object]]) -> None:
    """Do what each line names, and say what it gave."""
    say("ready")
    for line in sys.stdin:
        say(commands[line.strip()]())


def target() -> None:
    """One on the first GPU."""
    busy = Busy(first())
    names = ("check", "fill", "addresses", "replay", "hold", "let_go", "more", "write", "synchronize", "wait", "fork")
    obey({name: getattr(busy, name) for name in names})


def idle() -> None:
    """One that has initialised CUDA, and no more."""
    Driver()
    obey({})


def stranger() -> None:
    """One that does not use CUDA."""
    obey({})


def managed() -> None:
    """One with managed memory."""
    busy = Busy(first())
    busy.context.allocate_managed(SIZE)
    obey({"check": busy.check})


def peers(enabled: str, memory: str) -> None:
    """One with two GPUs: with access from one to the other, or not; with memory on the other, or not."""
    one, other = (Context(device) for device in Driver().devices()[:2])
    busy = Busy(one)
    if memory == "memory":
        other.allocate(SIZE)
    if enabled == "enabled":
        one.enable_peer(other)
    obey({"check": busy.check})


def owner() -> None:
    """One that shares its memory."""
    busy = Busy(first())
    obey({"share": lambda: busy.buffers[0].shared().hex()})


def guest(handle: str) -> None:
    """One that uses another's memory."""
    busy = Busy(first())
    shared = busy.context.open_shared(bytes.fromhex(handle), SIZE)
    obey({"check": busy.check, "shared": lambda: busy.kernels.check(shared.pointer, SIZE, SEED).wrong})


def thief(mib: str) -> None:
    """One that takes memory of the first GPU, and gives it back."""
    taken = first().allocate(int(mib) << 20)
    obey({"free": taken.free})


def diarist(diary: str) -> None:
    """A target that nobody is connected to: it counts its graph on, line by line, and checks its memory."""
    busy = Busy(first())
    with open(diary, "w", encoding="ascii") as file:  # noqa: PTH123
        while True:
            file.write(f"{json.dumps([busy.replay(), busy.check()])}\n")
            file.flush()
            time.sleep(BEAT_S)


class Asker:
    """Asks the driver by its raw calls."""

    def __init__(self, *, initialised: bool) -> None:
        """With or without cuInit."""
        self.driver = Driver(initialise=initialised)

    def answer(self, action: str, pid: int, more: Any) -> Any:  # noqa: ANN401
        """The raw CUresult of a call; with the number that it tells, for those that tell one."""
        call, number = f"cuCheckpointProcess{action}", ctypes.c_int(-1)
        match action:
            case "GetState" | "GetRestoreThreadId":
                return [self.driver.result(call, pid, ctypes.byref(number)), number.value]
            case "Lock":
                return self.driver.result(call, pid, ctypes.byref(abi.LockArgs(timeout_ms=more or 0)))
            case "Restore" if more:
                pairs = (abi.GpuPair * len(more))(*(abi.GpuPair(old=octets(a), new=octets(b)) for a, b in more))
                return self.driver.result(call, pid, ctypes.byref(abi.RestoreArgs(pairs=pairs, count=len(more))))
            case _:
                return self.driver.result(call, pid, None)


def octets(gpu: str) -> Any:  # noqa: ANN401 # an array type of ctypes
    """A GPU's UUID as the driver takes it."""
    return (ctypes.c_ubyte * abi.UUID_BYTES)(*uuid.UUID(gpu.removeprefix("GPU-")).bytes)


def asker(initialised: str) -> None:
    """Ask what each line wants: an action, a pid, and what more it takes."""
    found = Asker(initialised=initialised == "initialised")
    say("ready")
    for line in sys.stdin:
        say(found.answer(*json.loads(line)))


def has() -> list[bool]:
    """Whether the driver has each of the calls."""
    driver = Driver()
    return [driver.has(call) for call in abi.CALLS if call.startswith("cuCheckpoint")]


def users() -> list[Any]:
    """What NVML says of each GPU: bytes in use, and by which processes (pid, bytes)."""
    pynvml.nvmlInit()
    handles = [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(4)]
    return [
        [
            pynvml.nvmlDeviceGetMemoryInfo(handle).used,
            [[one.pid, one.usedGpuMemory] for one in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)],
        ]
        for handle in handles
    ]


def left() -> list[int]:
    """Bytes that are free on the first GPU with one buffer on it: as CUDA has it, and NVML."""
    one = first()
    one.allocate(SIZE)
    pynvml.nvmlInit()
    return [one.memory().free, pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).free]


def graphs() -> dict[str, Any]:
    """What a graph does and when, and what cannot be captured."""
    one = first()
    kernels, stream, buffer, pin = Kernels(one), one.stream(), one.allocate(SIZE), one.pin(WORD_BYTES)
    one.set_words(buffer.pointer, 0, 2)
    one.synchronize()

    def count() -> int:
        return int.from_bytes(buffer.read(WORD_BYTES), "little")

    def work() -> None:
        kernels.add(buffer.pointer, WORD_BYTES, 5, stream)
        one.copy_out(pin.pointer, buffer.pointer, WORD_BYTES, stream)
        kernels.add(buffer.pointer, WORD_BYTES, 2, stream)

    graph = captured(one, stream, work)
    found: dict[str, Any] = {"captured": count()}
    for _ in "12":
        one.call("cuGraphLaunch", graph, stream.handle)
    stream.synchronize()
    found["launched twice"] = [count(), int.from_bytes(pin.bytes()[:WORD_BYTES], "little")]
    twice = captured(one, stream, lambda: one.call("cuGraphLaunch", graph, stream.handle))
    one.call("cuGraphLaunch", twice, stream.handle)
    stream.synchronize()
    found["a graph in a graph"] = count()
    return {**found, **_refusals(one, stream, buffer, pin), **_gone(one, stream, graph, buffer)}


def _refusals(one: Context, stream: Stream, buffer: Buffer, pin: HostBuffer) -> dict[str, Any]:
    graph, executable = abi.Handle(), abi.Handle()
    begin = ("cuStreamBeginCapture_v2", stream.handle, abi.CAPTURE_MODE_THREAD_LOCAL)
    end = ("cuStreamEndCapture", stream.handle, ctypes.byref(graph))
    found = {
        "the default stream": refusal(lambda: one.call("cuStreamBeginCapture_v2", None, 0)),
        "no such mode": refusal(lambda: one.call("cuStreamBeginCapture_v2", stream.handle, 3)),
        "an end without a beginning": refusal(lambda: one.call(*end)),
        "no graph": refusal(lambda: one.call("cuGraphInstantiateWithFlags", ctypes.byref(executable), None, 0)),
        "no executable": refusal(lambda: one.call("cuGraphLaunch", None, stream.handle)),
    }
    one.call(*begin)
    found["begun twice"] = refusal(lambda: one.call(*begin))
    one.copy_in(buffer.pointer, pin.pointer, WORD_BYTES, stream)
    found["a wait"] = refusal(stream.synchronize)
    found["its end"] = refusal(lambda: one.call(*end))
    found["after that"] = refusal(stream.synchronize)
    return found


def _gone(one: Context, stream: Stream, graph: abi.Handle, buffer: Buffer) -> dict[str, Any]:
    buffer.free()
    launched = refusal(lambda: one.call("cuGraphLaunch", graph, stream.handle))
    return {"its memory is gone": launched or refusal(stream.synchronize)}


if __name__ == "__main__":
    perform(globals())
