"""Shared libraries: what the loader says of one that it could not load, and how much of a path may be told."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterable, Mapping
from typing import Final

SYSTEM: Final = (
    "/usr", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/gnu/store",
    "/run/opengl-driver", "/run/current-system", "/run/nvidia",
)  # fmt: skip
"""Folders that a package manager, a driver or a toolkit fills; all others may be called after people."""
TELLING: Final = re.compile(r"stubs|compat|cuda-compat[\d.-]*")
"""Folders that say what kind of library is in them."""
PATH: Final = re.compile(
    r"(?P<before>^Error (?:loading shared library|relocating) |\((?:required|needed) by |^)"
    r"(?P<whole>[^:;]*/[^:;]*?)(?=:|;|\)?$)"
    r"|(?P<word>[^\s:;()'\"`]*/[^\s:;()'\"`]*)"
)
"""A path where the loader puts one, blanks and all (a colon and a semicolon end each folder of LD_LIBRARY_PATH), or any
word with a slash. Source: dlopen(3); glibc elf/dl-load.c and dl-version.c; musl ldso/dynlink.c."""


def load_first(names: Iterable[str]) -> tuple[ctypes.CDLL | None, dict[str, str]]:
    """The first of these that can be loaded, or what the loader says of each of them."""
    said = {}
    for name in names:
        try:
            return ctypes.CDLL(name), {}
        except OSError as error:
            said[name] = str(error)
    return None, said


def broken(said: Mapping[str, str]) -> str | None:
    """What the loader says of the first of these libraries that is there all the same; None where none is."""
    return next((text for name, text in said.items() if not is_not_there(name, text)), None)


def is_not_there(library: str, said: str) -> bool:
    """Whether that very library is not there; one that lacks another, or is refused, is there.

    Source: dlopen(3) of glibc and of musl, which have no error numbers.
    """
    sayings = (
        f"{library}: cannot open shared object file: No such file",
        f"Error loading shared library {library}: No such file",
    )
    return said.startswith(sayings)


def shown(path: str) -> str:
    """A path below a system folder as it is, any other by its end: `…/libcuda.so.1`, `…/stubs/libcuda.so.1`."""
    path = os.fsencode(path).decode("utf-8", "replace")  # its bytes may be no UTF-8, which no answer can carry
    plain = os.path.normpath(path)
    plain = f"/{plain.lstrip('/')}" if plain.startswith("/") else plain
    if plain.startswith(tuple(f"{folder}/" for folder in SYSTEM)):
        return plain
    *folders, name = plain.split("/")
    telling = next((place for place, folder in enumerate(folders) if TELLING.fullmatch(folder)), None)
    if telling is None:
        return f"…/{name}"
    return "/".join(("…", folders[telling], *(("…",) if folders[telling + 1 :] else ()), name))


def without_folders(said: str) -> str:
    """What the loader says, each path in it as it may be shown."""
    return PATH.sub(lambda m: f"{m['before'] or ''}{shown(m['whole'] or m['word'])}", said)
