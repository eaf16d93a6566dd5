"""NVML's read-only queries, asked by name with numbers. Runs inside the broker's worker, which may be killed any time.

A first number of a `nvmlDeviceGet…` call is NVML's index of a GPU; the calls about a pair take two of them.
`nvmlDeviceGetFieldValues` takes pairs of a field and its scope (a link's number) behind the index.
"""

from __future__ import annotations

import ctypes
import re
from typing import Any, Final

from warmspare.host.loading import broken, load_first, without_folders
from warmspare.model.facts import Cause
from warmspare.model.transcript import Answer, Failed, Gave

CALL: Final = re.compile(r"nvml(DeviceGet|SystemGet)\w{1,60}")
LIBRARIES: Final = ("libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1")
OF_PAIRS: Final = frozenset({"nvmlDeviceGetP2PStatus", "nvmlDeviceGetTopologyCommonAncestor"})
INTO: Final = {
    "nvmlDeviceGetGpuFabricInfoV": "c_nvmlGpuFabricInfo_v2_t",
    "nvmlDeviceGetGpuFabricInfo": "c_nvmlGpuFabricInfo_t",
}
"""Calls that fill a structure of the caller's; the second of these is what drivers before 545 have. Source: nvml.h."""
LIBRARY_NOT_FOUND, FUNCTION_NOT_FOUND = "12", "13"
"""Codes of NVML's own. Source: nvml.h."""
FIELD_TYPES: Final = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""The member that holds a field's value, by its nvmlValueType_t."""
PROCESS: Final = "nvmlFriendlyObject"
"""pynvml's own copy of a structure, with numbers and None: how it gives the processes on a GPU."""


def ask(call: str, *args: str) -> Answer:
    """Answer one query; what NVML refuses is an answer too, with its raw code."""
    if not CALL.fullmatch(call):
        return Failed(cause=Cause.INVALID, detail=f"{call} is no NVML query")
    if failed := _load():
        return failed
    import pynvml  # noqa: PLC0415 # only a host that asks NVML pays for it

    try:
        pynvml.nvmlInit()
        value = _call(pynvml, call, [int(arg) for arg in args])
    except pynvml.NVMLLibraryMismatchError as error:  # pynvml wants a newer NVML for this call's plain name
        return Failed(cause=Cause.INVALID, detail=f"{call}: {error}", code=FUNCTION_NOT_FOUND)
    except pynvml.NVMLError as error:
        denied = isinstance(error, pynvml.NVMLError_NoPermission)
        cause = Cause.DENIED if denied else Cause.INVALID
        return Failed(cause=cause, detail=f"{call}: {error}", code=str(error.value))
    return Gave(_plain(value))


def compute_pids(index: int) -> frozenset[int] | None:
    """The processes that NVML lists as computing on a GPU; None if it does not tell.

    In a container they may be the host's numbers. They are nobody's business, so this is no query for a transcript.
    """
    return _pids(index, "Compute")


def all_pids(index: int) -> frozenset[int] | None:
    """The same with those that draw on it and those that compute through MPS."""
    listed = [_pids(index, kind) for kind in ("Compute", "Graphics", "MPSCompute")]
    return None if None in listed else frozenset[int]().union(*filter(None, listed))


def _pids(index: int, kind: str) -> frozenset[int] | None:
    """Those of one kind; none of a kind beside computing that this GPU, or this driver, does not have."""
    if _load():
        return None
    import pynvml  # noqa: PLC0415 # only a host that asks NVML pays for it

    try:
        pynvml.nvmlInit()
        ask = getattr(pynvml, f"nvmlDeviceGet{kind}RunningProcesses")
        listed = ask(pynvml.nvmlDeviceGetHandleByIndex(index))
    except pynvml.NVMLError as error:
        lacks = (
            pynvml.NVML_ERROR_NOT_SUPPORTED,
            *([pynvml.NVML_ERROR_FUNCTION_NOT_FOUND] if kind == "MPSCompute" else []),
        )
        return frozenset() if kind != "Compute" and error.value in lacks else None
    return frozenset(one.pid for one in listed)


def _load() -> Failed | None:
    """Load the library ourselves first: pynvml takes one that is broken for one that is not there.

    Once loaded from WSL's folder it is also what pynvml finds, by its soname.
    """
    loaded, said = load_first(LIBRARIES)
    if loaded is not None:
        return None
    refusal = broken(said)
    cause = None if refusal is None else Cause.INVALID
    return Failed(cause=cause, detail=without_folders(refusal or said[LIBRARIES[0]]), code=LIBRARY_NOT_FOUND)


def _call(pynvml: Any, call: str, numbers: list[int]) -> Any:  # noqa: ANN401 # a module without types, and what it gives
    values: list[Any] = list(numbers)
    if call.startswith("nvmlDeviceGet") and call != "nvmlDeviceGetCount":
        for place in range(2 if call in OF_PAIRS else 1):
            values[place] = pynvml.nvmlDeviceGetHandleByIndex(numbers[place])
    if call == "nvmlDeviceGetFieldValues":
        values[1:] = [list(zip(numbers[1::2], numbers[2::2], strict=True))]
    if call in INTO:
        filled = getattr(pynvml, INTO[call])()
        getattr(pynvml, call)(*values, ctypes.byref(filled))
        return filled
    return getattr(pynvml, call)(*values)


def _plain(value: Any) -> Any:  # noqa: ANN401 # NVML gives numbers, strings, bytes, lists and structs
    match value:
        case bytes():
            return value.decode("utf-8", "replace")
        case list() | tuple() | ctypes.Array():
            return [dict(vars(item)) if type(item).__name__ == PROCESS else _plain(item) for item in value]
        case ctypes.Structure() if hasattr(value, "nvmlReturn"):  # a field: the rest of it is times
            given = getattr(value.value, FIELD_TYPES[value.valueType % len(FIELD_TYPES)])
            number = given if value.nvmlReturn == 0 else None
            return {"field": value.fieldId, "scope": value.scopeId, "code": value.nvmlReturn, "value": number}
        case ctypes.Structure():
            return {name: _plain(getattr(value, name)) for name, *_ in value._fields_}
        case bool() | int() | float() | str() | None:
            return value
    return str(value)
