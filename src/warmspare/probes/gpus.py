"""Which NVIDIA GPUs this host has: the inventory that all GPU readings hang on."""

from __future__ import annotations

import itertools
import re
from typing import Annotated, Final, Literal

import msgspec

from warmspare.host.port import Host, Unreadable
from warmspare.model.facts import Cause, Count, Fact, Kind, Readings, Text, known
from warmspare.probes.api import probe
from warmspare.probes.gpu_sources import GPU_LIMIT, Heard, Named, of_cuda, of_nvml
from warmspare.probes.pci import DEVICES, DISPLAY, NVIDIA, devices
from warmspare.probes.platform import wsl_signals
from warmspare.probes.vendors import Vendor, other_gpus, wsl_vendors

TEGRA: Final = ("nvhost", "nvmap", "nvgpu")
"""What the device files of an integrated GPU begin with: it is on no PCI bus. Source: Jetson Linux."""
Source = Literal["nvml", "cuda", "pci", "device files"]
Library = Literal["nvml", "cuda"]
PerGpu = Annotated[tuple[Count | None, ...], msgspec.Meta(max_length=GPU_LIMIT)]


class Silence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a source named no GPU."""

    cause: Cause
    detail: Text


class Gpus(Fact, frozen=True, kw_only=True):
    """The NVIDIA GPUs, by UUID or, where no driver names one, by PCI address. An empty list is known.

    GPU number n of the readings is `ids[n]`; `nvml[n]` and `pci[n]` are its number in NVML and its PCI address, None
    where that source does not name it. `seen` is how many each source counts that was asked, `silent` why one of
    the two libraries names none. A GPU that has fallen off the bus keeps its place. `instead` is whose GPUs were
    seen where none is NVIDIA's.
    """

    ids: Annotated[tuple[str, ...], msgspec.Meta(max_length=GPU_LIMIT)]
    seen: dict[Source, Count]
    nvml: PerGpu
    pci: Annotated[tuple[str | None, ...], msgspec.Meta(max_length=GPU_LIMIT)]
    silent: dict[Library, Silence]
    instead: tuple[Vendor, ...]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.ids)


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU, as a probe asks about it."""

    number: int
    id: str
    nvml_index: int | None
    pci: str | None
    silence: Silence | None

    @property
    def nvml(self) -> int:
        """Its number in NVML."""
        if self.nvml_index is not None:
            return self.nvml_index
        if self.silence:
            raise Unreadable(self.silence.cause, self.silence.detail)
        raise Unreadable(Cause.INVALID, "NVML does not list this GPU")


class Pair(msgspec.Struct, frozen=True):
    """Two GPUs in one direction: `source` reaches for `peer`."""

    source: Gpu
    peer: Gpu


def gpu_of(readings: Readings, subject: str) -> Gpu:
    """The GPU that a subject such as `gpu0` names in the inventory."""
    found, n = known(readings, Gpus), int(subject.removeprefix("gpu"))
    return Gpu(
        number=n,
        id=found.ids[n],
        nvml_index=found.nvml[n],
        pci=found.pci[n],
        silence=found.silent.get("nvml"),
    )


def _pair(readings: Readings, subject: str) -> Pair:
    source, peer = subject.split("→")
    return Pair(gpu_of(readings, source), gpu_of(readings, peer))


def _gpus_of(gpus: Fact, _: str) -> tuple[str, ...]:
    return tuple(f"gpu{n}" for n in range(len(gpus.ids))) if isinstance(gpus, Gpus) else ()


def _pairs_of(gpus: Fact, _: str) -> tuple[str, ...]:
    return tuple(f"{a}→{b}" for a, b in itertools.combinations(_gpus_of(gpus, _), 2))


GPU: Final = Kind("gpu", Gpus, _gpus_of, handle=gpu_of)
PAIR: Final = Kind("pair", Gpus, _pairs_of, handle=_pair)


@probe
def gpus(host: Host) -> Gpus:
    """Merge PCI, device files, NVML and CUDA; known only when enough of them answered to be sure.

    NVML's list wins, else CUDA's, since they name GPUs by UUID; CUDA is not waited for where NVML names them all
    (cuInit takes over a second with four GPUs). PCI counts GPUs that no driver serves.
    Under WSL2 there is no PCI device to see, and /dev/dxg may be another vendor's.
    """
    nvml, pci = of_nvml(host), _on_the_bus(host)
    cuda = None if nvml.listed and all(gpu.uuid for gpu in nvml.listed) else of_cuda(host)
    nodes = _nodes(host)
    heard: dict[Library, Heard] = {"nvml": nvml}
    if cuda:
        heard["cuda"] = cuda
    silent = {name: Silence(one.silence.cause, one.silence.detail) for name, one in heard.items() if one.silence}
    seen: dict[Source, int] = {name: len(one.listed) for name, one in heard.items() if not one.silence}
    seen["device files"] = len(nodes)
    if pci is not None:
        seen["pci"] = len(pci)
    if not nvml.listed and cuda and 0 < len(cuda.listed) < len(nodes):
        raise Unreadable(Cause.INVALID, f"CUDA names {len(cuda.listed)} of {len(nodes)} GPUs, and NVML is silent")
    if any(one.listed for one in heard.values()):
        return _merged(nvml.listed, cuda.listed if cuda else (), _served(host, pci), seen, silent)
    if any(name.startswith(TEGRA) for name in host.list("/dev")):
        raise Unreadable(Cause.INVALID, "a Tegra's GPU is here, and neither NVML nor CUDA names it")
    if pci:
        none = (None,) * len(pci)
        return Gpus(ids=pci, seen=seen, nvml=none, pci=pci, silent=silent, instead=())
    if nodes:
        raise Unreadable(Cause.INVALID, f"{len(nodes)} /dev/nvidia… files, and neither NVML nor CUDA names a GPU")
    _be_sure_of_none(host, tuple(heard.values()), bus_is_read=pci is not None)
    return Gpus(ids=(), seen=seen, nvml=(), pci=(), silent=silent, instead=_others(host))


