"""What is read of a vLLM command line, and what is left unclear."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import pytest

from warmspare.model.engine_flags import DETECTED, FIELDS, EngineFlags, parse

PLAIN: Final = EngineFlags()


def changed(*flags: str) -> dict[str, Any]:
    """What differs from no flags at all."""
    found, plain = (msgspec.to_builtins(one) for one in (parse(flags), PLAIN))
    return {name: value for name, value in found.items() if value != plain[name]}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), {}),
        (("-tp", "2"), {"tensor_parallel": 2}),
        (("-tp=2",), {"tensor_parallel": 2}),
        (("--tensor-parallel-size", "4", "-pp", "2"), {"tensor_parallel": 4, "pipeline_parallel": 2}),
        (("-dp", "3"), {"data_parallel": 3}),
        (("--tensor_parallel_size=4",), {"tensor_parallel": 4}),
        (("-tp", "2", "-tp", "8"), {"tensor_parallel": 8}),
        (("some/model", "--enable-lora", "--enforce_eager"), {"lora": True, "enforce_eager": True}),
        (("--enable-lora", "--no-enable-lora"), {}),
        (("--no-async-scheduling",), {"async_scheduling": False}),
        (("--disable-custom-all-reduce",), {"custom_all_reduce": False}),
        (("--kv-cache-dtype", "fp8_e5m2"), {"kv_cache_dtype": "fp8_e5m2"}),
        (("--calculate-kv-scales",), {"kv_scales_calculated": True}),
        (("-q", "awq", "--load-format", "dummy"), {"quantization": "awq", "load_format": "dummy"}),
        (("--cpu-offload-gb", "0.5"), {"cpu_offload": True}),
        (("--cpu-offload-gb", "0"), {}),
        (("--distributed-executor-backend=ray", "-asc", "2"), {"executor": "ray", "api_server_count": 2}),
        (("--speculative-config", '{"method": "mtp", "num_speculative_tokens": 2}'), {"speculative": "mtp"}),
        (("-sc", '{"model": "some/draft"}'), {"speculative": DETECTED}),
        (("--speculative-config.method", "eagle3", "--speculative-config.depth=2"), {"speculative": "eagle3"}),
        (("--spec-method=ngram",), {"speculative": "ngram"}),
        (("--speculative_model", "[ngram]"), {"speculative": "ngram"}),
        (("--kv-offloading-size", "8"), {"kv_offload": "native"}),
        (("--kv-offloading-size", "8", "--kv-offloading-backend", "lmcache"), {"kv_offload": "lmcache"}),
        (("--kv-offloading-backend", "native"), {}),
        (("--kv-transfer-config", '{"kv_connector": "NixlConnector"}'), {"kv_connector": "NixlConnector"}),
        (("--mm-encoder-tp-mode", "data"), {"mm_encoder_tp_mode": "data"}),
    ],
)  # fmt: skip
def test_what_is_understood(flags: tuple[str, ...], said: dict[str, Any]) -> None:
    assert changed(*flags) == said


@pytest.mark.parametrize(
    ("flags", "unclear"),
    [
        (("-tp", "two"), {"tensor_parallel"}),
        (("-tp", "0"), {"tensor_parallel"}),
        (("-tp", "9" * 5000), {"tensor_parallel"}),
        (("-tp",), {"tensor_parallel"}),
        (("-tp", "--enable-lora"), {"tensor_parallel"}),
        (("-dp", "-1"), {"data_parallel"}),
        (("-dp", "2", "-dp", "x"), {"data_parallel"}),
        (("--enable-lora=true",), {"lora"}),
        (("--tensor-par", "2"), {"tensor_parallel"}),
        (("--no-enf",), {"enforce_eager"}),
        (("--cpu-offload-gb", "nan"), {"cpu_offload"}),
        (("--speculative-config", "{"), {"speculative"}),
        (("--speculative-config", "[1]"), {"speculative"}),
        (("--speculative-config", '{"method": 5}'), {"speculative"}),
        (("--spec", "x"), {"speculative"}),
        (("--kv-cache-dtype", ""), {"kv_cache_dtype"}),
        (("--kv-cache-dtype", "\udc80"), {"kv_cache_dtype"}),
        (("--kv-cache-dtype", "x" * 257), {"kv_cache_dtype"}),
        (("--config", "file.yaml"), FIELDS),
        (("--config", "file.yaml", "-tp", "2"), FIELDS - {"tensor_parallel"}),
    ],
)
def test_what_is_not_understood_makes_its_field_unclear(flags: tuple[str, ...], unclear: set[str]) -> None:
    assert set(parse(flags).unclear) == unclear


def test_flags_that_are_not_known_are_kept_without_their_values() -> None:
    found = parse(("some/model", "--api-key", "a-secret", "--hf-token=another", "--Odd\udc80", "-x"))
    assert found.others == ("--api-key", "--hf-token", "--Odd?", "-x")
    assert found == msgspec.structs.replace(PLAIN, others=found.others)
    assert b"secret" not in msgspec.json.encode(found)


@pytest.mark.parametrize(("flags", "gpus"), [((), 1), (("-tp", "2", "-dp", "2"), 4), (("-tp", "x", "-dp", "2"), None)])
def test_how_many_gpus_it_takes(flags: tuple[str, ...], gpus: int | None) -> None:
    assert parse(flags).gpus == gpus


def test_it_survives_json() -> None:
    found = parse(("-tp", "2", "--config", "x", "--odd"))
    assert msgspec.json.decode(msgspec.json.encode(found), type=EngineFlags) == found
