"""A vLLM started with Sleep Mode, to its first token; or the one that the user has running, found."""

from __future__ import annotations

from warmspare.model.facts import Count, Proof, Seconds, Subject, Text


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
