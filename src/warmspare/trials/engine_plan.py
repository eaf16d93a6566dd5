"""What the user means to run: the model, what the flags say, and the level that it is put to sleep with."""

from __future__ import annotations

from typing import Literal

from warmspare.model.engine_flags import EngineFlags
from warmspare.model.facts import Fact, Text


class EnginePlan(Fact, frozen=True, kw_only=True):
    """As the command line has it; where nothing was said (`given` is False) the rest are vLLM's defaults.

    `serves`: it is an engine that is there already, of which nothing of this is known. `model` is a name, or the last
    part of a path; None: a model that is made on the spot, which is dense, of text alone and not quantized.
    """

    given: bool
    serves: bool = False
    model: Text | None = None
    flags: EngineFlags = EngineFlags()
    level: Literal[1, 2] = 1
