"""The command line, as far as it matters here; what vLLM does not know is refused here too."""

from __future__ import annotations

import argparse
import os
from typing import Final

TAKEN: Final = [
    "max-num-seqs",
    "max-num-batched-tokens",
    "dtype",
    "load-format",
    "kv-cache-dtype",
    "quantization",
    "tokenizer",
    "uvicorn-log-level",
    "compilation-config",
    "speculative-config",
    "pipeline-parallel-size",
    "block-size",
    "swap-space",
    "api-server-count",
    "distributed-executor-backend",
    "kv-transfer-config",
    "lora-modules",
    "max-lora-rank",
    "attention-backend",
    "optimization-level",
    "hf-overrides",
    "revision",
    "shutdown-timeout",
]  # words
SWITCHES: Final = [
    "enforce-eager",
    "trust-remote-code",
    "enable-lora",
    "enable-prefix-caching",
    "no-enable-prefix-caching",
    "async-scheduling",
    "no-async-scheduling",
    "enable-expert-parallel",
    "disable-custom-all-reduce",
    "disable-log-stats",
    "enable-chunked-prefill",
    "no-enable-chunked-prefill",
    "enable-log-requests",
    "no-enable-log-requests",
    "disable-uvicorn-access-log",
]  # words


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Read the flags; ends the process as vLLM does where one is unknown."""
    words = (os.environ.get("FAKE_VLLM") or "").split()  # words
    parser = argparse.ArgumentParser(prog="api_server.py", allow_abbrev=False)
    parser.add_argument("model_tag", nargs="?")
    parser.add_argument("--model", default="Qwen/Qwen3-0.6B")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int, default=8000)
    if "no-uds" not in words:
        parser.add_argument("--uds")
    if "no-sleep-flag" not in words:
        parser.add_argument("--enable-sleep-mode", action="store_true")
    parser.add_argument("--api-key", action="append")
    parser.add_argument("--served-model-name")
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--gpu-memory-utilization", type=float, default=0.92)
    parser.add_argument("--kv-cache-memory-bytes", type=int)
    parser.add_argument("--tensor-parallel-size", "-tp", type=int, default=1)
    parser.add_argument("--data-parallel-size", "-dp", type=int, default=1)
    for name in TAKEN:
        parser.add_argument(f"--{name}")
    for name in SWITCHES:
        parser.add_argument(f"--{name}", action="store_true")
    asked = parser.parse_args(arguments)
    asked.model = asked.model_tag or asked.model
    asked.uds = getattr(asked, "uds", None)
    return asked
