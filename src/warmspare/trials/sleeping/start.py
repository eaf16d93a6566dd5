"""A vLLM started with Sleep Mode, to its first token; or the one that the user has running, found."""

from __future__ import annotations

from pathlib import PurePath
from typing import Final

from warmspare.model import engine_flags
from warmspare.model.facts import Count, Outcome, Proof, Seconds, Subject, Text
from warmspare.trials.sleeping.bench import Bench
from warmspare.trials.sleeping.oracle import WELL_BEYOND, moved
from warmspare.trials.sleeping.parts import START, Part

INSENSITIVE: Final = "another prompt does not change the answers of this model: nothing can be compared"
"""The controls were done with a model that was made: of the user's own only this can be seen."""


class EngineStart(Proof, frozen=True, kw_only=True):
    """An engine that answers: which one, how long a cold start took, and what it holds of its GPUs through NVML.

    `model` is `made small` (or another shape) for one made on the spot, else a name. `found`: it was there already, at
    the user's URL, and `cold_start_s` is not known. `cold_start_s` is from its start to its first token, `ready_s` to
    the first 200 of /health; `first_token_warm_s` is the median of an engine warm. `mib_*` are of all its GPUs, summed.
    """

    vllm: Text | None = None
    model: Text | None = None
    found: bool = False
    gpus: tuple[Subject, ...] | None = None
    tensor_parallel: Count | None = None
    data_parallel: Count | None = None
    cold_start_s: Seconds | None = None
    ready_s: Seconds | None = None
    first_token_warm_s: Seconds | None = None
    weights_mib: Count | None = None
    mib_before: Count | None = None
    mib_awake: Count | None = None


def engine_start(bench: Bench) -> EngineStart:
    """Start it, or look at the one that is there; first token cold; the same prompt some times over, warm."""
    return _found(bench) if bench.host.ask.url else _started(bench)


def _started(bench: Bench) -> EngineStart:
    host = bench.host
    flags = engine_flags.parse(host.ask.flags or ())
    bench.start(host.ask.flags or ())
    if bench.made is None and bench.unsteady is None and moved(bench) < WELL_BEYOND:
        bench.unsteady = INSENSITIVE
    return EngineStart(
        outcome=Outcome(kind="done"),
        vllm=bench.engine.version(),
        model=f"made {host.shape}" if bench.made else PurePath(str(bench.model)).name,
        gpus=tuple(gpu.subject for gpu in bench.gpus),
        tensor_parallel=flags.tensor_parallel,
        data_parallel=flags.data_parallel,
        cold_start_s=bench.cold_start_s,
        ready_s=bench.ready_s,
        first_token_warm_s=bench.first_token_warm_s,
        weights_mib=bench.weights_mib(),
        mib_before=sum(bench.mib_before or ()),
        mib_awake=sum(bench.used_mib()),
    )


def _found(bench: Bench) -> EngineStart:
    """That it is awake and may be tried was seen before."""
    bench.refer()
    return EngineStart(
        outcome=Outcome(kind="done"),
        vllm=bench.engine.version(),
        model=PurePath(next(iter(bench.engine.models()), "")).name or None,
        found=True,
        gpus=tuple(gpu.subject for gpu in bench.gpus),
        first_token_warm_s=bench.first_token_warm_s,
        weights_mib=bench.weights_mib(),
        mib_awake=sum(bench.used_mib()),
    )


PARTS: Final = (Part(EngineStart, engine_start, START, found_too=True),)
