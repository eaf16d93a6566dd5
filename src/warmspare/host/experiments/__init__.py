"""Named multi-step experiments, one a file: what this kernel and this process may do, found by doing it.

Each module has one public function, ``run() -> dict[str, object]``, and its answer is small and JSON-able.
An ability answers ``{"works": bool, "errno": "EPERM" | None, "detail": str}``: a refusal is an answer,
never an exception. Run them in a killable child process with a deadline: they fork, trace and load drivers.
"""

import importlib
import pkgutil
from typing import cast


def names() -> tuple[str, ...]:
    """Return the names of all experiments, sorted; a new file in this folder is one more."""
    return tuple(sorted(found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_")))


def run(name: str) -> dict[str, object]:
    """Run one experiment in this process and return its answer.

    Raises:
        ValueError: no experiment has this name. Names are looked up in `names()`, so that a name from outside
            (a recording, a command line) never decides what is imported.
        UnknownMachine: its system calls are not numbered here for this machine, so nothing was tried.
    """
    if name not in names():
        message = f"no experiment is called {name!r}"
        raise ValueError(message)
    return cast("dict[str, object]", importlib.import_module(f"{__name__}.{name}").run())
