"""What is asked of the way between two GPUs before a byte is sent: the driver's grant, and the links."""

from __future__ import annotations

import functools
import re
import tomllib
from importlib import resources
from typing import Final

import msgspec

from warmspare.model.facts import Both
from warmspare.model.findings import Finding, Value, met, not_applicable, undecided, unmet
from warmspare.model.requirements import Each, Some
from warmspare.probes.fabric import Fabric, NvSwitches
from warmspare.probes.gpu import GpuIdentity
from warmspare.probes.nvlink import UP, NvLink, NvLinks, NvLinksUp
from warmspare.probes.peers import PairTopology, PeerAccess

JOINED = "it has joined the fabric (clique {clique})"
NO_FABRIC = "this GPU is on no fabric"
FABRIC_UNTOLD = "this driver is too old to tell of a fabric: cuInit's code 802 would"
NOT_JOINED = "it has not joined the NVLink fabric: {state}"
REFUSED = "the fabric refused it: NVML code {status}"
UNHEALTHY = "the fabric is not healthy: {faults}"


def fabric_is_ready(fabric: Each[Fabric]) -> Finding:
    """GPUs behind NVSwitches may talk only once the fabric manager has let each of them in; until then cuInit says 802.

    Remedy: start-fabric-manager
    Source: nvmlDeviceGetGpuFabricInfoV; NVIDIA fabric manager user guide; NVIDIA/open-gpu-kernel-modules nvml.h.
    """
    if fabric.state == "unsupported":
        return not_applicable(NO_FABRIC)
    if fabric.state == "not told":
        return not_applicable(FABRIC_UNTOLD)
    if fabric.state != "completed":
        return unmet(NOT_JOINED, state=fabric.state, remedy="start-fabric-manager")
    if fabric.status:
        return unmet(REFUSED, status=fabric.status, remedy="start-fabric-manager")
    if fabric.faults:
        return unmet(UNHEALTHY, faults=fabric.faults, remedy="start-fabric-manager")
    return met(JOINED, clique=fabric.clique)


REASONS: Final = {
    "chipset": ("the driver does not allow it on this chipset (CNS)", "allow-p2p-chipset"),
    "gpu": ("the driver does not allow it on these GPUs (GNS)", "use-gpus-with-p2p"),
    "topology": ("the driver does not allow it across this topology (TNS)", "move-the-cards"),
    "regkey": ("it is turned off by a driver setting (DR)", "allow-p2p-setting"),
    "unsupported": ("the driver does not support it here (NS)", "allow-p2p"),
    "unknown": ("the driver cannot tell (U)", "allow-p2p"),
}
GRANTED = "the driver grants peer access both ways"
NOT_GRANTED = "no peer access: {reason}"


def _granted(access: Both[PeerAccess]) -> Finding:
    refusal = access.there.refusal or access.back.refusal
    if refusal is None:
        return met(GRANTED)
    reason, remedy = REASONS[refusal]
    return unmet(NOT_GRANTED, reason=reason, remedy=remedy)


def driver_grants_peer_access(access: Some[Both[PeerAccess]]) -> Finding:
    """Paper: whether the driver lets one GPU read and write another's memory. Its yes has been wrong: a copy is tried.

    Its no comes with a reason: the chipset (often a virtual machine's), the kind of GPU (most GeForce), the topology.

    Remedy: allow-p2p-chipset
    Remedy: use-gpus-with-p2p
    Remedy: move-the-cards
    Remedy: allow-p2p-setting
    Remedy: allow-p2p
    Source: nvmlDeviceGetP2PStatus (nvidia-smi topo -p2p r|w); noonghunna/club-3090 docs/PCIE_P2P.md (CNS in KVM).
    """
    return _granted(access)


def every_pair_is_granted(access: Each[Both[PeerAccess]]) -> Finding:
    """Paper: the same of every pair; a pair without it cannot be chosen to stand in for one another.

    Remedy: allow-p2p-chipset
    Remedy: use-gpus-with-p2p
    Remedy: move-the-cards
    Remedy: allow-p2p-setting
    Remedy: allow-p2p
    Source: nvmlDeviceGetP2PStatus; ggml-org/llama.cpp#2470 (bridged cards have it, the others do not).
    """
    return _granted(access)


BY_LINKS = "{nvlinks} NVLinks join them"
BY_PCIE = "no NVLink joins them: their way is PCIe ({ancestor})"


def a_pair_is_joined_by_nvlink(ways: Some[Both[PairTopology]]) -> Finding:
    """Paper: some pair of GPUs is joined by NVLink, directly or through switches; otherwise copies go over PCIe.

    Remedy: add-nvlink-bridge
    Source: NVML's links and their other ends, as nvidia-smi topo -m shows them.
    """
    nvlinks = min(ways.there.nvlinks, ways.back.nvlinks)
    if nvlinks:
        return met(BY_LINKS, nvlinks=nvlinks)
    return unmet(BY_PCIE, ancestor=ways.there.ancestor.upper(), remedy="add-nvlink-bridge")


