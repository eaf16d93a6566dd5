"""The tool, dead at one point as by kill -9: `killed.py MODULE:NAME before|after ARG…`, a function that it calls."""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from warmspare.cli.main import main


def dying(function: Callable[..., Any], when: str) -> Callable[..., Any]:
    """The same function, in which the process dies."""

    @functools.wraps(function)
    def dies(*args: Any, **more: Any) -> Any:  # noqa: ANN401 # whatever it takes
        if when == "after":
            function(*args, **more)
        os.kill(os.getpid(), signal.SIGKILL)

    return dies


if __name__ == "__main__":
    place, when, *sys.argv[1:] = sys.argv[1:]
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(f"warmspare.{module}")
    for one in owners:
        owner = getattr(owner, one)
    setattr(owner, name, dying(getattr(owner, name), when))
    main()
