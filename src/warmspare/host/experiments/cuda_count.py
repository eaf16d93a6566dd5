"""How many GPUs does the CUDA driver itself see, and which?

NVML and /dev can list GPUs that CUDA cannot use, and the reverse (CUDA_VISIBLE_DEVICES, cgroups, WSL2), so
CUDA is asked too. It is only initialised: no context is made, so no memory is taken on any GPU.

Source: CUDA driver API, cuInit, cuDeviceGetCount, cuDeviceGetUuid_v2, cuDeviceGetPCIBusId;
NVIDIA "CUDA on WSL" (/usr/lib/wsl/lib).
"""

import ctypes
import os
import uuid
from collections.abc import Callable
from typing import TypeAlias

from warmspare.host.experiments._syscalls import Answer
from warmspare.host.loading import is_not_there

_CANDIDATES = ("libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1")
_SUCCESS = 0
_NO_SUCH_FUNCTION = -1  # no CUresult is negative
_UUID_BYTES = 16
_BUS_ID_BYTES = 32

_Function: TypeAlias = Callable[..., int]  # takes what ctypes converts, returns a CUresult


class _DlInfo(ctypes.Structure):
    _fields_ = (
        ("file_name", ctypes.c_char_p),
        ("file_base", ctypes.c_void_p),
        ("symbol_name", ctypes.c_char_p),
        ("symbol", ctypes.c_void_p),
    )


def run() -> Answer:
    """Load the driver's library, initialise it, and ask for its version and its devices.

    Returns:
        `found` and `path` (of the library; `detail` says why it could not be loaded, `broken` that it is
        there all the same), `init_code` and
        `driver_version` (12080 is 12.8) as the driver gives them, `count`, and in CUDA's own order `uuids`
        and `pci_bus_ids`, None for one that was refused. A MIG slice has its own UUID here, under the same
        prefix. `missing_symbols` are functions that this driver does not have; what depends on them is
        None.
    """
    cuda, reasons = _load()
    found: Answer = {
        "found": cuda is not None,
        "path": _path_of(cuda) if cuda else None,
        "init_code": None,
        "count": None,
        "driver_version": None,
        "uuids": [],
        "pci_bus_ids": [],
        "missing_symbols": [],
        "broken": any(not is_not_there(name, reason) for name, reason in reasons.items()),
        "detail": "; ".join(reasons.values()),
    }
    return found if cuda is None else found | _ask(cuda)


def _load() -> tuple[ctypes.CDLL | None, dict[str, str]]:
    reasons = {}
    for candidate in _CANDIDATES:
        try:
            return ctypes.CDLL(candidate), {}
        except OSError as refusal:
            reasons[candidate] = str(refusal)
    return None, reasons


def _path_of(cuda: ctypes.CDLL) -> str | None:
    """Return the file that the loader chose (a toolkit's stub, say), as dladdr(3) knows its cuInit."""
    libc = ctypes.CDLL(None)
    info = _DlInfo()
    inside = getattr(cuda, "cuInit", None)
    if inside is not None and libc.dladdr(ctypes.cast(inside, ctypes.c_void_p), ctypes.byref(info)):
        return os.fsdecode(info.file_name)
    return None


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
    get_bus_id = function("cuDeviceGetPCIBusId")
    devices = [_number(get, ordinal) for ordinal in range(count or 0)]
    return {
        "init_code": None if "cuInit" in missing else init_code,
        "count": count,
        "driver_version": version,
        "uuids": [None if device is None else _uuid(get_uuid, device) for device in devices],
        "pci_bus_ids": [None if device is None else _bus_id(get_bus_id, device) for device in devices],
        "missing_symbols": missing,
    }


def _number(function: _Function, *arguments: int) -> int | None:
    value = ctypes.c_int()
    return value.value if function(ctypes.byref(value), *arguments) == _SUCCESS else None


def _uuid(function: _Function, device: int) -> str | None:
    octets = ctypes.create_string_buffer(_UUID_BYTES)
    return f"GPU-{uuid.UUID(bytes=octets.raw)}" if function(octets, device) == _SUCCESS else None


def _bus_id(function: _Function, device: int) -> str | None:
    text = ctypes.create_string_buffer(_BUS_ID_BYTES)
    return text.value.decode() if function(text, _BUS_ID_BYTES, device) == _SUCCESS else None
