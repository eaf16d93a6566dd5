"""GPUs on which a process was seen suspended and resumed: what further trials of suspended processes are given."""

from __future__ import annotations

from typing import ClassVar, Self

import msgspec

from warmspare.model.facts import Cause, Known, Proof, Readings
from warmspare.probes import gpus
from warmspare.probes.gpu import GpuIdentity
from warmspare.trials.api import NotTried
from warmspare.trials.given import Gpu, May
from warmspare.trials.gpu_suspend import GpuSuspend


class Suspendable(Gpu, frozen=True, kw_only=True):
    """The first GPU on which a process survived."""

    RESTS_ON: ClassVar[tuple[type[Proof], ...]] = (GpuSuspend,)

    @classmethod
    def of(cls, readings: Readings, _subject: str, _may: May | None = None) -> Self:
        """The first of them.

        Raises:
            NotTried: there is none.
        """
        found = survived(readings)
        if not found:
            raise NotTried(Cause.SKIPPED, "on no GPU has a process been seen to survive a suspend")
        return super().of(readings, found[0])


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """From one GPU to another of the same kind; `all_ids` are the UUIDs of every GPU of the host."""

    RESTS_ON: ClassVar[tuple[type[Proof], ...]] = (GpuSuspend,)

    source: Gpu
    target: Gpu
    all_ids: tuple[str, ...]

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that the trial uses."""
        return (self.source, self.target)

    @property
    def there(self) -> dict[str, str]:
        """Which GPU in place of which: these two change places, and the driver wants all of them named."""
        swapped = {self.source.id: self.target.id, self.target.id: self.source.id}
        return {gpu: swapped.get(gpu, gpu) for gpu in self.all_ids}

    @classmethod
    def of(cls, readings: Readings, _subject: str, _may: May | None = None) -> Self:
        """The first two of one kind on which a process survived.

        Raises:
            NotTried: there are no two, or some GPU has no UUID that is known.
        """
        kinds: dict[str, list[str]] = {}
        for subject in survived(readings):
            identity = readings.get(GpuIdentity, subject)
            if isinstance(identity, Known):
                kinds.setdefault(identity.value.name, []).append(subject)
        pair = next((subjects[:2] for subjects in kinds.values() if subjects[1:]), None)
        if pair is None:
            raise NotTried(Cause.SKIPPED, "no two GPUs of one kind have been seen to suspend a process")
        ids = tuple(Gpu.of(readings, subject).id for subject in gpus.GPU.subjects(readings))
        if not all(one.startswith("GPU-") for one in ids):
            raise NotTried(Cause.SKIPPED, "the UUID of every GPU must be known, and of some only the PCI address is")
        source, target = (Gpu.of(readings, subject) for subject in pair)
        return cls(source=source, target=target, all_ids=ids)


def survived(readings: Readings) -> list[str]:
    """The GPUs on which a process was suspended and resumed, and its bytes were the same."""
    found = {subject: readings.get(GpuSuspend, subject) for subject in gpus.GPU.subjects(readings)}
    return [subject for subject, seen in found.items() if isinstance(seen, Known) and seen.value.bytes_survived]
