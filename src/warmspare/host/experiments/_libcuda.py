"""Find and load the CUDA driver's library, and say which file it is."""

import ctypes
import os

from warmspare.host.loading import broken, load_first, without_folders

CANDIDATES = ("libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1")


class _DlInfo(ctypes.Structure):
    _fields_ = (
        ("file_name", ctypes.c_char_p),
        ("file_base", ctypes.c_void_p),
        ("symbol_name", ctypes.c_char_p),
        ("symbol", ctypes.c_void_p),
    )


def load() -> tuple[ctypes.CDLL | None, dict[str, str]]:
    """The library as a program would get it, or why no candidate could be loaded."""
    return load_first(CANDIDATES)


def detail(reasons: dict[str, str]) -> str:
    """Why none could be loaded, in one line that names no folder of a user's."""
    return "; ".join(map(without_folders, reasons.values()))


def is_broken(reasons: dict[str, str]) -> bool:
    """Whether a library is there all the same, of those that could not be loaded."""
    return broken(reasons) is not None


def path_of(cuda: ctypes.CDLL) -> str | None:
    """Return the file that the loader chose (a toolkit's stub, say), as dladdr(3) knows its cuInit."""
    libc = ctypes.CDLL(None)
    info = _DlInfo()
    inside = getattr(cuda, "cuInit", None)
    if inside is not None and libc.dladdr(ctypes.cast(inside, ctypes.c_void_p), ctypes.byref(info)):
        return os.fsdecode(info.file_name)
    return None
