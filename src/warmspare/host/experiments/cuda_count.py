"""How many GPUs does the CUDA driver itself see, and which?

NVML and /dev can list GPUs that CUDA cannot use, and the reverse (CUDA_VISIBLE_DEVICES, cgroups, WSL2), so
CUDA is asked too. It is only initialised: no context is made, so no memory is taken on any GPU.

Source: CUDA driver API, cuInit, cuDeviceGetCount, cuDeviceGetUuid_v2, cuDeviceGetPCIBusId;
NVIDIA "CUDA on WSL" (/usr/lib/wsl/lib).
"""

import ctypes
import uuid
from collections.abc import Callable
from typing import TypeAlias

from warmspare.host.experiments._libcuda import detail, is_broken, load, path_of
from warmspare.host.experiments._syscalls import Answer
from warmspare.host.loading import shown

_SUCCESS = 0
_NO_SUCH_FUNCTION = -1  # no CUresult is negative
_UUID_BYTES = 16
_BUS_ID_BYTES = 32

_Function: TypeAlias = Callable[..., int]  # takes what ctypes converts, returns a CUresult


ATTRIBUTES = {
    "unified_addressing": 41,
    "compute_capability_major": 75,
    "compute_capability_minor": 76,
    "managed_memory": 83,
    "pageable_memory_access": 88,
    "concurrent_managed_access": 89,
    "host_pointer_for_registered": 91,
    "host_register": 99,
    "vmm": 102,
    "gpudirect_rdma": 116,
    "dma_buf": 124,
}
"""Device attributes by the number that cuda.h gives them (CUdevice_attribute)."""


def run() -> Answer:
    """Load the driver's library, initialise it, and ask for its version and its devices.

    Returns:
        `found` and `path` (of the library, as far as it may be shown; `detail` says why it could not be loaded,
        `broken` that it is there all the same), `init_code` and `driver_version` (12080 is 12.8) as the driver gives
        them, `count`, and in CUDA's own order `uuids`, `pci_bus_ids` and `attributes`, None for one that was refused.
        A MIG slice has its own UUID here, under the same prefix. `missing_symbols` are functions that this driver does
        not have; what depends on them is None.
    """
    cuda, reasons = load()
    path = path_of(cuda) if cuda else None
    found: Answer = {
        "found": cuda is not None,
        "path": path and shown(path),
        "init_code": None,
        "count": None,
        "driver_version": None,
        "uuids": [],
        "pci_bus_ids": [],
        "attributes": [],
        "missing_symbols": [],
        "broken": is_broken(reasons),
        "detail": detail(reasons),
    }
    return found if cuda is None else found | _ask(cuda)


def _ask(cuda: ctypes.CDLL) -> Answer:
    missing: list[str] = []

    def function(*names: str) -> _Function:
        """Return the first of these that the driver has; else one that always refuses."""
        for name in names:
            if hasattr(cuda, name):
                return getattr(cuda, name)  # type: ignore[no-any-return]  # ctypes types no function
        missing.append(names[0])
        return lambda *_arguments: _NO_SUCH_FUNCTION

    version = _number(function("cuDriverGetVersion"))
    init_code = function("cuInit")(0)
    count = _number(function("cuDeviceGetCount"))
    get, get_uuid = function("cuDeviceGet"), function("cuDeviceGetUuid_v2", "cuDeviceGetUuid")
    get_bus_id, get_attribute = function("cuDeviceGetPCIBusId"), function("cuDeviceGetAttribute")
    devices = [_number(get, ordinal) for ordinal in range(count or 0)]
    return {
        "init_code": None if "cuInit" in missing else init_code,
        "count": count,
        "driver_version": version,
        "uuids": [None if device is None else _uuid(get_uuid, device) for device in devices],
        "pci_bus_ids": [None if device is None else _bus_id(get_bus_id, device) for device in devices],
        "attributes": [None if device is None else _attributes(get_attribute, device) for device in devices],
        "missing_symbols": missing,
    }


def _number(function: _Function, *arguments: int) -> int | None:
    value = ctypes.c_int()
    return value.value if function(ctypes.byref(value), *arguments) == _SUCCESS else None


def _uuid(function: _Function, device: int) -> str | None:
    octets = ctypes.create_string_buffer(_UUID_BYTES)
    return f"GPU-{uuid.UUID(bytes=octets.raw)}" if function(octets, device) == _SUCCESS else None


def _attributes(function: _Function, device: int) -> dict[str, int | None]:
    """What the driver says of a device; None for an attribute that it does not know."""
    return {name: _number(function, number, device) for name, number in ATTRIBUTES.items()}


def _bus_id(function: _Function, device: int) -> str | None:
    text = ctypes.create_string_buffer(_BUS_ID_BYTES)
    return text.value.decode() if function(text, _BUS_ID_BYTES, device) == _SUCCESS else None
