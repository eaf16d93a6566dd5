"""What a measured host's figures are called, and the arithmetic that compares two runs. Pure."""

from __future__ import annotations

import math
from typing import Annotated, Final, Literal

import msgspec

from warmspare.model.facts import Count, Fact, Moment, Proof
from warmspare.probes.platform import MachineKind

Place = Literal["disk", "tmpfs", "mnt_c"]
"""Where files were measured: the scratch folder's disk, memory, the Windows disk under WSL."""
Unit = Literal["GB/s", "ms", "1/s"]
Name = Literal[
    "cpu_1_thread",
    "cpu_n_threads",
    "memory_1_thread",
    "memory_n_threads",
    "process_start_ms",
    "disk_write_gb_per_s",
    "disk_read_gb_per_s",
    "disk_random_read_per_s",
    "disk_create_ms",
    "tmpfs_write_gb_per_s",
    "tmpfs_read_gb_per_s",
    "tmpfs_random_read_per_s",
    "tmpfs_create_ms",
    "mnt_c_write_gb_per_s",
    "mnt_c_read_gb_per_s",
    "mnt_c_random_read_per_s",
    "mnt_c_create_ms",
    "sysbench_cpu_per_s",
    "sysbench_memory_gb_per_s",
    "disk_fio_random_read_per_s",
    "disk_fio_random_write_per_s",
]
"""Words of our own, which redaction leaves alone."""
PLACES: Final[tuple[Place, ...]] = ("disk", "tmpfs", "mnt_c")
MOST_MEASURES: Final = 64
Word = Annotated[str, msgspec.Meta(max_length=200)]
MachineKey = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}(?![\s\S])")]
"""A digest of the CPU's model and the GPUs' UUIDs: equal for the same hardware in whatever it was booted."""


class Measure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One figure of a host. GB are decimal; `1/s` are operations a second."""

    name: Name
    value: Annotated[float, msgspec.Meta(ge=1e-12, le=1e12)]
    unit: Unit
    higher_is_better: bool

    def __post_init__(self) -> None:
        """Refuse a unit or a direction that the name does not have: files come from others.

        Raises:
            ValueError: they do not fit.
        """
        if (self.unit, self.higher_is_better) != _meaning(self.name):
            message = f"{self.name} is not in {self.unit}, or its direction is the other one"
            raise ValueError(message)

    @property
    def text(self) -> str:
        """The figure as it is shown."""
        return f"{self.name} {self.number} {self.unit}"

    @property
    def number(self) -> str:
        """Its value to three digits, and never with an exponent above one."""
        return f"{self.value:.0f}" if self.value >= 100 else f"{self.value:.3g}"  # noqa: PLR2004 # three digits


class FileSystem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A place that was measured, and the type of the file system that it is on."""

    place: Place
    type: Word


class HostSpeed(Proof, frozen=True, kw_only=True):
    """CPU, memory, process start and file systems of this host, in absolute figures.

    `threads` is the n of "n threads". `software` is what the figures may depend on beside the machine.
    `lacking` says what could not be measured, and why.
    """

    measures: Annotated[tuple[Measure, ...], msgspec.Meta(max_length=MOST_MEASURES)] = ()
    threads: Count | None = None
    file_systems: Annotated[tuple[FileSystem, ...], msgspec.Meta(max_length=8)] = ()
    software: Word | None = None
    lacking: Annotated[tuple[Word, ...], msgspec.Meta(max_length=16)] = ()

    def __post_init__(self) -> None:
        """Refuse a figure or a place that stands twice: files come from others.

        Raises:
            ValueError: one does.
        """
        for told in ([one.name for one in self.measures], [one.place for one in self.file_systems]):
            if len(set(told)) < len(told):
                message = f"one of these stands twice: {', '.join(sorted(told))}"
                raise ValueError(message)


class SpeedRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A measured host that is kept to compare with: which machine, in what it was booted, when."""

    key: MachineKey
    at: Moment
    kernel: Word | None
    kind: MachineKind | None
    in_container: bool | None
    speed: HostSpeed

    @property
    def is_native(self) -> bool:
        """Whether it ran on bare metal and in no container; what is not known is not native."""
        return self.kind == "bare-metal" and self.in_container is False

    @property
    def called(self) -> str:
        """What it may be called: `native`, or what it is."""
        if self.is_native:
            return "native"
        inside = " in what may be a container" if self.in_container is None else " container"
        return f"{self.kind or 'unknown platform'}{inside if self.in_container is not False else ''}"


class NativeRun(Fact, frozen=True, kw_only=True):
    """The key of this machine, and the native run of it that is kept here.

    `key` None: no GPU named its UUID, so nothing proves which machine this is. `stored` None: there is none.
    """

    key: MachineKey | None
    stored: SpeedRun | None


class Pair(msgspec.Struct, frozen=True):
    """One figure in two runs."""

    stored: Measure
    now: Measure

    @property
    def ratio(self) -> float:
        """How many times as good it is now: above 1 is faster, whichever way the unit goes."""
        now, stored = self.now.value, self.stored.value
        return now / stored if self.now.higher_is_better else stored / now


def measure(name: Name, value: float) -> Measure:
    """A figure under its name."""
    unit, higher_is_better = _meaning(name)
    return Measure(name=name, value=float(f"{value:.6g}"), unit=unit, higher_is_better=higher_is_better)


def _meaning(name: Name) -> tuple[Unit, bool]:
    """The unit that a name speaks of, and whether more of it is better."""
    if name.endswith("_ms"):
        return "ms", False
    return ("1/s", True) if name.endswith("_per_s") and not name.endswith("_gb_per_s") else ("GB/s", True)


def pairs(stored: HostSpeed, now: HostSpeed) -> tuple[Pair, ...]:
    """The figures that both have, in today's order; none of a place whose file system is of another type today."""
    other = {f"{place}_" for place, _, _ in moved(stored, now)}
    before = {one.name: one for one in stored.measures if not one.name.startswith(tuple(other))}
    return tuple(Pair(before[one.name], one) for one in now.measures if one.name in before)


def moved(stored: HostSpeed, now: HostSpeed) -> tuple[tuple[Place, str, str], ...]:
    """Places whose file systems are of different types, then and now: they compare two file systems, not two hosts."""
    then, today = ({one.place: one.type for one in speed.file_systems} for speed in (stored, now))
    return tuple((p, then[p], today[p]) for p in PLACES if p in then and p in today and then[p] != today[p])


def geometric_mean(found: tuple[Pair, ...]) -> float:
    """The geometric mean of the ratios: the one mean under which swapping the two runs inverts it.

    Raises:
        ValueError: there is nothing to take the mean of.
    """
    if not found:
        message = "no figure is in both runs"
        raise ValueError(message)
    return math.exp(math.fsum(math.log(pair.ratio) for pair in found) / len(found))


def within(speed: HostSpeed) -> tuple[str, ...]:
    """Ratios inside one host: n threads against 1, and memory and the Windows disk against the disk."""
    found = {str(one.name): one.value for one in speed.measures}
    asked = [
        *((f"{speed.threads} threads do {{:.2f}} times what 1 does ({what})", f"{what}_n_threads", f"{what}_1_thread")
          for what in ("cpu", "memory")),
        *((f"{place} {act}s at {{:.2f}} times the disk's speed", f"{place}_{act}_gb_per_s", f"disk_{act}_gb_per_s")
          for place in PLACES[1:] for act in ("write", "read")),
    ]  # fmt: skip
    return tuple(said.format(found[a] / found[b]) for said, a, b in asked if a in found and b in found)
