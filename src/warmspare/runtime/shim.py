"""A program `cuda-checkpoint` in a folder of the user's, so that CRIU's CUDA plugin can use the driver through it.

CRIU's plugin looks for it on PATH; NVIDIA publishes its own for x86-64 only.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import warmspare
from warmspare.control.files import Replacement, Unwritable
from warmspare.runtime import cuda_checkpoint

MARK: Final = b"#!/bin/sh\n# cuda-checkpoint by `warmspare shim`"
"""How every file begins that this has written."""
MODE: Final = 0o755
SMALL: Final = 65_536
START_S: Final = 10.0
"""How long CRIU's plugin would wait for it at most. Source: CRIU's --timeout."""

Wrote = Literal["written", "replaced", "as it was"]


class ShimRefused(Exception):
    """Nothing was written or removed; the message is one line that says why."""


def program(folder: Path) -> Path:
    """Where the program is, or will be, in a folder of the user's."""
    return folder.absolute() / cuda_checkpoint.NAME


def text() -> bytes:
    """The program: this installation's Python, which imports nothing but the standard library and our own calls."""
    root = str(Path(warmspare.__file__).parent.parent)
    command = shlex.join([sys.executable, "-I", "-S", "-c", cuda_checkpoint.START, root])
    return MARK + f" {warmspare.__version__}; --remove takes it away.\nexec {command} ".encode() + b'"$@"\n'


def install(folder: Path) -> Wrote:
    """Write the program into `folder`, in one step; the folder is made if only it is missing.

    Raises:
        ShimRefused: the folder is another's or everybody's, what has that name there is not ours, or it does not start.
    """
    with _refusing(folder), contextlib.suppress(FileExistsError):
        folder.mkdir(mode=MODE)
    old, new, where = _ours(folder), text(), program(folder)
    if old != new or stat.S_IMODE(where.stat().st_mode) != MODE:
        try:
            Replacement(where, MODE).commit(new)
        except Unwritable as error:
            raise ShimRefused(str(error)) from None
    if old is None:
        return "written"
    return "as it was" if old == new else "replaced"


def remove(folder: Path) -> bool:
    """Remove the program; whether there was one.

    Raises:
        ShimRefused: what has its name is not ours.
    """
    if _ours(folder) is None:
        return False
    with _refusing(program(folder)):
        program(folder).unlink()
    return True


def start_s(folder: Path) -> float:
    """How long the program takes to start, by starting it: how often CRIU waits for it is what it costs.

    Raises:
        ShimRefused: it does not start here, or does not show what CRIU's plugin looks for.
    """
    begun = time.monotonic()
    where = program(folder)
    try:
        ran = subprocess.run([where, "-h"], capture_output=True, stdin=subprocess.DEVNULL, timeout=START_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"{where} does not start: {error}"
        raise ShimRefused(message) from None
    if ran.returncode or b"--action" not in ran.stdout:
        said = ran.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        message = f"{where} does not start: {said or f'status {ran.returncode}'}"
        raise ShimRefused(message)
    return time.monotonic() - begun


@contextlib.contextmanager
def _refusing(what: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"{what}: {error.strerror}"
        raise ShimRefused(message) from None


def _ours(folder: Path) -> bytes | None:
    """What is there under the program's name and was written by us; None: nothing."""
    where = program(folder)
    with _refusing(folder):
        found = folder.stat()
    if not stat.S_ISDIR(found.st_mode):
        message = f"{folder} is no folder"
        raise ShimRefused(message)
    if found.st_uid != os.geteuid() or found.st_mode & stat.S_IWOTH:
        whose = "may be written to by everybody" if found.st_mode & stat.S_IWOTH else "belongs to another user"
        message = f"{folder} {whose}, who could put another program there: name a folder of your own"
        raise ShimRefused(message)
    try:
        data = _regular(where)
    except FileNotFoundError:
        return None
    except OSError as error:  # a link is not followed
        message = f"{where} is another program, or none ({error.strerror}): it is left alone; name another folder"
        raise ShimRefused(message) from None
    if not data.startswith(MARK):
        message = f"{where} is another program: it is left alone; name another folder"
        raise ShimRefused(message)
    return data


def _regular(where: Path) -> bytes:
    """How a file begins; nothing of what is none."""
    descriptor = os.open(where, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(descriptor, SMALL) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    finally:
        os.close(descriptor)
