"""The engine's Python, for trials that run something in it."""

from __future__ import annotations

import os

from warmspare.control import engine_python
from warmspare.model.facts import Cause
from warmspare.trials.api import NotTried


def engines_python() -> engine_python.Python:
    """The one that the environment names, or that is found.

    Raises:
        NotTried: there is none, or it does not answer.
    """
    try:
        python = engine_python.find(os.environ)
    except engine_python.FailedError as error:
        raise NotTried(Cause(error.cause), f"the engine's Python: {error}") from None
    if python is None:
        raise NotTried(Cause.SKIPPED, "there is no Python where WARMSPARE_PYTHON says")
    return python
