"""A view of the mounts that is this process's own, so that what is mounted in it ends with its last process."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path
from typing import Final

CLONE_NEWNS: Final = 0x20000
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
RUN: Final = Path("/run")


def enter(emptied: frozenset[str] = frozenset()) -> None:
    """Leave the machine's mount namespace for a copy of it whose /run is ours, without what is in `emptied`.

    All else in /run is what it was. Nothing that this process or its children mount is seen outside, and it is
    unmounted when the last of them ends, however it ends. Only a process with a single thread may do it.
    Raises OSError (EPERM without CAP_SYS_ADMIN). Source: unshare(2), mount_namespaces(7).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _done(libc.unshare(CLONE_NEWNS), "unshare")
    # Before anything else: mounts that still propagated would change the machine.
    _mount(libc, None, "/", None, MS_REC | MS_PRIVATE)
    names = os.listdir(RUN)  # noqa: PTH208 # names, not paths
    below = os.open(RUN, os.O_PATH | os.O_DIRECTORY)
    try:
        _mount(libc, "tmpfs", str(RUN), "tmpfs", 0)
        for name in names:
            if name not in emptied:
                with contextlib.suppress(FileNotFoundError):  # its owner has removed it in between
                    _show(libc, Path(f"/proc/self/fd/{below}", name), RUN / name)
    finally:
        os.close(below)


def _show(libc: ctypes.CDLL, source: Path, target: Path) -> None:
    if source.is_symlink():
        target.symlink_to(source.readlink())
        return
    if source.is_dir():
        target.mkdir()
    else:
        target.touch()
    _mount(libc, str(source), str(target), None, MS_BIND | MS_REC)


def _mount(libc: ctypes.CDLL, source: str | None, target: str, kind: str | None, flags: int) -> None:
    raw = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    _done(libc.mount(*raw, ctypes.c_ulong(flags), None), f"mount {target}")


def _done(result: int, call: str) -> None:
    if result:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), call)
