"""CUDA's driver API by ctypes: contexts, memory, streams, events, peers, and other processes' memory.

It needs no toolkit and no torch, sees a call that an old driver lacks, and keeps every raw CUresult. Only the standard
library is imported, so that another Python (an engine's own) can use it too.

A context here is the device's *primary* one, which torch and NCCL use as well: their pointers are good in it.
Whoever makes a context should be a process that may be killed: a call into a driver can hang or crash.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from warmspare.control import cuda_abi as abi
from warmspare.control.cuda_driver import CudaError, Device, Driver

__all__ = ["Buffer", "Context", "CudaError", "Device", "Driver", "Event", "HostBuffer", "Memory", "Shape", "Stream"]


class MemoryInfo(NamedTuple):
    """What a GPU has, in bytes."""

    free: int
    total: int


class Shape(NamedTuple):
    """How many threads a kernel gets: so many blocks of so many."""

    blocks: int
    threads: int


class Context:
    """A device's primary context. Every method makes it current first, so several can be used in turn."""

    def __init__(self, device: Device) -> None:
        """Retain it; the first to do so takes some hundreds of MiB of the GPU."""
        self.device, self.driver = device, device.driver
        self.handle = abi.Handle()
        self.driver.call("cuDevicePrimaryCtxRetain", _at(self.handle), device.ordinal)

    def call(self, name: str, *arguments: object) -> None:
        """Call the driver with this context current."""
        self.driver.call("cuCtxSetCurrent", self.handle)
        self.driver.call(name, *arguments)

    @contextlib.contextmanager
    def visited(self) -> Iterator[None]:
        """Make this thread's current context again in the end what it is now: it may be another device's, torch's."""
        before = abi.Handle()
        is_known = self.driver.result("cuCtxGetCurrent", _at(before)) == abi.SUCCESS
        try:
            yield
        finally:
            if is_known:  # one that cannot be made current has been released meanwhile, or its GPU has failed
                self.driver.result("cuCtxSetCurrent", before)

    def release(self) -> None:
        """Give the primary context back; nothing made in it may be used any more."""
        self.driver.call("cuDevicePrimaryCtxRelease_v2", self.device.ordinal)

    def memory(self) -> MemoryInfo:
        """Free and total bytes of the GPU, as the driver tells this process."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.call("cuMemGetInfo_v2", _at(free), _at(total))
        return MemoryInfo(free.value, total.value)

    def allocate(self, size: int) -> Buffer:
        """`size` bytes on the GPU."""
        pointer = abi.Pointer()
        self.call("cuMemAlloc_v2", _at(pointer), size)
        return Buffer(self, pointer.value, size)

    def allocate_managed(self, size: int) -> Buffer:
        """`size` bytes that CPU and GPU may both use."""
        pointer = abi.Pointer()
        self.call("cuMemAllocManaged", _at(pointer), size, abi.MEM_ATTACH_GLOBAL)
        return Buffer(self, pointer.value, size)

    def pin(self, size: int) -> HostBuffer:
        """`size` bytes of page-locked host memory that every context may use."""
        pointer = ctypes.c_void_p()
        self.call("cuMemHostAlloc", _at(pointer), size, abi.HOST_PORTABLE)
        return HostBuffer(self, pointer.value or 0, size)

    def stream(self) -> Stream:
        """A stream that waits for no other."""
        return Stream(self)

    def event(self, flags: int = abi.EVENT_DEFAULT) -> Event:
        """An event that keeps its time, unless `flags` say otherwise."""
        return Event(self, flags)

    def enable_peer(self, peer: Context) -> None:
        """Let this context use the peer's memory; that it may already is no error."""
        self.driver.call("cuCtxSetCurrent", self.handle)
        result = self.driver.result("cuCtxEnablePeerAccess", peer.handle, 0)
        if result not in (abi.SUCCESS, abi.PEER_ACCESS_ALREADY_ENABLED):
            self.driver.fail("cuCtxEnablePeerAccess", result)

    def open_shared(self, handle: bytes, size: int) -> Shared:
        """Another process's allocation on this GPU, or on a peer of it, by the handle that its owner exported."""
        pointer = abi.Pointer()
        shared = abi.IpcHandle.from_buffer_copy(handle)
        self.call("cuIpcOpenMemHandle_v2", _at(pointer), shared, abi.IPC_LAZY_ENABLE_PEER_ACCESS)
        return Shared(self, pointer.value, size)

    def set_words(self, pointer: int, value: int, words: int, stream: Stream | None = None) -> None:
        """Write a 32-bit value `words` times, in stream order."""
        self.call("cuMemsetD32Async", pointer, value, words, _stream(stream))

    def copy(self, target: int, source: int, size: int, stream: Stream | None = None) -> None:
        """Copy within what this context can reach, its own memory or a peer's, in stream order."""
        self.call("cuMemcpyDtoDAsync_v2", target, source, size, _stream(stream))

    def copy_to_peer(self, target: Buffer, source: Buffer, size: int, stream: Stream | None = None) -> None:
        """Copy between two GPUs: by peer access if it is enabled; otherwise the driver stages it through the host."""
        contexts = (target.context.handle, source.pointer, source.context.handle)
        self.call("cuMemcpyPeerAsync", target.pointer, *contexts, size, _stream(stream))

    def copy_in(self, target: int, host: int, size: int, stream: Stream | None = None) -> None:
        """Copy from host memory, in stream order if it is pinned."""
        self.call("cuMemcpyHtoDAsync_v2", target, host, size, _stream(stream))

    def copy_out(self, host: int, source: int, size: int, stream: Stream | None = None) -> None:
        """Copy to host memory, in stream order if it is pinned."""
        self.call("cuMemcpyDtoHAsync_v2", host, source, size, _stream(stream))

    def module(self, ptx: str) -> abi.Handle:
        """Compile PTX for this GPU."""
        handle = abi.Handle()
        self.call("cuModuleLoadData", _at(handle), ptx.encode("ascii"))
        return handle

    def unload(self, module: abi.Handle) -> None:
        """Give a module and its kernels up."""
        self.call("cuModuleUnload", module)

    def function(self, module: abi.Handle, name: str) -> abi.Handle:
        """A kernel of a module."""
        handle = abi.Handle()
        self.call("cuModuleGetFunction", _at(handle), module, name.encode("ascii"))
        return handle

    def launch(
        self, function: abi.Handle, shape: Shape, arguments: Sequence[Any], stream: Stream | None = None
    ) -> None:
        """Start a kernel with these ctypes values, in stream order."""
        places = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(value) for value in arguments))
        grid = (shape.blocks, 1, 1, shape.threads, 1, 1, 0)
        self.call("cuLaunchKernel", function, *grid, _stream(stream), places, None)

    def synchronize(self) -> None:
        """Wait for everything in this context."""
        self.call("cuCtxSynchronize")


