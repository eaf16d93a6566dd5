"""What a trial on an LLM engine is given: which GPUs are free for it, its Python, what the user means."""

from __future__ import annotations

from pathlib import PurePath
from typing import Final, Self

import msgspec

from warmspare.model import engine_flags
from warmspare.model.facts import Cause, Known, Readings
from warmspare.probes import gpus
from warmspare.probes.gpu import GpuMemory
from warmspare.probes.platform import Platform
from warmspare.probes.software import PythonPackages
from warmspare.trials.api import NotTried
from warmspare.trials.engine_plan import EnginePlan
from warmspare.trials.given import EngineAsk, Gpu, May, in_the_way
from warmspare.trials.own_python import engines_python

NO_VLLM: Final = "vLLM is not installed in the engine's Python; --vllm PYTHON names another"
QUICK_CYCLES: Final = 4
FULL_CYCLES: Final = 20
MADE_S: Final = 900.0
"""How long the quick form may take with the made model: a start takes minutes on a slow disk."""
OWN_S: Final = 3600.0
"""And with the user's own, which may be large."""
FULL_S: Final = 4 * 3600.0


class EngineHost(msgspec.Struct, frozen=True, kw_only=True):
    """GPUs that an engine may use, the freest first; the engine's Python and vLLM's version; what the user asks for.

    `python` and `vllm` are empty for an engine that serves already, at `ask.url`. `shape` is that of the made model;
    `cycles` how often an engine is put to sleep at level 1. `wsl2`: what may hang there is left out. `only` names the
    proofs that are wanted; none: all.
    """

    gpus: tuple[Gpu, ...]
    python: str
    vllm: str
    ask: EngineAsk
    full: bool
    cycles: int
    deadline_s: float
    shape: str = "small"
    only: tuple[str, ...] = ()
    wsl2: bool = False

    @classmethod
    def of(cls, readings: Readings, _subject: str, may: May | None = None) -> Self:
        """All GPUs that nobody is at work on; for an engine that is there, all.

        Raises:
            NotTried: there is no GPU, none that is free, or no vLLM.
        """
        may = may or May()
        found = tuple(Gpu.of(readings, subject) for subject in gpus.GPU.subjects(readings))
        if not found:
            raise NotTried(Cause.SKIPPED, "there is no NVIDIA GPU")
        own = may.engine.url is None
        python, vllm = _vllm(readings) if own else ("", "")
        platform = readings.get(Platform)
        return cls(
            gpus=_free(readings, found, may) if own else found,
            python=python,
            vllm=vllm,
            ask=may.engine,
            full=may.full,
            cycles=FULL_CYCLES if may.full else QUICK_CYCLES,
            deadline_s=FULL_S if may.full else OWN_S if may.engine.model else MADE_S,
            wsl2=isinstance(platform, Known) and platform.value.kind == "wsl2",
        )

    @property
    def leaves_busy_ones_alone(self) -> bool:
        """Whether a GPU that somebody is at work on is in the way: an engine that serves is itself at work."""
        return self.ask.url is None


def planned(ask: EngineAsk) -> EnginePlan:
    """What the user means to run, as a fact: the model by the last part of its path."""
    return EnginePlan(
        given=ask != EngineAsk(),
        serves=ask.url is not None,
        model=PurePath(ask.model).name if ask.model else None,
        flags=engine_flags.parse(ask.flags or ()),
        level=ask.level,
    )


def _free(readings: Readings, found: tuple[Gpu, ...], may: May) -> tuple[Gpu, ...]:
    reasons = {gpu.subject: in_the_way(readings, gpu, may) for gpu in found}
    free = [gpu for gpu in found if reasons[gpu.subject] is None]
    if not free:
        raise NotTried(Cause.SKIPPED, str(reasons[found[0].subject]))
    return tuple(sorted(free, key=lambda gpu: -_free_mib(readings, gpu)))


def _free_mib(readings: Readings, gpu: Gpu) -> int:
    memory = readings.get(GpuMemory, gpu.subject)
    return (memory.value.free_mib or 0) if isinstance(memory, Known) else 0


def _vllm(readings: Readings) -> tuple[str, str]:
    """The engine's Python, and vLLM's version by its metadata."""
    packages = readings.get(PythonPackages)
    if isinstance(packages, Known) and packages.value.vllm is None:
        raise NotTried(Cause.SKIPPED, NO_VLLM)
    return engines_python().program, (packages.value.vllm or "") if isinstance(packages, Known) else ""
