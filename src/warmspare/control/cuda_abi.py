"""The part of the CUDA driver's ABI that is used here: results, numbers, structures, and what each call takes.

Source: cuda.h of the CUDA toolkit; the tests hold every number and size against NVIDIA's own Python binding.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char, c_char_p, c_float, c_int, c_size_t, c_ubyte, c_uint, c_ulonglong, c_ushort, c_void_p
from types import MappingProxyType
from typing import Final

SUCCESS: Final = 0
RESULTS: Final = MappingProxyType({
    1: "CUDA_ERROR_INVALID_VALUE",
    2: "CUDA_ERROR_OUT_OF_MEMORY",
    3: "CUDA_ERROR_NOT_INITIALIZED",
    4: "CUDA_ERROR_DEINITIALIZED",
    34: "CUDA_ERROR_STUB_LIBRARY",
    46: "CUDA_ERROR_DEVICE_UNAVAILABLE",
    100: "CUDA_ERROR_NO_DEVICE",
    101: "CUDA_ERROR_INVALID_DEVICE",
    200: "CUDA_ERROR_INVALID_IMAGE",
    201: "CUDA_ERROR_INVALID_CONTEXT",
    209: "CUDA_ERROR_NO_BINARY_FOR_GPU",
    214: "CUDA_ERROR_ECC_UNCORRECTABLE",
    217: "CUDA_ERROR_PEER_ACCESS_UNSUPPORTED",
    218: "CUDA_ERROR_INVALID_PTX",
    221: "CUDA_ERROR_JIT_COMPILER_NOT_FOUND",
    222: "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
    223: "CUDA_ERROR_JIT_COMPILATION_DISABLED",
    304: "CUDA_ERROR_OPERATING_SYSTEM",
    400: "CUDA_ERROR_INVALID_HANDLE",
    401: "CUDA_ERROR_ILLEGAL_STATE",
    500: "CUDA_ERROR_NOT_FOUND",
    600: "CUDA_ERROR_NOT_READY",
    700: "CUDA_ERROR_ILLEGAL_ADDRESS",
    701: "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
    702: "CUDA_ERROR_LAUNCH_TIMEOUT",
    704: "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED",
    705: "CUDA_ERROR_PEER_ACCESS_NOT_ENABLED",
    711: "CUDA_ERROR_TOO_MANY_PEERS",
    712: "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED",
    719: "CUDA_ERROR_LAUNCH_FAILED",
    800: "CUDA_ERROR_NOT_PERMITTED",
    801: "CUDA_ERROR_NOT_SUPPORTED",
    802: "CUDA_ERROR_SYSTEM_NOT_READY",
    803: "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
    804: "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
    805: "CUDA_ERROR_MPS_CONNECTION_FAILED",
    999: "CUDA_ERROR_UNKNOWN",
})  # fmt: skip
"""The CUresults that are likely here; the driver itself names any other."""
INVALID_VALUE: Final = 1
OUT_OF_MEMORY: Final = 2
NOT_INITIALIZED: Final = 3
INVALID_DEVICE: Final = 101
OPERATING_SYSTEM: Final = 304
ILLEGAL_STATE: Final = 401
PEER_ACCESS_UNSUPPORTED: Final = 217
NOT_READY: Final = 600
PEER_ACCESS_ALREADY_ENABLED: Final = 704
TOO_MANY_PEERS: Final = 711
NOT_SUPPORTED: Final = 801

ATTRIBUTES: Final = MappingProxyType({
    "multiprocessors": 16,
    "unified_addressing": 41,
    "managed_memory": 83,
    "pageable_memory_access": 88,
    "concurrent_managed_access": 89,
    "vmm": 102,
})  # fmt: skip
"""CUdevice_attribute numbers."""

STREAM_NON_BLOCKING: Final = 1
EVENT_DEFAULT: Final = 0
EVENT_BLOCKING_SYNC: Final = 1
EVENT_DISABLE_TIMING: Final = 2
MEM_ATTACH_GLOBAL: Final = 1
HOST_PORTABLE: Final = 1
IPC_LAZY_ENABLE_PEER_ACCESS: Final = 1
ALLOCATION_PINNED: Final = 1
LOCATION_DEVICE: Final = 1
ACCESS_READ_WRITE: Final = 3
GRANULARITY_MINIMUM: Final = 0
POINTER_MEMORY_TYPE: Final = 2
POINTER_IS_MANAGED: Final = 8
POINTER_DEVICE_ORDINAL: Final = 9
POINTER_IS_LEGACY_IPC_CAPABLE: Final = 10
POINTER_RANGE_START: Final = 11
POINTER_RANGE_SIZE: Final = 12
MEMORY_DEVICE: Final = 2
IPC_HANDLE_BYTES: Final = 64
UUID_BYTES: Final = 16
CAPTURE_MODE_THREAD_LOCAL: Final = 1
PROCESS_STATES: Final = ("running", "locked", "checkpointed", "failed", "checkpointing", "restoring")
"""CUprocessState by its number; the last two came with custom storage (CUDA 13.4)."""


class Location(ctypes.Structure):
    """CUmemLocation: which GPU."""

    _fields_ = (("type", c_int), ("id", c_int))


class AllocationFlags(ctypes.Structure):
    """The unnamed structure inside CUmemAllocationProp."""

    _fields_ = (("compression", c_ubyte), ("rdma", c_ubyte), ("usage", c_ushort), ("reserved", c_ubyte * 4))


class AllocationProperties(ctypes.Structure):
    """CUmemAllocationProp: what kind of memory to make, and where."""

    _fields_ = (
        ("type", c_int),
        ("handle_types", c_int),
        ("location", Location),
        ("security", c_void_p),
        ("flags", AllocationFlags),
    )


class Access(ctypes.Structure):
    """CUmemAccessDesc: who may do what with mapped memory."""

    _fields_ = (("location", Location), ("flags", c_int))


class IpcHandle(ctypes.Structure):
    """CUipcMemHandle: names an allocation to another process."""

    _fields_ = (("reserved", c_char * IPC_HANDLE_BYTES),)


class LockArgs(ctypes.Structure):
    """CUcheckpointLockArgs: how long to wait for the process's work; 0 is for ever."""

    _fields_ = (("timeout_ms", c_uint), ("reserved0", c_uint), ("reserved1", c_ulonglong * 7))


