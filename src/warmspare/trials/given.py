"""What a trial on GPUs is given: which ones, and what is known of them that its figures are held against.

A trial asks for one of these by annotating its second parameter. Each is made from the readings so far, outside the
trial's child, and says so by NotTried where the trial cannot or should not be run.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol, Self, TypeVar

import msgspec

from warmspare.model import restored
from warmspare.model.facts import Cause, Fact, Known, Proof, Reading, Readings
from warmspare.probes import gpus
from warmspare.probes.driver import Driver
from warmspare.probes.gpu import GpuMemory, GpuNuma, GpuProcesses, PcieLink
from warmspare.probes.nvlink import NvLinksUp
from warmspare.probes.peers import PairTopology
from warmspare.trials.api import NotTried

LANE_GB_PER_S: Final = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}
"""What a PCIe lane carries one way, by its generation. Source: PCI Express base specification."""
F = TypeVar("F", bound=Fact)
BUSY_MIB: Final = 2048
"""With more of its memory in use than a desktop takes, somebody works on a GPU, also if no process can be seen."""


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU: its UUID (or PCI address) for CUDA, its number for NVML, and what its PCIe link can carry one way."""

    subject: str
    id: str
    nvml: int | None
    pcie_gb_per_s: float | None
    nvlink_gb_per_s: float | None
    numa_nodes: tuple[int, ...]
    memory_mib: int | None
    nvlinks_up: int | None = None

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that the trial uses."""
        return (self,)

    def gb_per_s_of(self, nvlinks: int) -> float | None:
        """The raw speed of so many of its links, one way; None where nobody told."""
        if not self.nvlink_gb_per_s:
            return None
        return round(self.nvlink_gb_per_s * min(1.0, nvlinks / (self.nvlinks_up or nvlinks)), 3)

    @classmethod
    def of(cls, readings: Readings, subject: str, _may: May | None = None) -> Self:
        """The GPU that is the subject."""
        gpu = gpus.gpu_of(readings, subject)
        link, up = _value(readings.get(PcieLink, subject)), _value(readings.get(NvLinksUp, subject))
        numa, memory = _value(readings.get(GpuNuma, subject)), _value(readings.get(GpuMemory, subject))
        lane = LANE_GB_PER_S.get(link.max_generation or 0) if link else None
        return cls(
            subject=subject,
            id=gpu.id,
            nvml=gpu.nvml_index,
            pcie_gb_per_s=lane * link.max_width if lane and link and link.max_width else None,
            nvlink_gb_per_s=up.gb_per_s if up else None,
            numa_nodes=numa.nodes if numa else (),
            memory_mib=memory.total_mib if memory else None,
            nvlinks_up=len(up.numbers) if up else None,
        )


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """Two GPUs in one direction, and how many NVLinks join them; None where nobody told."""

    source: Gpu
    target: Gpu
    nvlinks: int | None

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that the trial uses."""
        return (self.source, self.target)

    @property
    def nvlink_gb_per_s(self) -> float | None:
        """The raw speed of the links that join them, one way; None if there are none, or nobody told."""
        if not self.nvlinks:
            return None
        speeds = [speed for gpu in self.gpus if (speed := gpu.gb_per_s_of(self.nvlinks))]
        return min(speeds) if len(speeds) == len(self.gpus) else None

    @property
    def pcie_gb_per_s(self) -> float | None:
        """What the slower of their PCIe links can carry one way; None where nobody told."""
        limits = [gpu.pcie_gb_per_s for gpu in self.gpus if gpu.pcie_gb_per_s]
        return min(limits) if len(limits) == len(self.gpus) else None

    @classmethod
    def of(cls, readings: Readings, subject: str, _may: May | None = None) -> Self:
        """The pair that is the subject."""
        source, target = (Gpu.of(readings, name) for name in subject.split("→"))
        way = _value(readings.get(PairTopology, subject))
        return cls(source=source, target=target, nvlinks=way.nvlinks if way else None)


class Gpus(msgspec.Struct, frozen=True, kw_only=True):
    """All GPUs of the host."""

    gpus: tuple[Gpu, ...]

    @classmethod
    def of(cls, readings: Readings, _subject: str, _may: May | None = None) -> Self:
        """All that are there.

        Raises:
            NotTried: there is none.
        """
        found = tuple(Gpu.of(readings, subject) for subject in gpus.GPU.subjects(readings))
        if not found:
            raise NotTried(Cause.SKIPPED, "there is no NVIDIA GPU")
        return cls(gpus=found)


class Peers(Gpus, frozen=True, kw_only=True):
    """All GPUs of a host that has several."""

    @classmethod
    def of(cls, readings: Readings, _subject: str, _may: May | None = None) -> Self:
        """All that are there.

        Raises:
            NotTried: there is one, or none.
        """
        found = super().of(readings, _subject)
        if len(found.gpus) < 2:  # noqa: PLR2004 # several
            raise NotTried(Cause.SKIPPED, "it takes two GPUs, and there is one")
        return found


class Given(Protocol):
    """What any of them has."""

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that the trial uses."""

    @classmethod
    def of(cls, readings: Readings, subject: str, may: May | None = None) -> Self:
        """Made of the readings so far and of what the user lets it do; NotTried says why it cannot be."""


class EngineAsk(msgspec.Struct, frozen=True, kw_only=True):
    """The engine that the user means: a model and flags of vLLM's, the level to sleep at; or one that serves at `url`.

    `flags` are None where none were named.
    """

    model: str | None = None
    flags: tuple[str, ...] | None = None
    level: Literal[1, 2] = 1
    url: str | None = None


class May(msgspec.Struct, frozen=True, kw_only=True):
    """What the user lets trials do: use GPUs that are in use, restore processes whatever the driver, take long."""

    busy_ok: bool = False
    risk_restore: bool = False
    full: bool = False
    engine: EngineAsk = EngineAsk()


def in_the_way(readings: Readings, given: Given, may: May) -> str | None:
    """Why these GPUs should be left alone, or None: a trial hung on one of them, or somebody is at work on it."""
    for (fact, subject), reading in readings.items():
        proof = _value(reading)
        if isinstance(proof, Proof) and proof.outcome.kind == "hung" and subject in {g.subject for g in given.gpus}:
            return f"{fact} hung on {subject}"
    at_work = None if may.busy_ok else _at_work(readings, given)
    return at_work and f"{at_work}: --busy-ok tries it all the same"


def too_risky(readings: Readings, may: May) -> str | None:
    """Why no process should be restored here, or None: its end is not known to be safe on this driver."""
    driver = _value(readings.get(Driver))
    if may.risk_restore or driver is None or not restored.may_hang(driver.module, driver.kernel_version):
        return None
    known = "has hung a whole machine" if driver.kernel_version in restored.HUNG else "is not known to be safe"
    risk = f"the end of a restored process {known} on the open kernel module {driver.kernel_version}"
    return f"{risk}: --risk-restore tries it all the same"


def _at_work(readings: Readings, given: Given) -> str | None:
    for gpu in given.gpus:
        processes = _value(readings.get(GpuProcesses, gpu.subject))
        memory = _value(readings.get(GpuMemory, gpu.subject))
        working = sum(filter(None, (processes.compute, processes.mps))) if processes else 0
        used = memory.used_mib if memory else None
        if working:
            return f"{gpu.subject} is in use by {working} process{'es' if working > 1 else ''}"
        if used is not None and used > BUSY_MIB:
            return f"{gpu.subject} has {used} MiB in use"
    return None


def _value(reading: Reading[F]) -> F | None:
    return reading.value if isinstance(reading, Known) else None
