"""What a vLLM command line means for sleeping: how it is spread over GPUs, and which features it turns on.

Only what bears on Sleep Mode is read. A flag that is not understood makes the field that it is about unclear, and
nothing is guessed; values of flags that are not known here are not kept, since they may be secrets.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, TypeAlias

import msgspec

Value: TypeAlias = str | int | bool | None
Size = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Word = Annotated[str, msgspec.Meta(max_length=256)]
DETECTED: Final = "detected"
"""The method of speculative decoding where vLLM takes it from the draft model."""
NATIVE: Final = "native"


class EngineFlags(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the flags say; a field whose flag was not given has vLLM's default, None where that differs by version.

    `unclear` names the fields of which a flag was not understood: their values mean nothing. `others` are the
    flags that are not read here, without their values.
    """

    tensor_parallel: Size = 1
    pipeline_parallel: Size = 1
    data_parallel: Size = 1
    lora: bool = False
    speculative: Word | None = None
    kv_cache_dtype: Word = "auto"
    kv_scales_calculated: bool = False
    kv_offload: Word | None = None
    kv_connector: Word | None = None
    quantization: Word | None = None
    load_format: Word = "auto"
    cpu_offload: bool = False
    enforce_eager: bool = False
    api_server_count: Size | None = None
    executor: Word | None = None
    custom_all_reduce: bool = True
    async_scheduling: bool | None = None
    mm_encoder_tp_mode: Word = "weights"
    sleep_backend: Word = "cumem"
    unclear: tuple[Word, ...] = ()
    others: tuple[Word, ...] = ()

    @property
    def gpus(self) -> int | None:
        """How many GPUs it takes on this machine; None where that is unclear."""
        if {"tensor_parallel", "pipeline_parallel", "data_parallel"} & set(self.unclear):
            return None
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel


def _size(text: str) -> Value:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:8]) <= 1_000_000:  # noqa: PLR2004 # as Size has it
        raise ValueError(text)
    return int(text)


def _word(text: str) -> Value:
    if not text or len(text) > 256 or text != text.encode(errors="replace").decode():  # noqa: PLR2004 # as Word has it
        raise ValueError(text)
    return text


def _is_some(text: str) -> Value:
    amount = float(text)
    if not math.isfinite(amount) or amount < 0:
        raise ValueError(text)
    return amount > 0


Read: TypeAlias = Callable[[str], Value]
VALUED: Final[Mapping[str, tuple[str, Read]]] = {
    "tensor-parallel-size": ("tensor_parallel", _size),
    "pipeline-parallel-size": ("pipeline_parallel", _size),
    "data-parallel-size": ("data_parallel", _size),
    "kv-cache-dtype": ("kv_cache_dtype", _word),
    "kv-offloading-backend": ("offload_backend", _word),
    "kv-offloading-size": ("offload_size", _is_some),
    "quantization": ("quantization", _word),
    "load-format": ("load_format", _word),
    "cpu-offload-gb": ("cpu_offload", _is_some),
    "api-server-count": ("api_server_count", _size),
    "distributed-executor-backend": ("executor", _word),
    "mm-encoder-tp-mode": ("mm_encoder_tp_mode", _word),
    "sleep-mode-backend": ("sleep_backend", _word),
    "spec-method": ("spec_method", _word),
    "spec-model": ("spec_model", _word),
    "speculative-model": ("spec_model", _word),
}
SWITCHES: Final[Mapping[str, tuple[str, bool]]] = {
    "enable-lora": ("lora", True),
    "enforce-eager": ("enforce_eager", True),
    "disable-custom-all-reduce": ("custom_all_reduce", False),
    "async-scheduling": ("async_scheduling", True),
    "calculate-kv-scales": ("kv_scales_calculated", True),
}
CONFIGS: Final[Mapping[str, Mapping[str, str]]] = {
    "speculative-config": {"method": "spec_method", "model": "spec_model"},
    "kv-transfer-config": {"kv_connector": "kv_connector"},
}
"""Flags whose value is JSON, and the keys of it that count."""
SHORT: Final[Mapping[str, str]] = {
    "-tp": "tensor-parallel-size",
    "-pp": "pipeline-parallel-size",
    "-dp": "data-parallel-size",
    "-q": "quantization",
    "-asc": "api-server-count",
    "-sc": "speculative-config",
}
MADE_OF: Final[Mapping[str, str]] = {
    "offload_backend": "kv_offload",
    "offload_size": "kv_offload",
    "spec_method": "speculative",
    "spec_model": "speculative",
}
"""Fields that several flags make together."""
FIELDS: Final = frozenset(EngineFlags.__struct_fields__) - {"unclear", "others"}
FILE: Final = "config"
"""A file with more flags, which is not read: whatever the command line leaves open is unclear."""


