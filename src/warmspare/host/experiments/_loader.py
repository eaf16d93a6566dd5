"""Where the system's loader would find a library, without loading it.

In this order: DT_RPATH of the library that needs it, of those that loaded that one, and of the program (none of
them if the first has a DT_RUNPATH), LD_LIBRARY_PATH, the first one's DT_RUNPATH, /etc/ld.so.cache, the default
folders. A file of another machine is passed over; a damaged one ends the search with an error.

Not followed: glibc-hwcaps folders, /etc/ld.so.preload, namespaces of dlmopen(3); musl has other rules.

Source: ld.so(8), dlopen(3); glibc elf/dl-load.c, sysdeps/generic/dl-cache.h.
"""

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from warmspare.host.experiments import _elf
from warmspare.host.loading import shown

CACHE: Final = "/etc/ld.so.cache"
_MAGIC: Final = b"glibc-ld.so.cache1.1"
_HEADER, _ENTRY = 48, 24
_CACHE_LIMIT: Final = 16 * 2**20


class Found(NamedTuple):
    """The file that would be loaded, and the rule that finds it."""

    path: str
    by: str


def find(name: str, chain: Sequence[tuple[str, _elf.Elf]], environment: Mapping[str, str]) -> Found | None:
    """The file that a library loads for `name`; `chain` is that library, those that loaded it, the program.

    Raises:
        NoElfError: the file that ld.so would take, named as it may be shown, is none that it can load.
    """
    first = chain[0][1]
    for path, by in _places(name, chain, environment):
        try:
            if _elf.kind(path) == first.kind:
                return Found(path, by)
        except _elf.NoElfError as error:
            if Path(path).is_file():
                message = f"{shown(path)}: {error}"
                raise _elf.NoElfError(message) from None
        except OSError:  # not there, or not for us: it looks further
            continue
    return None


def _places(
    name: str, chain: Sequence[tuple[str, _elf.Elf]], environment: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    needing, first = chain[0]
    if first.runpath is None:
        for path, elf in chain:
            yield from ((f"{folder}/{name}", "rpath") for folder in _folders(elf.rpath, path))
    yield from ((f"{folder}/{name}", "ld_library_path") for folder in library_path(environment))
    yield from ((f"{folder}/{name}", "runpath") for folder in _folders(first.runpath, needing))
    yield from ((path, "ld_so_cache") for path in cached(name))
    yield from ((f"{folder}/{name}", "default_folder") for folder in default_folders())


def library_path(environment: Mapping[str, str]) -> list[str]:
    """The folders of LD_LIBRARY_PATH, in its order."""
    said = environment.get("LD_LIBRARY_PATH", "")
    return [folder or "." for folder in said.replace(";", ":").split(":")] if said else []


def preloaded(soname: str, environment: Mapping[str, str]) -> str | None:
    """The library of this name that LD_PRELOAD brings in before all others."""
    for path in environment.get("LD_PRELOAD", "").replace(":", " ").split():
        try:
            if "/" in path and _elf.read(path).soname == soname:
                return path
        except (OSError, _elf.NoElfError):  # ld.so says so, and goes on
            continue
    return None


def default_folders() -> list[str]:
    """Where ld.so looks last: of Debian's kind, and of the others'."""
    triple = f"{os.uname().machine}-linux-gnu"
    return [f"/lib/{triple}", f"/usr/lib/{triple}", "/lib64", "/usr/lib64", "/lib", "/usr/lib"]


def cached(name: str) -> list[str]:
    """The files that ld.so.cache has under a name; empty where there is no cache of a kind we know."""
    try:
        with Path(CACHE).open("rb") as file:
            data = file.read(_CACHE_LIMIT)
    except OSError:
        return []
    start = data.find(_MAGIC)  # an older format may stand before it
    if start < 0 or len(data) < start + _HEADER:
        return []
    data = data[start:]
    (count,) = struct.unpack_from("=I", data, len(_MAGIC))
    count = min(count, (len(data) - _HEADER) // _ENTRY)
    entries = struct.iter_unpack("=iIIIQ", data[_HEADER : _HEADER + count * _ENTRY])
    wanted = os.fsencode(name) + b"\0"
    return [_string(data, value) for _, key, value, _, _ in entries if data[key : key + len(wanted)] == wanted]


def _string(data: bytes, offset: int) -> str:
    return os.fsdecode(data[offset : offset + 4096].partition(b"\0")[0])


def _folders(said: str | None, path: str) -> list[str]:
    """A list of folders as a library has it, with its own for $ORIGIN."""
    origin = os.path.dirname(os.path.abspath(path))  # noqa: PTH100, PTH120 # links are left as they are
    lib = "lib64" if Path("/usr/lib64/libc.so.6").exists() else f"lib/{os.uname().machine}-linux-gnu"
    words = {"ORIGIN": origin, "LIB": lib, "PLATFORM": os.uname().machine}
    for word, value in words.items():
        said = said and said.replace(f"${{{word}}}", value).replace(f"${word}", value)
    return [folder or "." for folder in said.split(":")] if said else []
