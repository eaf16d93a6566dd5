"""What NCCL's own log says of how it moves data: the transports it connected, and the algorithm it chose.

The log is that of NCCL_DEBUG=INFO with the subsystems INIT, GRAPH, P2P, SHM, NET, NVLS and TUNING.

Source: NCCL src/transport/{p2p,shm,net}.cc (`Channel … via …`), src/enqueue.cc (`… Bytes -> Algo …`), src/debug.cc.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_CHANNEL: Final = re.compile(
    r"NCCL INFO Channel \d+(?:/\d+)? : \d+\[\w+\] -> \d+\[\w+\] (?:\[\w+\] )?via (?P<via>[^\n]+?)(?: comm 0x.*)?$",
    re.MULTILINE,
)
_CHOICE: Final = re.compile(
    r"NCCL INFO (?:AllReduce: +)?(?P<size>\d+) Bytes -> Algo (?P<algorithm>\w+) proto (?P<protocol>\w+)"
)
_WARNING: Final = re.compile(r"NCCL WARN (?P<said>[^\n]+)")
_KINDS: Final = ("P2P", "SHM", "NET", "COLLNET")
_ALGORITHMS: Final = ("TREE", "RING", "COLLNET_DIRECT", "COLLNET_CHAIN", "NVLS", "NVLS_TREE", "PAT")
_PROTOCOLS: Final = ("LL", "LL128", "SIMPLE")
NVLS: Final = "NVLS"


class Choice(NamedTuple):
    """By which algorithm and protocol NCCL ran an all-reduce of so many bytes: `RING`, `SIMPLE`."""

    size: int
    algorithm: str
    protocol: str


class NcclLog(NamedTuple):
    """The transports of its channels, each once and the most used first; its choices and warnings in their order."""

    transports: tuple[str, ...]
    choices: tuple[Choice, ...]
    warnings: tuple[str, ...]

    def transport_of(self, size: int) -> str | None:
        """What carried an all-reduce of `size` bytes: NVLS where that was chosen, else the channels' transports."""
        chosen = self.algorithm_of(size)
        if chosen and chosen.startswith(NVLS):
            return NVLS
        return ", ".join(self.transports) or None

    def algorithm_of(self, size: int) -> str | None:
        """The algorithm last chosen for `size` bytes; None where NCCL does not say."""
        return next((choice.algorithm for choice in reversed(self.choices) if choice.size == size), None)


def read(log: str) -> NcclLog:
    """Read a log; lines that are no such thing are passed over."""
    seen: dict[str, int] = {}
    for line in _CHANNEL.finditer(log):
        name = transport(line["via"])
        seen[name] = seen.get(name, 0) + 1
    choices = [
        Choice(int(line["size"]), _named(line["algorithm"], _ALGORITHMS), _named(line["protocol"], _PROTOCOLS))
        for line in _CHOICE.finditer(log)
    ]
    warnings = tuple(line["said"].strip()[:300] for line in _WARNING.finditer(log))
    return NcclLog(tuple(sorted(seen, key=lambda name: -seen[name])), tuple(choices), warnings)


def transport(via: str) -> str:
    """A channel's transport without what differs from GPU to GPU: `P2P/CUMEM/read` is `P2P/CUMEM`.

    `SHM/direct/direct` says how each side copies, `NET/IB/0/GDRDMA` names a device: `SHM/direct`, `NET/IB/GDRDMA`.
    """
    kind, *more = via.strip().split("/")
    if kind not in _KINDS:
        return via.strip()[:60]
    ways = [word for word in more[:1] if word] + (["GDRDMA"] if "GDRDMA" in more else [])
    return "/".join((kind, *ways))[:60]


def _named(said: str, names: tuple[str, ...]) -> str:
    """By its name also where NCCL tells its number."""
    return names[int(said)] if said.isdigit() and int(said) < len(names) else said.upper()
