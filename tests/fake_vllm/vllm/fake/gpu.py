"""The GPU memory of one rank, by whatever libcuda.so.1 is found: it shows in NVML, and there may be too little."""

from __future__ import annotations

import ctypes
import os
import uuid
from typing import Final, NoReturn

MIB: Final = 2**20
SOURCE: Final = "/workspace/csrc/cumem_allocator.cpp:163"


class GpuError(Exception):
    """A call failed; as vLLM's allocator says it."""


class Gpu:
    """The GPU that is this rank's, of those that CUDA_VISIBLE_DEVICES shows."""

    def __init__(self, rank: int) -> None:
        """Make a context.

        Raises:
            GpuError: there is none.
        """
        try:
            self._cuda = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            message = f"libcuda.so.1: {error}"
            raise GpuError(message) from None
        self._held: dict[str, list[int]] = {}
        self._call("cuInit", 0)
        device = self._ordinal(rank)
        context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._cuda, name)(*arguments)
        if code:
            self._fail(code)

    @staticmethod
    def _fail(code: int) -> NoReturn:
        what = {1: "invalid argument", 2: "out of memory", 101: "invalid device ordinal"}.get(code, f"error {code}")
        message = f"CUDA Error: {what} at {SOURCE}"
        raise GpuError(message)

    def _ordinal(self, rank: int) -> int:
        count = ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        ids = [self._uuid(ordinal) for ordinal in range(count.value)]
        shown = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = [str(n) for n in range(count.value)] if shown is None else shown.split(",")
        if rank >= len(names) or not names[rank]:
            self._fail(101)
        name = names[rank].strip()
        found = [n for n, one in enumerate(ids) if one.startswith(name)] if name.startswith("GPU-") else [int(name)]
        return found[0] if found and found[0] < count.value else self._fail(101)

    def _uuid(self, ordinal: int) -> str:
        octets = ctypes.create_string_buffer(16)
        self._call("cuDeviceGetUuid_v2", octets, ordinal)
        return f"GPU-{uuid.UUID(bytes=octets.raw)}"

    def memory(self) -> tuple[int, int]:
        """Free and total bytes."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def take(self, tag: str, size: int) -> None:
        """So many bytes, under a tag.

        Raises:
            GpuError: there are too few.
        """
        pointer = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(max(size, 1)))
        self._held.setdefault(tag, []).append(pointer.value)

    def has(self, tag: str) -> bool:
        """Whether anything is held under a tag."""
        return bool(self._held.get(tag))

    def give_back(self, tag: str) -> None:
        """All that is held under a tag."""
        for pointer in self._held.pop(tag, []):
            self._call("cuMemFree_v2", ctypes.c_uint64(pointer))
