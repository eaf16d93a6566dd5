"""The numbers and layouts of cuda_abi.py, held against NVIDIA's Python binding and, where there is one, a cuda.h."""

from __future__ import annotations

import ctypes
import importlib
import os
import re
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any, Final

import pytest

from conftest import CI
from standins import compilers
from warmspare.control import cuda_abi as abi

BINDING: Final = "cuda.bindings.driver"
driver: Any = importlib.import_module(BINDING) if CI else pytest.importorskip(BINDING, reason="needs cuda-bindings")

OF_ATTRIBUTES: Final = {
    "multiprocessors": "MULTIPROCESSOR_COUNT",
    "unified_addressing": "UNIFIED_ADDRESSING",
    "managed_memory": "MANAGED_MEMORY",
    "pageable_memory_access": "PAGEABLE_MEMORY_ACCESS",
    "concurrent_managed_access": "CONCURRENT_MANAGED_ACCESS",
    "vmm": "VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED",
}
FLAGS: Final = {
    "STREAM_NON_BLOCKING": driver.CUstream_flags.CU_STREAM_NON_BLOCKING,
    "EVENT_DEFAULT": driver.CUevent_flags.CU_EVENT_DEFAULT,
    "EVENT_BLOCKING_SYNC": driver.CUevent_flags.CU_EVENT_BLOCKING_SYNC,
    "EVENT_DISABLE_TIMING": driver.CUevent_flags.CU_EVENT_DISABLE_TIMING,
    "MEM_ATTACH_GLOBAL": driver.CUmemAttach_flags.CU_MEM_ATTACH_GLOBAL,
    "HOST_PORTABLE": driver.CU_MEMHOSTALLOC_PORTABLE,
    "IPC_LAZY_ENABLE_PEER_ACCESS": driver.CUipcMem_flags.CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS,
    "ALLOCATION_PINNED": driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED,
    "LOCATION_DEVICE": driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE,
    "ACCESS_READ_WRITE": driver.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
    "GRANULARITY_MINIMUM": driver.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM,
    "POINTER_MEMORY_TYPE": driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
    "POINTER_IS_MANAGED": driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_IS_MANAGED,
    "POINTER_DEVICE_ORDINAL": driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
    "POINTER_IS_LEGACY_IPC_CAPABLE": driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE,
    "POINTER_RANGE_START": driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_RANGE_START_ADDR,
    "POINTER_RANGE_SIZE": driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_RANGE_SIZE,
    "MEMORY_DEVICE": driver.CUmemorytype.CU_MEMORYTYPE_DEVICE,
    "IPC_HANDLE_BYTES": driver.CU_IPC_HANDLE_SIZE,
    "UUID_BYTES": len(driver.CUuuid().bytes),
    "CAPTURE_MODE_THREAD_LOCAL": driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
}  # fmt: skip
NAMED: Final = (
    "SUCCESS", "INVALID_VALUE", "OUT_OF_MEMORY", "INVALID_DEVICE", "PEER_ACCESS_UNSUPPORTED", "NOT_READY",
    "PEER_ACCESS_ALREADY_ENABLED", "NOT_SUPPORTED", "TOO_MANY_PEERS", "NOT_INITIALIZED", "OPERATING_SYSTEM",
    "ILLEGAL_STATE",
)  # fmt: skip
HANDLES: Final = ("CUcontext", "CUstream", "CUevent", "CUmodule", "CUfunction", "CUgraph", "CUgraphExec")
INTEGERS: Final = {"int": 4, "unsigned int": 4, "size_t": 8, "unsigned long long": 8, "CUdeviceptr": 8, "float": 4}


def test_every_result_has_its_name() -> None:
    theirs = {int(result): result.name for result in driver.CUresult}
    assert {code: theirs.get(code) for code in abi.RESULTS} == dict(abi.RESULTS)


def test_every_number_is_the_binding_s() -> None:
    results = {name: int(getattr(driver.CUresult, f"CUDA_{'ERROR_' * (name != 'SUCCESS')}{name}")) for name in NAMED}
    theirs = {**{name: int(value) for name, value in FLAGS.items()}, **results}
    constants = {name for name, value in vars(abi).items() if name.isupper() and isinstance(value, int)}
    assert {name: getattr(abi, name) for name in constants} == theirs
    attributes = driver.CUdevice_attribute
    ours = {name: int(getattr(attributes, f"CU_DEVICE_ATTRIBUTE_{theirs}")) for name, theirs in OF_ATTRIBUTES.items()}
    assert dict(abi.ATTRIBUTES) == ours


def test_properties_are_laid_out_as_the_binding_s() -> None:
    theirs = driver.CUmemAllocationProp()
    theirs.type = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    theirs.requestedHandleTypes = driver.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_FABRIC
    theirs.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_HOST
    theirs.location.id = 5
    theirs.win32HandleMetaData = 0x123456789ABC
    theirs.allocFlags.compressionType = 1
    theirs.allocFlags.gpuDirectRDMACapable = 2
    theirs.allocFlags.usage = 0x304
    ours = abi.AllocationProperties.from_address(theirs.getPtr())
    assert (ours.type, ours.handle_types, ours.location.type, ours.location.id) == (1, 8, 2, 5)
    assert (ours.security, ours.flags.compression, ours.flags.rdma, ours.flags.usage) == (0x123456789ABC, 1, 2, 0x304)