def _be_sure_of_none(host: Host, heard: tuple[Heard, ...], *, bus_is_read: bool) -> None:
    """Nothing named a GPU: make sure that there is none.

    Raises:
        Unreadable: there may be one that we could not see.
    """
    wsl = bool(wsl_signals(host))
    windows = wsl_vendors(host) if wsl else None
    others_only = windows is not None and "nvidia" not in windows
    doubts = [one.silence for one in heard if one.doubt and one.silence]
    if blocked := [one.silence for one in heard if one.blocked and one.silence]:
        raise blocked[0]  # the operating system keeps one from us: no other source's silence settles that
    if wsl and host.exists("/dev/dxg") and not others_only:
        nothing = "/dev/dxg is there, and nothing says whose GPU is behind it"
        raise next(iter(doubts), Unreadable(Cause.INVALID, nothing))
    if not bus_is_read and not wsl:
        raise Unreadable(Cause.DENIED, "the PCI bus cannot be read, and no driver answers")
    if doubts and not others_only and (wsl or not _has_bus(host)):  # a bus that shows none settles them
        raise doubts[0]


def _merged(
    nvml: tuple[Named, ...],
    cuda: tuple[Named, ...],
    pci: tuple[str, ...],
    seen: dict[Source, int],
    silent: dict[Library, Silence],
) -> Gpus:
    """NVML's GPUs, or CUDA's where NVML has none."""
    listed = _completed(nvml, cuda, pci) if nvml else cuda
    uuids = [gpu.uuid for gpu in listed if gpu.uuid]
    if len(uuids) != len(set(uuids)):
        raise Unreadable(Cause.INVALID, "two GPUs have one UUID")
    prefix = "nvml" if nvml else "cuda"
    return Gpus(
        ids=tuple(gpu.uuid or gpu.pci or f"{prefix}:{gpu.place}" for gpu in listed),
        seen=seen,
        nvml=tuple(gpu.place if nvml else None for gpu in listed),
        pci=tuple(gpu.pci for gpu in listed),
        silent=silent,
        instead=(),
    )


def _completed(nvml: tuple[Named, ...], cuda: tuple[Named, ...], pci: tuple[str, ...]) -> tuple[Named, ...]:
    """NVML's list, where one GPU that no longer answers it is the one that only CUDA, or only the bus, still names."""
    unnamed = [gpu for gpu in nvml if gpu.pci is None]
    if len(unnamed) != 1:
        return nvml
    named = {gpu.pci for gpu in nvml}
    left = [gpu for gpu in cuda if gpu.pci not in named]
    address = sorted(set(pci) - named)
    found = left[0] if len(left) == 1 else Named(None, address[0] if len(address) == 1 else None, 0)
    return tuple(Named(found.uuid, found.pci, gpu.place) if gpu.pci is None else gpu for gpu in nvml)


def _on_the_bus(host: Host) -> tuple[str, ...] | None:
    """PCI addresses of NVIDIA's display controllers; None where the bus cannot be read."""
    try:
        return tuple(device.address for device in devices(host, NVIDIA) if device.kind.startswith(DISPLAY))
    except Unreadable:
        return None


def _served(host: Host, pci: tuple[str, ...] | None) -> tuple[str, ...]:
    """Those on the bus that NVIDIA's own kernel module holds: others may be given to a VM, or to nouveau."""
    try:
        held = host.list("/sys/bus/pci/drivers/nvidia")
    except Unreadable:
        return ()
    return tuple(found for found in pci or () if found in held)


def _others(host: Host) -> tuple[Vendor, ...]:
    """Whose GPUs are here instead; the fact `OtherGpus` says why where that cannot be told."""
    try:
        return other_gpus(host).vendors
    except Unreadable:
        return ()


def _has_bus(host: Host) -> bool:
    try:
        host.list(DEVICES)
    except Unreadable:
        return False
    return True


def _nodes(host: Host) -> tuple[str, ...]:
    return tuple(name for name in host.list("/dev") if re.fullmatch(r"nvidia\d+", name))
