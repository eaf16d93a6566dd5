"""How an engine is started: with which model, on which part of its GPUs' memory, with what flags."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from warmspare.control import made_model as models
from warmspare.control.host_memory import MIB
from warmspare.control.made_model import MadeModel, Shape
from warmspare.control.vllm_server import Asked
from warmspare.model import engine_flags
from warmspare.model.facts import Cause
from warmspare.trials.api import NotTried, Steps
from warmspare.trials.engine_given import EngineHost
from warmspare.trials.given import Gpu
from warmspare.trials.sleeping.vram import memory_of

if TYPE_CHECKING:
    from warmspare.trials.sleeping.bench import Bench

SHARE: Final = 0.3
"""What an engine of ours takes of a GPU's free memory. Less than a tenth will not do: it keeps up to 2 GiB asleep, and
what it frees must stand out from that."""
MOST: Final = 0.9
LEAST_MIB: Final = 4096
"""An engine's own needs and a small model."""
SEED: Final = 20_261_122
SHAPES: Final[dict[str, Shape]] = {shape.name: shape for shape in (models.TINY, models.SMALL, models.EIGHT_B)}
FLAGS: Final = ("--max-model-len", "2048", "--max-num-seqs", "8")
"""For the model made on the spot: fewer graphs to capture, so that a start is short."""
SOONER: Final = ("--enforce-eager",)
"""For engines beside the first, which has shown that graphs survive: without them a start takes half the time."""
WEIGHTS: Final = ("*.safetensors", "*.bin", "*.pt", "*.gguf")
"""Kinds of weight files, of which an engine loads the first that is there."""


def made_model(steps: Steps, shape: str) -> MadeModel:
    """A model of this shape, in the trial's scratch folder."""
    return models.make(steps.scratch / f"model-{shape}", SHAPES[shape], SEED)


def asked(bench: Bench, flags: tuple[str, ...], share: float) -> Asked:
    """What the engine of a bench is started with: flags of ours only for a model of ours.

    Raises:
        NotTried: a GPU has too little free memory for the smallest engine.
    """
    folder = bench.steps.scratch / f"engine-{len(list(bench.steps.scratch.glob('engine-*')))}"
    folder.mkdir(mode=0o700)
    made = bench.made is not None
    return Asked(
        python=bench.host.python,
        model=str(bench.model),
        flags=(*FLAGS, *_memory(bench.gpus, share), *flags) if made else flags,
        gpus=tuple(gpu.id for gpu in bench.gpus),
        folder=folder,
        # One for all its engines: the first start is cold, the others need not compile again.
        caches=bench.steps.scratch / "caches" if made else None,
        version=bench.host.vllm or None,
    )


def _memory(gpus: tuple[Gpu, ...], share: float) -> tuple[str, str]:
    """The part of all of a GPU's memory that is `share` of what is free: vLLM takes no less of one that has less."""
    parts = []
    for gpu in gpus:
        _, free, total = memory_of(gpu)
        wanted = max(int(free * share), min(LEAST_MIB, total // 2))
        if wanted > free * MOST:
            raise NotTried(
                Cause.SKIPPED, f"{gpu.subject} has {free} MiB free, and the smallest engine takes {wanted} MiB"
            )
        parts.append(wanted / total)
    return "--gpu-memory-utilization", f"{min(parts):.4f}"


def users_gpus(host: EngineHost) -> tuple[Gpu, ...]:
    """As many of the GPUs as the user's flags ask for; all where that is unclear.

    Raises:
        NotTried: there are fewer.
    """
    wanted = engine_flags.parse(host.ask.flags or ()).gpus
    if wanted is None:
        return host.gpus
    if wanted > len(host.gpus):
        raise NotTried(Cause.SKIPPED, f"these flags ask for {wanted} GPUs, and {len(host.gpus)} may be used")
    return host.gpus[:wanted]


def weights_mib(model: str, environment: Mapping[str, str] = os.environ, *, served: bool = False) -> int | None:
    """How large a model's weights are in MiB, in its folder or in the cache of those fetched; None: not there.

    `served`: an engine gave that name, whose working directory is not ours: only an absolute path is a folder.
    """
    folder = Path(model)
    if not folder.is_dir() or (served and not folder.is_absolute()):
        home = environment.get("HF_HOME") or f"{environment.get('HOME', '/')}/.cache/huggingface"
        cache = Path(environment.get("HF_HUB_CACHE") or f"{home}/hub") / f"models--{model.replace('/', '--')}"
        versions = sorted((cache / "snapshots").glob("*"), key=lambda path: path.stat().st_mtime)
        if not versions:
            return None
        folder = versions[-1]
    for kind in WEIGHTS:
        if sizes := [path.stat().st_size for path in folder.glob(kind)]:
            return -(-sum(sizes) // MIB)
    return None
