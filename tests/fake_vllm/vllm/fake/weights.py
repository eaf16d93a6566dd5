"""The weights of a model folder: only which bytes they are matters, and how many."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

UNNAMED_BYTES: Final = 64 * 2**20
"""The size of a model that is only a name."""
LEAST_BYTES: Final = 2**20
CHUNK: Final = 2**20
NOTHING: Final = b""
"""The weights of memory that nothing was loaded into."""


def _files(model: str) -> list[Path]:
    return sorted(Path(model).glob("*.safetensors")) if Path(model).is_dir() else []


def size_of(model: str) -> int:
    """Bytes."""
    return max(sum(file.stat().st_size for file in _files(model)), LEAST_BYTES) if _files(model) else UNNAMED_BYTES


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while chunk := opened.read(CHUNK):
            yield chunk


def read(model: str) -> bytes:
    """What stands for the weights: one bit elsewhere in any file, and it is another.

    Raises:
        OSError: there is no such folder, or nothing in it.
    """
    digest = hashlib.blake2b(digest_size=16)
    if not _files(model):
        if model.startswith((".", "/")):
            message = f"{model}: no such model"
            raise OSError(message)
        digest.update(model.encode())
    for file in _files(model):
        for chunk in _chunks(file):
            digest.update(chunk)
    return digest.digest()


def config(model: str) -> dict[str, Any]:
    """config.json, or nothing."""
    try:
        found = json.loads(Path(model, "config.json").read_text())
    except (OSError, ValueError):
        found = {}
    return found if isinstance(found, dict) else {}


def token(weights: bytes, prompt: list[int], place: int, vocabulary: int) -> tuple[int, float]:
    """The token at a place behind a prompt, and its logprob: all of it a function of these arguments."""
    if weights == NOTHING:
        return 0, 0.0
    text = json.dumps([prompt, place]).encode()
    number = int.from_bytes(hashlib.blake2b(text, key=weights, digest_size=8).digest(), "big")
    return number % vocabulary, -((number >> 32) % 100_000) / 20_000
