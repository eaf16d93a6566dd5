"""Which libcuda.so.1 does a program get here, of which version, and which calls does it have?

Only loaded: cuInit is not called, so this also answers where that fails, hangs or crashes. A symbol that is
there proves nothing (on GB10 the checkpoint calls are there and refuse); one that is missing does.

Source: CUDA driver API, groups CUDA_CHECKPOINT and CUDA_VA; NVIDIA "CUDA on WSL" (/usr/lib/wsl/lib).
"""

import ctypes
import re
from pathlib import Path

from warmspare.host.experiments._libcuda import detail, is_broken, load, path_of
from warmspare.host.experiments._syscalls import Answer
from warmspare.host.loading import shown

CHECKPOINT = tuple(
    f"cuCheckpointProcess{name}"
    for name in ("GetState", "GetRestoreThreadId", "Lock", "Checkpoint", "Restore", "Unlock")
)
VMM = tuple(
    f"cuMem{name}"
    for name in (
        "AddressReserve", "AddressFree", "Create", "Release", "Map", "Unmap", "SetAccess",
        "GetAllocationGranularity", "ExportToShareableHandle", "ImportFromShareableHandle",
    )
)  # fmt: skip


def run() -> Answer:
    """Load it and look.

    Returns:
        `found`, `broken` and `detail` as `cuda_count` gives them; `path` as the loader knows it and `real_path`
        behind all links, as far as they may be shown; `version` in that file's name, None where it carries none;
        `cuda_version` (13000 is 13.0); `symbols` by name.
    """
    cuda, reasons = load()
    path = path_of(cuda) if cuda else None
    real_path = str(Path(path).resolve()) if path else None
    version = re.search(r"\.so\.(\d{3,4}(?:\.\d{1,4}){1,2})$", real_path or "")
    return {
        "found": cuda is not None,
        "broken": is_broken(reasons),
        "detail": detail(reasons),
        "path": path and shown(path),
        "real_path": real_path and shown(real_path),
        "version": version[1] if version else None,
        "cuda_version": _cuda_version(cuda) if cuda else None,
        "symbols": {name: hasattr(cuda, name) for name in (*CHECKPOINT, *VMM)} if cuda else {},
    }


def _cuda_version(cuda: ctypes.CDLL) -> int | None:
    """The newest CUDA that this driver serves, which it tells before cuInit."""
    value = ctypes.c_int()
    if not hasattr(cuda, "cuDriverGetVersion") or cuda.cuDriverGetVersion(ctypes.byref(value)) != 0:
        return None
    return value.value
