"""What a shared library says of itself: what it needs and where that is looked for. Only its headers are read.

Files are a gigabyte large and may be damaged or made to mislead: every offset is checked by the read itself,
every size has a limit, and nothing is mapped (a mapped file that is cut short meanwhile would be a SIGBUS).

Source: elf(5); System V ABI, "Dynamic Section".
"""

import contextlib
import os
import re
import stat
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

_HEADER: Final = 64
_SEGMENT: Final = 56
_SECTION: Final = 64
_ENTRIES: Final = 4096
_STRING: Final = 65_536
_TABLE: Final = 65_535 * _SECTION
_TEXTS: Final = 16 * 2**20
_LOAD, _DYNAMIC = 1, 2
_NEEDED, _STRTAB, _SONAME, _RPATH, _RUNPATH = 1, 5, 14, 15, 29


class NoElfError(ValueError):
    """The file is no 64-bit ELF library that we understand."""


class Elf(NamedTuple):
    """The dynamic section. `rpath` is None where there is a `runpath`, as ld.so has it."""

    kind: bytes
    needed: tuple[str, ...]
    soname: str | None
    rpath: str | None
    runpath: str | None


def kind(path: str) -> bytes:
    """Class, byte order and machine, which ld.so compares with its own before it takes a library.

    Raises:
        NoElfError: the file is no ELF at all.
    """
    with _opened(path) as file:
        head = os.pread(file, 20, 0)
    return _kind(head)


def read(path: str) -> Elf:
    """The dynamic section of a library.

    Raises:
        NoElfError: it has none that can be understood.
    """
    with _opened(path) as file:
        return _read(file)


def text(path: str, wanted: re.Pattern[bytes]) -> re.Match[bytes] | None:
    """The first match among the constants of a library (.rodata), if it has a section of that name."""
    with _opened(path) as file:
        try:
            order, head = _order(os.pread(file, _HEADER, 0))
            (start,) = struct.unpack_from(order + "Q", head, 40)
            size, count, names = struct.unpack_from(order + "HHH", head, 58)
            if size != _SECTION or names >= count:
                return None
            table = _exactly(file, count * size, start)
            rows = [struct.unpack_from(order + "IIQQQQ", table, n * size) for n in range(count)]
            words = _exactly(file, min(rows[names][5], _STRING), rows[names][4])
        except NoElfError:
            return None
        for name, _, _, _, offset, length in rows:
            if words[name : name + 8] == b".rodata\0" and length <= _TEXTS and offset < 2**63:
                return wanted.search(os.pread(file, length, offset))
    return None


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe by that name must not hold us
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            message = "not a regular file"
            raise NoElfError(message)
        yield file
    finally:
        os.close(file)


def _kind(head: bytes) -> bytes:
    if len(head) < 20 or head[:4] != b"\x7fELF":  # noqa: PLR2004 # up to e_machine
        message = "no ELF header"
        raise NoElfError(message)
    return head[4:6] + head[18:20]


def _order(head: bytes) -> tuple[str, bytes]:
    _kind(head)
    if len(head) < _HEADER or head[4] != 2 or head[5] not in (1, 2):  # noqa: PLR2004 # ELFCLASS64
        message = "no 64-bit ELF header"
        raise NoElfError(message)
    return "<>"[head[5] - 1], head


def _exactly(file: int, size: int, offset: int) -> bytes:
    if size > _TABLE or offset >= 2**63:
        message = "a size or an offset is beyond all bounds"
        raise NoElfError(message)
    data = os.pread(file, size, offset)
    if len(data) < size:
        message = "cut short"
        raise NoElfError(message)
    return data


def _read(file: int) -> Elf:
    order, head = _order(os.pread(file, _HEADER, 0))
    (start,) = struct.unpack_from(order + "Q", head, 32)
    size, count = struct.unpack_from(order + "HH", head, 54)
    if size != _SEGMENT:
        message = "its program headers are of another size"
        raise NoElfError(message)
    table = _exactly(file, count * size, start)
    segments = [struct.unpack_from(order + "IIQQQQ", table, n * size) for n in range(count)]
    dynamic = next((s for s in segments if s[0] == _DYNAMIC), None)
    if dynamic is None:
        message = "no dynamic section"
        raise NoElfError(message)
    data = _exactly(file, min(dynamic[5], _ENTRIES * 16) // 16 * 16, dynamic[2])
    entries: list[tuple[int, int]] = []
    for tag, value in struct.iter_unpack(order + "QQ", data):
        if tag == 0:
            break
        entries.append((tag, value))
    strings = next((value for tag, value in entries if tag == _STRTAB), 0)
    # The table's address is that in memory.
    offset = next((s[2] + strings - s[3] for s in segments if s[0] == _LOAD and s[3] <= strings < s[3] + s[5]), None)
    if offset is None:
        message = "its strings are in no segment"
        raise NoElfError(message)
    found = {tag: _string(file, offset + value) for tag, value in entries if tag in (_SONAME, _RPATH, _RUNPATH)}
    runpath = found.get(_RUNPATH)
    return Elf(
        kind=_kind(head),
        needed=tuple(_string(file, offset + value) for tag, value in entries if tag == _NEEDED),
        soname=found.get(_SONAME),
        rpath=None if runpath is not None else found.get(_RPATH),
        runpath=runpath,
    )


def _string(file: int, offset: int) -> str:
    data, end, _ = os.pread(file, _STRING, offset).partition(b"\0") if offset < 2**63 else (b"", b"", b"")
    if not end:
        message = "a string of its has no end"
        raise NoElfError(message)
    return os.fsdecode(data)