def parse(flags: Sequence[str]) -> EngineFlags:
    """Read `--a b`, `--a=b`, `--a_b`, `--no-a`, `-tp 2`, `--config.key value` and JSON; of a flag given twice the last.

    Source: vllm/engine/arg_utils.py, vllm/utils/argparse_utils.py (0.26.0); argparse allows abbreviations.
    """
    found = _Found()
    waiting = list(reversed(flags))
    while waiting:
        flag = waiting.pop()
        if not flag.startswith("-") or flag in ("-", "--"):
            continue  # the model, or the value of a flag that is not known here
        name, given, value = flag.partition("=")
        name = SHORT.get(name, _plain(name))
        if name in SWITCHES or _without_no(name) in SWITCHES:
            found.switch(name, well=not given)
            continue
        if not found.wants_value(name):
            found.other(name)
            continue
        if not given and waiting and not _is_flag(waiting[-1]):
            given, value = "=", waiting.pop()
        found.take(name, value if given else None)
    return found.flags()


def _plain(name: str) -> str:
    """`--kv_cache_dtype` as `kv-cache-dtype`; what follows a dot keeps its underscores."""
    head, dot, key = name.removeprefix("--").partition(".")
    return head.replace("_", "-") + dot + key


def _without_no(name: str) -> str:
    return name.removeprefix("no-")


def _is_flag(word: str) -> bool:
    return word.startswith("-") and len(word) > 1 and not word[1].isdigit()


class _Found:
    """What was understood so far, and which fields were not."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}
        self.unclear: set[str] = set()
        self.others: dict[str, None] = {}

    def wants_value(self, name: str) -> bool:
        """Whether it is a flag of ours that takes one."""
        return name in VALUED or name.partition(".")[0] in CONFIGS or name == FILE

    def switch(self, name: str, *, well: bool) -> None:
        """`--enable-lora` or `--no-enable-lora`, which take no value."""
        field, on = SWITCHES.get(name) or SWITCHES[_without_no(name)]
        if well:
            self.values[field] = on if name in SWITCHES else not on
        else:
            self.unclear.add(field)

    def take(self, name: str, value: str | None) -> None:
        """A flag with its value; None where it has none."""
        head, _, key = name.partition(".")
        if head in CONFIGS:
            self._config(head, key, value)
        elif name == FILE:
            self.others[f"--{FILE}"] = None
        else:
            field, read = VALUED[name]
            self._put(field, read, value)

    def other(self, name: str) -> None:
        """A flag that is not known here; if it abbreviates one that is, that one's field is unclear."""
        said = name if name.startswith("-") else f"--{name}"
        self.others[said[:256].encode(errors="replace").decode()] = None
        for known, fields in _abbreviated(name):
            if known != name:
                self.unclear |= {MADE_OF.get(field, field) for field in fields}

    def flags(self) -> EngineFlags:
        """All of it."""
        values = {name: value for name, value in self.values.items() if name in FIELDS}
        method, model = self.values.get("spec_method"), self.values.get("spec_model")
        if method or model:
            values["speculative"] = "ngram" if model == "[ngram]" else method or DETECTED
        if self.values.get("offload_size"):
            values["kv_offload"] = self.values.get("offload_backend") or NATIVE
        left_open = FIELDS - {MADE_OF.get(field, field) for field in self.values}
        unclear = sorted(self.unclear | (left_open if f"--{FILE}" in self.others else set()))
        return msgspec.convert({**values, "unclear": tuple(unclear), "others": tuple(self.others)}, EngineFlags)

    def _put(self, field: str, read: Read, value: str | None) -> None:
        try:
            self.values[field] = read(value or "")
        except ValueError:
            self.unclear.add(MADE_OF.get(field, field))

    def _config(self, name: str, key: str, value: str | None) -> None:
        keys = CONFIGS[name]
        if key:
            if key in keys:
                self._put(keys[key], _word, value)
            return
        try:
            read: Any = json.loads(value or "")
        except ValueError:
            read = None
        if not isinstance(read, dict):
            self.unclear |= {MADE_OF.get(field, field) for field in keys.values()}
            return
        for one, field in keys.items():
            if (said := read.get(one)) is not None:
                self._put(field, _word, said if isinstance(said, str) else "")


def _abbreviated(name: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The flags that argparse may take this for, and their fields."""
    if name.startswith("-") or not name:
        return
    for known, (field, _) in (*VALUED.items(), *SWITCHES.items()):
        if known.startswith(name) or f"no-{known}".startswith(name):
            yield known, (field,)
    for known, keys in CONFIGS.items():
        if known.startswith(name.partition(".")[0]):
            yield known, tuple(keys.values())
