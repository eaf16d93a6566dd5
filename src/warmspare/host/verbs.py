"""The verbs, as done on a live machine. Runs inside the broker's worker, which may be killed any time."""

from __future__ import annotations

import ctypes
import errno
import functools
import gzip
import os
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from warmspare.control import process
from warmspare.host import experiments, nvml
from warmspare.host.loading import is_not_there, without_folders
from warmspare.model.facts import TEXT_LIMIT, Cause
from warmspare.model.transcript import Answer, Failed, Gave, Listed, Ran, Said, Verb

BYTE_LIMIT: Final = 4 * TEXT_LIMIT
NAME_LIMIT: Final = 65_536
GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO})


def do(verb: Verb, args: tuple[str, ...]) -> Answer:
    """Answer one question about this machine. What the machine refuses is an answer too."""
    try:
        return _VERBS[verb](*args)
    except OSError as error:
        return failed(error)


def failed(error: OSError) -> Failed:
    """An errno as an answer: gone, denied, or something else wrong with the asking."""
    detail = shown(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "))
    code = errno.errorcode.get(error.errno or 0)
    if error.errno in GONE:
        return Failed(cause=None, detail=detail, code=code)
    denied = error.errno in (errno.EACCES, errno.EPERM)
    return Failed(cause=Cause.DENIED if denied else Cause.INVALID, detail=detail, code=code)


def _read(path: str) -> Answer:
    try:
        with gzip.open(path) if path.endswith(".gz") else Path(path).open("rb") as file:
            return Said(file.read(BYTE_LIMIT).decode("utf-8", "replace")[:TEXT_LIMIT])
    except (EOFError, zlib.error) as error:  # a .gz that is cut short or damaged
        return Failed(cause=Cause.INVALID, detail=f"{path}: {error}")


def _list(path: str) -> Answer:
    names = sorted(os.fsencode(name).decode("utf-8", "replace") for name in os.listdir(path))  # noqa: PTH208 # names, not paths
    if len(names) > NAME_LIMIT:
        return Failed(cause=Cause.INVALID, detail=f"{path}: {len(names)} names are more than a recording may hold")
    return Listed(tuple(names))


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
    try:
        child = subprocess.Popen(
            [path, *args],
            stdin=None,  # the broker's own, which is empty
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
            preexec_fn=functools.partial(process.die_with_parent, os.getpid()),  # noqa: PLW1509 # one thread here
        )
    except OSError as error:  # also where its interpreter is not there: the program itself is
        return msgspec.structs.replace(failed(error), cause=failed(error).cause or Cause.INVALID)
    with child:
        stdout, stderr = _outputs(child)
    return Ran(program=shown(path), status=child.returncode, stdout=decoded(stdout), stderr=decoded(stderr))


def _outputs(child: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Both streams up to the limit, until the child has ended: a daemon of its may hold them open for ever.

    What is beyond the limit is read and dropped, so that a flood fills neither our memory nor its pipe.
    """
    streams = [stream.fileno() for stream in (child.stdout, child.stderr) if stream]
    kept = dict.fromkeys(streams, b"")
    while True:
        ready, ended = process.first(streams, child.pid, None)
        for stream in ready:
            data = os.read(stream, 65_536)
            kept[stream] += data[: BYTE_LIMIT - len(kept[stream])]
            if not data:
                streams.remove(stream)
        if ended and not ready:  # nothing more to read now
            child.wait()
            out, err = kept.values()
            return out, err


def _symbol(library: str, name: str) -> Answer:
    try:
        loaded = ctypes.CDLL(library)
    except OSError as error:
        said = shown(str(error))
        denied = Cause.DENIED if "Permission denied" in said else Cause.INVALID
        return Failed(cause=None if is_not_there(library, said) else denied, detail=without_folders(said))
    return Gave(hasattr(loaded, name))


def _experiment(name: str) -> Answer:
    return Gave(experiments.run(name))


def decoded(data: bytes) -> str:
    """Text as Linux and Windows programs print it (`wsl.exe` speaks UTF-16), cut at the text limit."""
    wide = data[:2] == b"\xff\xfe" or (len(data) > 1 and data[1:200:2].count(0) > len(data[1:200:2]) // 2)
    return data.decode("utf-16-le" if wide else "utf-8", "replace")[:TEXT_LIMIT].removeprefix("\ufeff")


def shown(text: str) -> str:
    """A path as text: its bytes may be no UTF-8, which no answer can carry."""
    return os.fsencode(text).decode("utf-8", "replace")


_VERBS: Final[dict[Verb, Callable[..., Answer]]] = {
    "read": _read,
    "list": _list,
    "exists": _exists,
    "run": _run,
    "nvml": nvml.ask,
    "symbol": _symbol,
    "experiment": _experiment,
}
