"""The bodies of vLLM 0.26.0's answers."""

from __future__ import annotations

import json
import time
import uuid
from http import HTTPStatus
from typing import Any

Json = Any


def error(status: int, message: str, kind: str | None = None, param: str | None = None) -> Json:
    """An error, as each of its handlers makes it."""
    kinds = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError"}
    kind = kind or kinds.get(status, HTTPStatus(status).phrase)
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def models(name: str, root: str, length: int) -> Json:
    """GET /v1/models."""
    may = {f"allow_{what}": what in {"sampling", "logprobs", "view"} for what in (
        "create_engine", "sampling", "logprobs", "search_indices", "view", "fine_tuning")}  # fmt: skip
    permission = {
        "id": f"modelperm-{uuid.uuid4().hex[:16]}", "object": "model_permission", "created": int(time.time()), **may,
        "organization": "*", "group": None, "is_blocking": False,
    }  # fmt: skip
    card = {
        "id": name, "object": "model", "created": int(time.time()), "owned_by": "vllm", "root": root, "parent": None,
        "max_model_len": length, "permission": [permission],
    }  # fmt: skip
    return {"object": "list", "data": [card]}


def logprobs(tokens: list[int], numbers: list[float], *, as_ids: bool) -> Json:
    """The logprobs of a completion."""
    names = [f"token_id:{token}" if as_ids else f" {token}" for token in tokens]
    return {
        "text_offset": [3 * n for n in range(len(tokens))],
        "token_logprobs": numbers,
        "tokens": names,
        "top_logprobs": [{name: number} for name, number in zip(names, numbers, strict=True)],
    }


def text_of(tokens: list[int]) -> str:
    """A text that these tokens stand for here."""
    return "".join(f" {token}" for token in tokens)


def choice(tokens: list[int], numbers: list[float], finish: str | None, asked: Json) -> Json:
    """What a whole answer and a piece of a stream have in common."""
    as_ids = bool(asked.get("return_tokens_as_token_ids"))
    return {
        "index": 0,
        "text": text_of(tokens),
        "logprobs": None if asked.get("logprobs") is None else logprobs(tokens, numbers, as_ids=as_ids),
        "finish_reason": finish,
        "stop_reason": None,
        "token_ids": None,
        "prompt_token_ids": None,
    }


def completion(number: str, model: str, one: Json, asked: Json, tokens: int) -> Json:
    """POST /v1/completions, as a whole."""
    prompt = len(asked["prompt"])
    usage = {"prompt_tokens": prompt, "total_tokens": prompt + tokens, "completion_tokens": tokens}
    return {
        "id": number, "object": "text_completion", "created": int(time.time()), "model": model,
        "choices": [one | {"prompt_logprobs": None, "routed_experts": None}], "service_tier": None,
        "system_fingerprint": "vllm-0.26.0-fake", "usage": usage | {"prompt_tokens_details": None},
        "kv_transfer_params": None, "ec_transfer_params": None, "metrics": None,
    }  # fmt: skip


def piece(number: str, model: str, one: Json) -> bytes:
    """One event of a stream."""
    body = {"id": number, "object": "text_completion", "created": int(time.time()), "model": model}
    body |= {"choices": [one]}
    if one["finish_reason"]:
        body["system_fingerprint"] = "vllm-0.26.0-fake"
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def metrics(states: tuple[str, ...], engines: int, name: str) -> str:
    """GET /metrics: what tells of sleep, and a line more."""
    lines = ["# HELP vllm:engine_sleep_state Engine sleep state.", "# TYPE vllm:engine_sleep_state gauge"]
    for state in ("awake", "weights_offloaded", "discard_all"):
        lines += [
            f'vllm:engine_sleep_state{{engine="{engine}",model_name="{name}",sleep_state="{state}"}} '
            f"{float(state in states)}"
            for engine in range(engines)
        ]
    lines += ["# TYPE vllm:num_requests_running gauge"]
    lines += [f'vllm:num_requests_running{{engine="{engine}",model_name="{name}"}} 0.0' for engine in range(engines)]
    return "\n".join(lines) + "\n"
