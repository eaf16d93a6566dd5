"""CUDA's virtual memory management: addresses apart from the memory behind them. vLLM's Sleep Mode stands on it.

Source: cuda.h, "Virtual Memory Management".
"""

from __future__ import annotations

import ctypes

from warmspare.control import cuda_abi as abi
from warmspare.control.cuda import Buffer, Context


class Reservation:
    """A range of addresses of one GPU's context; it costs no memory until some is mapped."""

    def __init__(self, context: Context, size: int) -> None:
        """Reserve `size` bytes of addresses, a multiple of `granularity`.

        Raises:
            CudaError: the driver refuses.
        """
        self.context, self.size = context, size
        base = abi.Pointer()
        context.call("cuMemAddressReserve", ctypes.byref(base), size, 0, 0, 0)
        self.base = base.value

    def map(self, chunk: int, size: int, offset: int) -> Buffer:
        """Put a chunk of memory behind the addresses at `offset`, for its own GPU to read and write."""
        pointer = self.base + offset
        self.context.call("cuMemMap", pointer, size, 0, chunk, 0)
        access = abi.Access(location=_here(self.context), flags=abi.ACCESS_READ_WRITE)
        self.context.call("cuMemSetAccess", pointer, size, ctypes.byref(access), 1)
        return Buffer(self.context, pointer, size)

    def unmap(self, size: int, offset: int) -> None:
        """Take the memory from behind the addresses; they stay reserved."""
        self.context.call("cuMemUnmap", self.base + offset, size)

    def free(self) -> None:
        """Give the addresses back; nothing may be mapped there any more."""
        self.context.call("cuMemAddressFree", self.base, self.size)


def granularity(context: Context) -> int:
    """The least size of a chunk in bytes, which every size and offset must be a multiple of."""
    size, asked = ctypes.c_size_t(), _properties(context)
    call = (ctypes.byref(size), ctypes.byref(asked), abi.GRANULARITY_MINIMUM)
    context.call("cuMemGetAllocationGranularity", *call)
    return size.value


def create(context: Context, size: int) -> int:
    """A chunk of memory without an address: its handle."""
    handle = ctypes.c_ulonglong()
    context.call("cuMemCreate", ctypes.byref(handle), size, ctypes.byref(_properties(context)), 0)
    return handle.value


def release(context: Context, chunk: int) -> None:
    """Give a chunk back; it goes when it is mapped nowhere any more."""
    context.call("cuMemRelease", chunk)


def _here(context: Context) -> abi.Location:
    return abi.Location(type=abi.LOCATION_DEVICE, id=context.device.ordinal)


def _properties(context: Context) -> abi.AllocationProperties:
    return abi.AllocationProperties(type=abi.ALLOCATION_PINNED, location=_here(context))