WAY = "{label}"


def way_between_gpus_is_known(ways: Each[Both[PairTopology]]) -> Finding:
    """How two GPUs are joined: NV4 is four NVLinks; PIX, PXB, PHB, NODE and SYS are ways over PCIe, each longer.

    Source: nvidia-smi topo -m.
    """
    return met(WAY, label=ways.there.label)


ALL_UP = "all {count} NVLinks are up"
SOME_DOWN = "{down} of {count} NVLinks are down ({numbers})"
NONE_UP = "it has {count} NVLinks, and none is up: no bridge, or nobody started the fabric"
NO_LINKS = "the driver shows no NVLink on this GPU"


def nvlinks_are_up(links: Each[NvLinks], up: Each[NvLinksUp]) -> Finding:
    """A GPU with some NVLinks up and others down has lost part of its speed; some programs then fail, some go wrong.

    A pair that is meant to be joined by fewer bridges than would fit looks the same.

    Remedy: reseat-nvlink
    Source: nvidia-smi nvlink -s; NVIDIA/nccl 2.12.7 ("avoid data corruption when some NVLinks are down").
    """
    if not links.numbers:
        return not_applicable(NO_LINKS)
    if not up.numbers:
        return not_applicable(NONE_UP, count=len(links.numbers))
    down = tuple(str(n) for n in links.numbers if n not in up.numbers)
    if down:
        return unmet(SOME_DOWN, down=len(down), count=len(links.numbers), numbers=down, remedy="reseat-nvlink")
    return met(ALL_UP, count=len(links.numbers))


LINK = "NVLink {version}, {gb_per_s} GB/s one way, to: {remote}"
UNTOLD_LINK = "NVLink {version}, speed not told, to: {remote}"
DOWN = "this link is {state}"


def nvlink_is_described(link: Each[NvLink]) -> Finding:
    """Every NVLink as the driver tells it: generation, raw speed one way, and what is at its other end.

    The raw speed is about 6 % above what data can use.

    Source: NVML fields 164 to 166, as nvidia-smi nvlink -s shows them; never looked up by product.
    """
    if link.state not in UP:
        return not_applicable(DOWN, state=link.state)
    if link.gb_per_s is None:
        return met(UNTOLD_LINK, version=link.version, remote=link.remote)
    return met(LINK, version=link.version, gb_per_s=link.gb_per_s, remote=link.remote)


SWITCHES = "NVSwitches that this machine shows: {count}"
NO_SWITCHES = "this machine shows no NVSwitch; a virtual machine may use some without being shown any"


def switches_are_known(switches: NvSwitches) -> Finding:
    """Through NVSwitches every GPU reaches every other at full speed; without them only those that a link joins.

    Source: bridges of NVIDIA's on the PCI bus.
    """
    return met(SWITCHES, count=len(switches.addresses)) if switches.addresses else not_applicable(NO_SWITCHES)


SPEED = "links up: {up}, {gb_per_s:.0f} GB/s one way, of {possible:.0f} that are possible for this kind ({name})"
SPEED_UNKNOWN_PART = "links up: {up}, {gb_per_s:.0f} GB/s one way; what is possible is not known here ({name})"
UNTOLD = "the driver does not tell how fast the links are"


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    links: int
    gb_per_s: float
    source: str


@functools.cache
def _parts() -> tuple[_Part, ...]:
    text = resources.files("warmspare.tracks").joinpath("known_parts.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text)["part"], tuple[_Part, ...])


def nvlink_speed_is_known(up: Each[NvLinksUp], identity: Each[GpuIdentity]) -> Finding:
    """How fast all NVLinks of a GPU are together, as read, beside what its kind can have at most.

    NV18 alone does not tell 450 GB/s (Hopper) from 900 (Blackwell).

    Remedy: newer-driver
    Source: NVML field 164; tracks/known_parts.toml for what is possible, and for nothing else.
    """
    if not up.numbers:
        return not_applicable(NONE_UP if up.of else NO_LINKS, count=up.of)
    if up.gb_per_s is None:
        return undecided(UNTOLD, remedy="newer-driver")
    part = next((part for part in _parts() if re.search(part.name, identity.name)), None)
    values: dict[str, Value] = {"up": len(up.numbers), "gb_per_s": up.gb_per_s, "name": identity.name}
    return met(SPEED, possible=part.links * part.gb_per_s, **values) if part else met(SPEED_UNKNOWN_PART, **values)