def test_access_is_laid_out_as_the_binding_s() -> None:
    theirs = driver.CUmemAccessDesc()
    theirs.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    theirs.location.id = 6
    theirs.flags = driver.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READ
    ours = abi.Access.from_address(theirs.getPtr())
    assert (ours.location.type, ours.location.id, ours.flags) == (1, 6, 1)


def test_restore_arguments_are_laid_out_as_the_binding_s() -> None:
    pair = driver.CUcheckpointGpuPair()
    octets = bytes(range(16))
    pair.oldUuid = driver.CUuuid()
    ctypes.memmove(pair.getPtr(), octets + octets[::-1], 32)
    theirs = driver.CUcheckpointRestoreArgs()
    theirs.gpuPairs, theirs.gpuPairsCount = [pair], 1
    ours = abi.RestoreArgs.from_address(theirs.getPtr())
    assert (bytes(ours.pairs[0].old), bytes(ours.pairs[0].new), ours.count) == (octets, octets[::-1], 1)


def test_lock_arguments_are_laid_out_as_the_binding_s() -> None:
    theirs = driver.CUcheckpointLockArgs()
    theirs.timeoutMs = 12345
    assert abi.LockArgs.from_address(theirs.getPtr()).timeout_ms == 12345


def test_process_states_have_the_binding_s_names() -> None:
    theirs = {int(state): state.name.removeprefix("CU_PROCESS_STATE_").lower() for state in driver.CUprocessState}
    assert {n: name for n, name in enumerate(abi.PROCESS_STATES) if n in theirs} == theirs


def width(argument: str) -> int:
    """Bytes of an argument of the binding's declaration: pointers and opaque handles have eight."""
    words = argument.rsplit(" ", 1)[0].strip()
    if words.endswith("*") or words in HANDLES:
        return 8
    if words == "CUipcMemHandle":
        return abi.IPC_HANDLE_BYTES
    if words == "CUmemGenericAllocationHandle":
        return 8
    return INTEGERS.get(words, 4)  # CUdevice and the enums are ints


def declared() -> dict[str, tuple[int, ...]]:
    """What each call takes, in bytes, by the binding's own declarations of the newest form of it."""
    text = resources.files("cuda.bindings").joinpath("cydriver.pxd").read_text(encoding="utf-8")
    found = re.findall(r"^cdef CUresult (\w+)\((.*?)\)", text, re.MULTILINE)
    return {name: tuple(width(one) for one in taken.split(", ") if one) for name, taken in found}


@pytest.mark.parametrize("call", abi.CALLS)
def test_each_call_takes_what_the_binding_declares(call: str) -> None:
    theirs = declared()[call.removesuffix("_v2").removesuffix("WithFlags")]
    ours: tuple[Any, ...] = abi.CALLS[call]
    assert tuple(ctypes.sizeof(taken) for taken in ours) == theirs


def header() -> Path | None:
    """The folder of a cuda.h: of a toolkit, or of NVIDIA's wheels."""
    homes = [os.environ.get(name, "/usr/local/cuda") for name in ("CUDA_HOME", "CUDA_PATH")]
    return next((Path(home, "include") for home in homes if Path(home, "include", "cuda.h").exists()), None)


LAYOUT: Final = r"""
#include <cuda.h>
#include <stddef.h>
#include <stdio.h>
#define AT(type, field) (int)offsetof(type, field)
int main(void)
{
    printf("%d %d %d %d %d %d\n", (int)sizeof(CUmemLocation), (int)sizeof(CUmemAllocationProp),
           AT(CUmemAllocationProp, allocFlags), (int)sizeof(CUmemAccessDesc), (int)sizeof(CUipcMemHandle),
           (int)sizeof(CUuuid));
    printf("%d %d %d %d %d\n", (int)sizeof(CUcheckpointLockArgs), (int)sizeof(CUcheckpointCheckpointArgs),
           (int)sizeof(CUcheckpointRestoreArgs), (int)sizeof(CUcheckpointUnlockArgs), (int)sizeof(CUcheckpointGpuPair));
}
"""


@pytest.mark.skipif(not header() or not compilers(), reason="needs a cuda.h and a C compiler: the binding has no sizes")
def test_every_structure_has_the_header_s_size(tmp_path: Path) -> None:
    (tmp_path / "layout.c").write_text(LAYOUT)
    compiler = next(iter(compilers().values()))
    files = ["-I", str(header()), "-o", str(tmp_path / "layout"), str(tmp_path / "layout.c")]
    subprocess.run([*compiler, *files], env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(tmp_path)}, check=True)
    told = subprocess.run([tmp_path / "layout"], capture_output=True, text=True, check=True).stdout
    properties = abi.AllocationProperties
    sizes = [ctypes.sizeof(one) for one in (abi.Location, properties, abi.Access, abi.IpcHandle)]
    arguments = (abi.LockArgs, abi.CheckpointArgs, abi.RestoreArgs, abi.UnlockArgs, abi.GpuPair)
    ours = [sizes[0], sizes[1], properties.flags.offset, *sizes[2:], abi.UUID_BYTES]
    ours += [ctypes.sizeof(one) for one in arguments]
    assert [int(one) for one in told.split()] == ours
