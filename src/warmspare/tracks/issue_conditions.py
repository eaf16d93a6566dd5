"""Under which conditions a known issue shows: flags, machine, model. Each holds, does not, or is unclear."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from warmspare.model.engine_flags import DETECTED, EngineFlags

Trait = Literal["dense", "hybrid", "multimodal", "calibrated-kv", "gemma-4-vision", "qwen3-llama-mistral"]
"""What a model is; whoever names a model does not tell us, and one that is made on the spot is known."""
MADE: Final[frozenset[Trait]] = frozenset({"dense", "qwen3-llama-mistral"})
PLAIN_KV: Final = frozenset({"bfloat16", "float16", "float32", "half", "bf16", "fp16"})


class When(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must hold for an issue besides the version; sizes are "at least", lists "one of". All must hold.

    `pins`: vLLM pins host memory under WSL2. `environment` is a setting that no flag tells: always unclear.
    """

    tensor_parallel: int | None = None
    pipeline_parallel: int | None = None
    data_parallel: int | None = None
    api_server_count: int | None = None
    lora: bool | None = None
    speculative: tuple[str, ...] | None = None
    kv_cache: Literal["quantized"] | None = None
    kv_offload: tuple[str, ...] | None = None
    kv_connector: tuple[str, ...] | None = None
    executor: tuple[str, ...] | None = None
    sleep_backend: tuple[str, ...] | None = None
    mm_encoder_tp_mode: tuple[str, ...] | None = None
    custom_all_reduce: bool | None = None
    level: Literal[1, 2] | None = None
    model: Trait | None = None
    platform: tuple[str, ...] | None = None
    rocm: bool | None = None
    pins: bool | None = None
    gpu: tuple[str, ...] | None = None
    environment: str | None = None


class Meant(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is to be run as, and where; None is what is not known.

    `made`: the model is made on the spot, None: nobody has said which model. `gpus` are product names.
    """

    flags: EngineFlags | None = None
    level: int | None = None
    made: bool | None = None
    platform: str | None = None
    rocm: bool | None = None
    pins: bool | None = None
    gpus: tuple[str, ...] | None = None


NAMES: Final[Mapping[str, str]] = {
    "tensor_parallel": "tensor parallelism",
    "pipeline_parallel": "pipeline parallelism",
    "data_parallel": "data parallelism",
    "api_server_count": "the number of API servers",
    "lora": "LoRA",
    "speculative": "speculative decoding",
    "kv_cache": "the type of the KV cache",
    "kv_offload": "KV offloading",
    "kv_connector": "the KV connector",
    "executor": "the executor",
    "sleep_backend": "the sleep backend",
    "mm_encoder_tp_mode": "--mm-encoder-tp-mode",
    "custom_all_reduce": "the custom all-reduce",
    "level": "the level of sleep",
    "model": "the model",
    "platform": "the platform",
    "rocm": "whether torch is for ROCm",
    "pins": "VLLM_WSL2_ENABLE_PIN_MEMORY",
    "gpu": "the kind of GPU",
}
"""What a condition is about, as a report names it where it is unclear."""


def unmet_or_unclear(when: When, meant: Meant) -> tuple[str, ...] | None:
    """None where a condition is known not to hold; else the names of those that are unclear."""
    unclear = []
    for name, wanted in _asked(when):
        holds = _holds(name, wanted, meant)
        if holds is False:
            return None
        if holds is None:
            unclear.append(_named(name, wanted))
    return tuple(unclear)


def _asked(when: When) -> Iterator[tuple[str, Any]]:
    values = ((name, getattr(when, name)) for name in when.__struct_fields__)
    return ((name, wanted) for name, wanted in values if wanted is not None)


def _named(name: str, wanted: object) -> str:
    if name == "environment":
        return str(wanted)
    return f"whether the model is {wanted}" if name == "model" else NAMES[name]


def _holds(name: str, wanted: Any, meant: Meant) -> bool | None:  # noqa: ANN401 # as the field of When has it
    if name in OF_MEANT:
        return OF_MEANT[name](wanted, meant)
    field = "kv_cache_dtype" if name == "kv_cache" else name
    if meant.flags is None or field in meant.flags.unclear:
        return None
    value = getattr(meant.flags, field)
    if name == "api_server_count" and value is None and _one_rank(meant.flags):
        value = 1  # with several ranks, later versions start one a rank
    return _by_flag(name, wanted, value, made=bool(meant.made))


def _one_rank(flags: EngineFlags) -> bool:
    return "data_parallel" not in flags.unclear and flags.data_parallel == 1


def _by_flag(name: str, wanted: Any, value: Any, *, made: bool) -> bool | None:  # noqa: ANN401 # likewise
    if name == "kv_cache":
        # A checkpoint may ask for a quantized cache by itself; ours does not.
        return (False if made else None) if value == "auto" else value not in PLAIN_KV
    if name == "speculative":
        return None if value == DETECTED else _is_method(value, wanted)
    if isinstance(wanted, bool):
        return bool(value == wanted)
    if isinstance(wanted, int):
        return None if value is None else bool(value >= wanted)
    return value in wanted


def _is_method(value: str | None, wanted: tuple[str, ...]) -> bool:
    """`deepseek_mtp` is one of "mtp"."""
    return value is not None and any(value == one or value.endswith(f"_{one}") for one in wanted)


def _level(wanted: int, meant: Meant) -> bool | None:
    return None if meant.level is None else meant.level == wanted


def _model(wanted: Trait, meant: Meant) -> bool | None:
    return wanted in MADE if meant.made else None


def _platform(wanted: tuple[str, ...], meant: Meant) -> bool | None:
    return None if meant.platform is None else meant.platform in wanted


def _rocm(wanted: bool, meant: Meant) -> bool | None:  # noqa: FBT001 # a table's entry
    return None if meant.rocm is None else meant.rocm == wanted


def _pins(wanted: bool, meant: Meant) -> bool | None:  # noqa: FBT001 # likewise
    return None if meant.pins is None else meant.pins == wanted


def _gpu(wanted: tuple[str, ...], meant: Meant) -> bool | None:
    return None if meant.gpus is None else any(kind in gpu for gpu in meant.gpus for kind in wanted)


def _environment(_wanted: str, _meant: Meant) -> None:
    """Nobody can tell from here what will be set when the engine is started."""


OF_MEANT: Final[Mapping[str, Callable[[Any, Meant], bool | None]]] = {
    "level": _level,
    "model": _model,
    "platform": _platform,
    "rocm": _rocm,
    "pins": _pins,
    "gpu": _gpu,
    "environment": _environment,
}