class Memory:
    """Bytes at a pointer that this context can use."""

    def __init__(self, context: Context, pointer: int, size: int) -> None:
        """Name `size` bytes at `pointer`."""
        self.context, self.pointer, self.size = context, pointer, size


class Buffer(Memory):
    """An allocation of ours on a GPU, or a managed one."""

    def write(self, data: bytes, offset: int = 0) -> None:
        """Copy from the host, and wait."""
        self.context.call("cuMemcpyHtoD_v2", self.pointer + offset, data, len(data))

    def read(self, size: int, offset: int = 0) -> bytes:
        """Copy to the host, and wait."""
        data = ctypes.create_string_buffer(size)
        self.context.call("cuMemcpyDtoH_v2", data, self.pointer + offset, size)
        return data.raw

    def shared(self) -> bytes:
        """A handle that lets another process of this machine use the allocation."""
        handle = abi.IpcHandle()
        self.context.call("cuIpcGetMemHandle", _at(handle), self.pointer)
        return bytes(handle)

    def free(self) -> None:
        """Give it back."""
        self.context.call("cuMemFree_v2", self.pointer)


class Shared(Memory):
    """Another process's allocation."""

    def close(self) -> None:
        """Use it no more; it stays its owner's."""
        self.context.call("cuIpcCloseMemHandle", self.pointer)


class HostBuffer(Memory):
    """Page-locked host memory; the pointer is good on the CPU and on every GPU."""

    def bytes(self) -> memoryview:
        """Its bytes, as the CPU sees them."""
        return memoryview((ctypes.c_char * self.size).from_address(self.pointer)).cast("B")

    def free(self) -> None:
        """Give it back; views of its bytes may not be used any more."""
        self.context.call("cuMemFreeHost", self.pointer)


class Stream:
    """Work in order. It waits for no other stream but as told."""

    def __init__(self, context: Context, handle: int | None = None) -> None:
        """Make one in a context, or name one of somebody else's (torch's), who also closes it."""
        self.context, self.handle = context, abi.Handle(handle)
        if handle is None:
            context.call("cuStreamCreate", _at(self.handle), abi.STREAM_NON_BLOCKING)

    def synchronize(self) -> None:
        """Wait until all of its work is done."""
        self.context.call("cuStreamSynchronize", self.handle)

    def wait(self, event: Event) -> None:
        """Let what comes next wait for an event, also another context's."""
        self.context.call("cuStreamWaitEvent", self.handle, event.handle, 0)

    def close(self) -> None:
        """Give it up; what is in it still runs."""
        self.context.call("cuStreamDestroy_v2", self.handle)


class Event:
    """A moment in a stream."""

    def __init__(self, context: Context, flags: int = abi.EVENT_DEFAULT) -> None:
        """Make one in a context."""
        self.context, self.handle = context, abi.Handle()
        context.call("cuEventCreate", _at(self.handle), flags)

    def record(self, stream: Stream | None = None) -> Event:
        """Mark this moment of a stream of its context."""
        self.context.call("cuEventRecord", self.handle, _stream(stream))
        return self

    def synchronize(self) -> None:
        """Wait for it."""
        self.context.call("cuEventSynchronize", self.handle)

    def is_over(self) -> bool:
        """Whether it has come, without waiting."""
        driver = self.context.driver
        result = driver.result("cuEventQuery", self.handle)
        if result not in (abi.SUCCESS, abi.NOT_READY):
            driver.fail("cuEventQuery", result)
        return result == abi.SUCCESS

    def since_s(self, earlier: Event) -> float:
        """Seconds since an earlier event of the same context, by the GPU's clock; waits for this one."""
        self.synchronize()
        milliseconds = ctypes.c_float()
        self.context.call("cuEventElapsedTime", _at(milliseconds), earlier.handle, self.handle)
        return milliseconds.value / 1e3

    def close(self) -> None:
        """Give it up."""
        self.context.call("cuEventDestroy_v2", self.handle)


def _at(value: Any) -> Any:  # noqa: ANN401 # ctypes has a type of its own for every pointer
    return ctypes.byref(value)


def _stream(stream: Stream | None) -> abi.Handle:
    return stream.handle if stream else abi.Handle()