class CheckpointArgs(ctypes.Structure):
    """CUcheckpointCheckpointArgs: nothing that is used here."""

    _fields_ = (("reserved", c_ulonglong * 8),)


class GpuPair(ctypes.Structure):
    """CUcheckpointGpuPair: the UUID of a GPU that was used, and of the one to use instead."""

    _fields_ = (("old", c_ubyte * UUID_BYTES), ("new", c_ubyte * UUID_BYTES))


class RestoreArgs(ctypes.Structure):
    """CUcheckpointRestoreArgs: which GPU in place of which; none: each its own."""

    _fields_ = (("pairs", POINTER(GpuPair)), ("count", c_uint), ("reserved", c_ubyte * 52))


class UnlockArgs(ctypes.Structure):
    """CUcheckpointUnlockArgs: nothing that is used here."""

    _fields_ = (("reserved", c_ulonglong * 8),)


Pointer = c_ulonglong
"""CUdeviceptr."""
Handle = c_void_p
"""CUcontext, CUstream, CUevent, CUmodule, CUfunction, CUgraph, CUgraphExec."""

CALLS: Final = MappingProxyType({
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetUuid_v2": (c_char_p, c_int),
    "cuDeviceGetUuid": (c_char_p, c_int),
    "cuDeviceGetPCIBusId": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(Handle), c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxSetCurrent": (Handle,),
    "cuCtxGetCurrent": (POINTER(Handle),),
    "cuCtxSynchronize": (),
    "cuCtxEnablePeerAccess": (Handle, c_uint),
    "cuDeviceCanAccessPeer": (POINTER(c_int), c_int, c_int),
    "cuMemGetInfo_v2": (POINTER(c_size_t), POINTER(c_size_t)),
    "cuPointerGetAttribute": (c_void_p, c_int, Pointer),
    "cuMemAlloc_v2": (POINTER(Pointer), c_size_t),
    "cuMemAllocManaged": (POINTER(Pointer), c_size_t, c_uint),
    "cuMemFree_v2": (Pointer,),
    "cuMemHostAlloc": (POINTER(c_void_p), c_size_t, c_uint),
    "cuMemFreeHost": (c_void_p,),
    "cuMemcpyHtoD_v2": (Pointer, c_void_p, c_size_t),
    "cuMemcpyDtoH_v2": (c_void_p, Pointer, c_size_t),
    "cuMemcpyHtoDAsync_v2": (Pointer, c_void_p, c_size_t, Handle),
    "cuMemcpyDtoHAsync_v2": (c_void_p, Pointer, c_size_t, Handle),
    "cuMemcpyDtoDAsync_v2": (Pointer, Pointer, c_size_t, Handle),
    "cuMemcpyPeerAsync": (Pointer, Handle, Pointer, Handle, c_size_t, Handle),
    "cuMemsetD32Async": (Pointer, c_uint, c_size_t, Handle),
    "cuStreamCreate": (POINTER(Handle), c_uint),
    "cuStreamDestroy_v2": (Handle,),
    "cuStreamSynchronize": (Handle,),
    "cuStreamQuery": (Handle,),
    "cuStreamWaitEvent": (Handle, Handle, c_uint),
    "cuEventCreate": (POINTER(Handle), c_uint),
    "cuEventDestroy_v2": (Handle,),
    "cuEventRecord": (Handle, Handle),
    "cuEventSynchronize": (Handle,),
    "cuEventQuery": (Handle,),
    "cuEventElapsedTime": (POINTER(c_float), Handle, Handle),
    "cuModuleLoadData": (POINTER(Handle), c_char_p),
    "cuModuleUnload": (Handle,),
    "cuModuleGetFunction": (POINTER(Handle), Handle, c_char_p),
    "cuLaunchKernel": (Handle, *[c_uint] * 7, Handle, POINTER(c_void_p), c_void_p),
    "cuIpcGetMemHandle": (POINTER(IpcHandle), Pointer),
    "cuIpcOpenMemHandle_v2": (POINTER(Pointer), IpcHandle, c_uint),
    "cuIpcCloseMemHandle": (Pointer,),
    "cuMemGetAllocationGranularity": (POINTER(c_size_t), POINTER(AllocationProperties), c_int),
    "cuMemAddressReserve": (POINTER(Pointer), c_size_t, c_size_t, Pointer, c_ulonglong),
    "cuMemAddressFree": (Pointer, c_size_t),
    "cuMemCreate": (POINTER(c_ulonglong), c_size_t, POINTER(AllocationProperties), c_ulonglong),
    "cuMemRelease": (c_ulonglong,),
    "cuMemMap": (Pointer, c_size_t, c_size_t, c_ulonglong, c_ulonglong),
    "cuMemUnmap": (Pointer, c_size_t),
    "cuMemSetAccess": (Pointer, c_size_t, POINTER(Access), c_size_t),
    "cuStreamBeginCapture_v2": (Handle, c_int),
    "cuStreamEndCapture": (Handle, POINTER(Handle)),
    "cuGraphInstantiateWithFlags": (POINTER(Handle), Handle, c_ulonglong),
    "cuGraphLaunch": (Handle, Handle),
    "cuGraphDestroy": (Handle,),
    "cuGraphExecDestroy": (Handle,),
    "cuCheckpointProcessGetState": (c_int, POINTER(c_int)),
    "cuCheckpointProcessGetRestoreThreadId": (c_int, POINTER(c_int)),
    "cuCheckpointProcessLock": (c_int, POINTER(LockArgs)),
    "cuCheckpointProcessCheckpoint": (c_int, POINTER(CheckpointArgs)),
    "cuCheckpointProcessRestore": (c_int, POINTER(RestoreArgs)),
    "cuCheckpointProcessUnlock": (c_int, POINTER(UnlockArgs)),
})  # fmt: skip
"""What each call takes. Every one returns a CUresult."""
