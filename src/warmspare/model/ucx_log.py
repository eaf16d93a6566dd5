"""What UCX's own protocol tables mean: by which transport it moves data between GPUs.

With `UCX_PROTO_INFO=y` UCX prints a table for each operation between each kind of memory: whom it is with, the
operation, and a row for each range of sizes. UCX up to 1.20 heads it with one line of two cells, later ones with two
lines. That a transport is named there does not say that it is NVLink: `cuda_ipc` takes PCIe just as well.

Source: UCX, docs/source/faq.md and src/ucp/proto/proto_debug.c; what UCX 1.22 of a NIXL 1.5.1 wheel printed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

Operation = Literal["write", "read"]

_WITH: Final = re.compile(r"\b(self|intra-node|inter-node) cfg#\d+$")
_OPERATION: Final = re.compile(
    r"^remote memory (?P<operation>write|read) by ucp_\S+ (?:from|into) (?P<here>.+?) (?:to|from) (?P<there>.+)$"
)
_ANY_OPERATION: Final = re.compile(r" by ucp_\w+\*|^rendezvous ")
_RANGE: Final = re.compile(r"^(\d+)([KMGT]?)(?:\.\.(?:(\d+)([KMGT]?)|(inf)))?$")
_TRANSPORT: Final = re.compile(r"(?<![\w/:])([a-z]\w*)/")
_UNITS: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_ROW_CELLS: Final = 3


class Lane(NamedTuple):
    """How UCX moves data of one size: its word for it (`zero-copy`), and the transports (`cuda_ipc`, `tcp`)."""

    how: str
    transports: tuple[str, ...]

    def __str__(self) -> str:
        """Such as `zero-copy over cuda_ipc`."""
        return f"{self.how} over {' and '.join(self.transports) or 'no named transport'}"


class _Row(NamedTuple):
    """A row of a table of a write or a read between GPUs of two processes."""

    operation: str
    first: int
    last: float
    lane: Lane


def lane(log: str, operation: Operation, size: int) -> Lane | None:
    """What UCX chose for moving `size` bytes between GPUs of two processes; None if it did not say.

    The last table counts: UCX chooses anew when it knows more of the other side.
    """
    chosen = [row.lane for row in _rows(log) if row.operation == operation and row.first <= size <= row.last]
    return chosen[-1] if chosen else None


def _rows(log: str) -> Iterator[_Row]:
    within, operation = "", None
    for line in log.splitlines():
        cells = _cells(line)
        for cell in cells:
            if found := _WITH.search(cell):
                within = found[1]
            elif _ANY_OPERATION.search(cell):
                operation = None if within == "self" else _between_gpus(cell)
        if operation and len(cells) == _ROW_CELLS and (found := _RANGE.match(cells[0])):
            first = int(found[1]) * _UNITS[found[2]]
            last = float("inf") if found[5] else int(found[3]) * _UNITS[found[4]] if found[3] else first
            yield _Row(operation, first, last, Lane(cells[1], _transports(cells[2])))


def _cells(line: str) -> list[str]:
    """What stands between the bars of a line."""
    _, bar, rest = line.partition("|")
    return [cell.strip() for cell in rest.rpartition("|")[0].split("|")] if bar else []


def _between_gpus(cell: str) -> str | None:
    """The operation that a table is about, if it is between CUDA memory on both sides."""
    found = _OPERATION.match(cell)
    return found["operation"] if found and "cuda" in found["here"] and "cuda" in found["there"] else None


def _transports(config: str) -> tuple[str, ...]:
    """The transports of a cell like `rc_mlx5/mlx5_0:1 50% on path0 and 50% on path1`, each once."""
    return tuple(dict.fromkeys(_TRANSPORT.findall(config)))
