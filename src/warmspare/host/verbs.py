"""The verbs, as done on a live machine. Runs inside the broker's worker, which may be killed any time."""

from __future__ import annotations

import ctypes
import errno
import functools
import gzip
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from warmspare.control import process
from warmspare.host import experiments
from warmspare.model.facts import TEXT_LIMIT, Cause
from warmspare.model.transcript import Answer, Failed, Gave, Listed, Ran, Said, Verb

NVML_CALL: Final = re.compile(r"nvml(DeviceGet|SystemGet)\w{1,60}")
GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO})


def do(verb: Verb, args: tuple[str, ...]) -> Answer:
    """Answer one question about this machine. What the machine refuses is an answer too."""
    try:
        return _VERBS[verb](*args)
    except OSError as error:
        return failed(error)


def failed(error: OSError) -> Failed:
    """An errno as an answer: gone, denied, or something else wrong with the asking."""
    detail = f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")
    code = errno.errorcode.get(error.errno or 0)
    if error.errno in GONE:
        return Failed(cause=None, detail=detail, code=code)
    denied = error.errno in (errno.EACCES, errno.EPERM)
    return Failed(cause=Cause.DENIED if denied else Cause.INVALID, detail=detail, code=code)


def _read(path: str) -> Answer:
    with gzip.open(path) if path.endswith(".gz") else Path(path).open("rb") as file:
        return Said(file.read(4 * TEXT_LIMIT).decode("utf-8", "replace")[:TEXT_LIMIT])


def _list(path: str) -> Answer:
    return Listed(tuple(sorted(os.listdir(path))))  # noqa: PTH208 # names, not paths


def _exists(path: str) -> Answer:
    try:
        Path(path).stat()
    except OSError as error:
        if error.errno in GONE:
            return Gave(value=False)
        raise
    return Gave(value=True)


def _run(program: str, *args: str) -> Answer:
    path = process.find_program(program, os.environ)
    if path is None:
        return Failed(cause=None, detail=f"{program}: not found in PATH")
    with subprocess.Popen(
        [path, *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
        preexec_fn=functools.partial(process.die_with_parent, os.getpid()),  # noqa: PLW1509 # one thread here
    ) as child:
        stdout, stderr = child.communicate()
    return Ran(program=path, status=child.returncode, stdout=decoded(stdout), stderr=decoded(stderr))


def _nvml(call: str, *args: str) -> Answer:
    if not NVML_CALL.fullmatch(call):
        return Failed(cause=Cause.INVALID, detail=f"{call} is no NVML query")
    import pynvml  # noqa: PLC0415 # only a host that asks NVML pays for it

    try:
        pynvml.nvmlInit()
        numbers: list[Any] = [int(arg) for arg in args]
        if call.startswith("nvmlDeviceGet") and call != "nvmlDeviceGetCount":
            numbers[0] = pynvml.nvmlDeviceGetHandleByIndex(numbers[0])
        value = getattr(pynvml, call)(*numbers)
    except pynvml.NVMLError as error:
        name = type(error).__name__.removeprefix("NVMLError_")
        missing = isinstance(error, pynvml.NVMLError_LibraryNotFound)
        cause = None if missing else Cause.DENIED if "PERMISSION" in name.upper() else Cause.INVALID
        return Failed(cause=cause, detail=f"{call}: {error}", code=str(error.value))
    return Gave(_plain(value))


def _plain(value: Any) -> Any:  # noqa: ANN401 # NVML gives numbers, strings, bytes, lists and structs
    match value:
        case bytes():
            return decoded(value)
        case list() | tuple():
            return [_plain(item) for item in value]
        case ctypes.Structure():
            return {name: _plain(getattr(value, name)) for name, *_ in value._fields_}
        case bool() | int() | float() | str() | None:
            return value
    return str(value)


def _symbol(library: str, name: str) -> Answer:
    try:
        loaded = ctypes.CDLL(library)
    except OSError as error:
        return Failed(cause=None, detail=str(error))
    return Gave(hasattr(loaded, name))


def _experiment(name: str) -> Answer:
    return Gave(experiments.run(name))


def decoded(data: bytes) -> str:
    """Text as Linux and Windows programs print it (`wsl.exe` speaks UTF-16), cut at the text limit."""
    wide = len(data) > 1 and data[1:200:2].count(0) > len(data[1:200:2]) // 2
    return data.decode("utf-16-le" if wide else "utf-8", "replace")[:TEXT_LIMIT].removeprefix("\ufeff")


_VERBS: Final[dict[Verb, Callable[..., Answer]]] = {
    "read": _read,
    "list": _list,
    "exists": _exists,
    "run": _run,
    "nvml": _nvml,
    "symbol": _symbol,
    "experiment": _experiment,
}
