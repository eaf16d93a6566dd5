"""What a caller wants kept: whether the driver knows the memory, and whose it is."""

from __future__ import annotations

import ctypes

from warmspare.control import cuda_abi as abi
from warmspare.control.cuda import Context


def be_own(context: Context, pointer: int, size: int) -> None:
    """Refuse what cannot be `size` bytes at `pointer` in the memory of this context's GPU.

    Work on such a pointer would fail on the GPU, and with it all else that the process has there. Only what is certain
    is refused: the end of an allocation is known of cudaMalloc's memory alone, since mapped memory (torch's expandable
    segments) and memory of a pool may go on in the next piece.

    Raises:
        ValueError: the driver knows no such memory, it is another GPU's, or its allocation ends before.
    """
    if _told(context, abi.POINTER_MEMORY_TYPE, pointer) is None:
        message = f"the driver knows of no memory at {pointer:#x}"
        raise ValueError(message)
    ordinal, is_managed = (_told(context, a, pointer) for a in (abi.POINTER_DEVICE_ORDINAL, abi.POINTER_IS_MANAGED))
    is_gpus = _told(context, abi.POINTER_MEMORY_TYPE, pointer) == abi.MEMORY_DEVICE and not is_managed
    if is_gpus and ordinal not in (None, context.device.ordinal):
        message = f"the memory at {pointer:#x} is of CUDA's device {ordinal}, the writer's is {context.device.ordinal}"
        raise ValueError(message)
    start, length = (_told(context, a, pointer) for a in (abi.POINTER_RANGE_START, abi.POINTER_RANGE_SIZE))
    if is_gpus and _told(context, abi.POINTER_IS_LEGACY_IPC_CAPABLE, pointer) and start is not None and length:
        left = start + length - pointer
        if size > left:
            message = f"{size} bytes are to be kept, and the allocation ends {left} bytes after {pointer:#x}"
            raise ValueError(message)


def _told(context: Context, attribute: int, pointer: int) -> int | None:
    """What the driver says of a pointer; None where it knows nothing, or is older than the question."""
    value = ctypes.c_ulonglong()
    context.driver.call("cuCtxSetCurrent", context.handle)
    result = context.driver.result("cuPointerGetAttribute", ctypes.byref(value), attribute, pointer)
    if result == abi.INVALID_VALUE:
        return None
    if result:
        context.driver.fail("cuPointerGetAttribute", result)
    return value.value
