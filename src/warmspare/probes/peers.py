"""What the driver grants one GPU of another, and the way between them. A grant is no proof: see the trials."""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from warmspare.host.port import Host, Unreadable
from warmspare.model.facts import Count, Fact, Kind
from warmspare.probes.api import probe
from warmspare.probes.fabric import BRIDGE
from warmspare.probes.gpus import PAIR, Pair
from warmspare.probes.nvlink import UP, Link, link_state, numbers_of, remote_of
from warmspare.probes.pci import DEVICES

Grant = Literal["ok", "chipset", "gpu", "topology", "regkey", "unsupported", "unknown"]
GRANTS: Final[tuple[Grant, ...]] = ("ok", "chipset", "gpu", "topology", "regkey", "unsupported", "unknown")
"""nvmlGpuP2PStatus_t; `nvidia-smi topo -p2p` writes OK, CNS, GNS, TNS, DR, NS, U. Source: nvml.h."""
READ, WRITE, NVLINK, ATOMICS = range(4)

Ancestor = Literal["internal", "pix", "pxb", "phb", "node", "sys"]
ANCESTORS: Final[dict[int, Ancestor]] = {0: "internal", 10: "pix", 20: "pxb", 30: "phb", 40: "node", 50: "sys"}
"""nvmlGpuTopologyLevel_t: the nearest thing on PCIe that both hang on. Source: nvml.h."""


class PeerAccess(Fact, frozen=True, kw_only=True):
    """What the driver says of the first GPU's access to the second; anything but `ok` says who is in the way."""

    KIND: ClassVar[Kind] = PAIR

    read: Grant
    write: Grant
    nvlink: Grant
    atomics: Grant

    @property
    def refusal(self) -> Grant | None:
        """Why the first may not read or write the second's memory; None where it may."""
        return next((grant for grant in (self.read, self.write) if grant != "ok"), None)


class PairTopology(Fact, frozen=True, kw_only=True):
    """The way between two GPUs: their nearest common PCIe ancestor, and the NVLinks that join them.

    Links to a switch join to every GPU that has some too.
    """

    KIND: ClassVar[Kind] = PAIR

    ancestor: Ancestor
    nvlinks: Count

    @property
    def label(self) -> str:
        """As `nvidia-smi topo -m` writes it: NV18, or PHB."""
        return f"NV{self.nvlinks}" if self.nvlinks else self.ancestor.upper()


@probe
def peer_access(host: Host, pair: Pair) -> PeerAccess:
    """Source: nvmlDeviceGetP2PStatus, that is `nvidia-smi topo -p2p r|w|n|a`."""

    def granted(what: int) -> Grant:
        return GRANTS[int(host.nvml("nvmlDeviceGetP2PStatus", pair.source.nvml, pair.peer.nvml, what))]

    return PeerAccess(read=granted(READ), write=granted(WRITE), nvlink=granted(NVLINK), atomics=granted(ATOMICS))


@probe
def pair_topology(host: Host, pair: Pair) -> PairTopology:
    """Links are told by their other ends; a switch's, by being there on both sides.

    Source: nvmlDeviceGetTopologyCommonAncestor; NVIDIA/nccl src/graph/xml.cc takes an end that a VM does not
    show for a switch.
    """
    level = int(host.nvml("nvmlDeviceGetTopologyCommonAncestor", pair.source.nvml, pair.peer.nvml))
    there, back = _ends(host, pair), _ends(host, Pair(pair.peer, pair.source))
    nvlinks = there.count("peer") or min(there.count("switch"), back.count("switch"))
    return PairTopology(ancestor=ANCESTORS[level], nvlinks=nvlinks)


def _ends(host: Host, pair: Pair) -> list[str]:
    """For every link of the source that is up: `peer`, `switch` or `other`."""
    ends = []
    for number in numbers_of(host, pair.source):
        link = Link(pair.source, number)
        if link_state(host, link) not in UP:
            continue
        remote, address = remote_of(host, link)
        if address is not None and address == pair.peer.pci:
            ends.append("peer")
        else:
            ends.append(
                "switch" if remote == "switch" or (remote == "unknown" and _is_switch(host, address)) else "other"
            )
    return ends


def _is_switch(host: Host, address: str | None) -> bool:
    """Whether an end of no told type is a switch: one that a VM is not shown is taken for one, as NCCL does."""
    if address is None:
        return True
    try:
        return host.read(f"{DEVICES}/{address}/class").startswith(BRIDGE)
    except Unreadable:
        return False
