"""A prompt for a model that is not ours, and how far apart two answers to one are."""

from __future__ import annotations

import math
from typing import Final

from warmspare.control.vllm import Completion, Engine, EngineFailed

TEXT: Final = (
    "A spare wheel that nobody has ever tried is not a spare wheel. The one in the boot of this car was last looked at"
    " eleven years ago, by somebody who wanted to know what was making that noise."
)
PLAIN: Final = tuple(range(300, 340))
"""A prompt for an engine without a tokenizer's endpoint: numbers that every vocabulary has."""
EARLY: Final = 3
"""The place of the token that is changed for another prompt: all answers rest on it, through all that comes after."""


def apart(one: Completion, other: Completion) -> float:
    """The largest difference of a log-probability, place by place; 0 where there is nothing to compare.

    What is no number is infinitely far from everything.
    """
    differences = [abs(a - b) for a, b in zip(one.logprobs, other.logprobs, strict=False)]
    # max() keeps or drops one by its place.
    return math.inf if any(map(math.isnan, differences)) else max(differences, default=0.0)


def prompt_of(engine: Engine) -> tuple[int, ...]:
    """A prompt of some forty tokens for a model that is not ours; not one too short to change an early token of."""
    try:
        tokens = engine.tokenize(TEXT)[:40]
    except EngineFailed as failed:
        if failed.status is None:
            raise
        return PLAIN
    return tokens if len(tokens) > EARLY + 1 else PLAIN
