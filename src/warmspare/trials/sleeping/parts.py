"""How a part of the trial of Sleep Mode is declared and found.

A module of this folder names its parts in `PARTS`; that is all it takes to be found.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from warmspare.model.engine_flags import EngineFlags
from warmspare.model.facts import Proof
from warmspare.trials import sleeping
from warmspare.trials.sleeping.serving import ends_told

if TYPE_CHECKING:
    from warmspare.trials.sleeping.bench import Bench

ROOM, START, CYCLES, ORACLE = 0, 1, 2, 3
"""Stages of a part. From `CYCLES` on the engine runs; the oracle's controls come after the cycles, and before all else
that compares answers."""
REQUESTS, STATES, LEVEL_2, OTHER_ENGINES, LAST = 4, 5, 6, 7, 9
"""And these after it: what harms least comes first."""
END = 10
"""The engine is not needed any more, whether it still serves or not."""


class Part(msgspec.Struct, frozen=True):
    """A proof, how it is come by, and when: those of a lower stage first, then by their modules' names.

    `needs_full`: only with `--full`. `own_engine`: it starts engines of its own by `Bench.another`, and that of the
    bench is stopped for it. `fatal_ok`: the engine may not survive it although all is as known, so it is started anew
    for what follows, without being asked. `found_too`: it is also tried on an engine of the user's that is there.
    `meant`: whether the user's own flags use what it tries; then it is tried in the quick form, too.
    """

    proof: type[Proof]
    function: Callable[[Bench], Proof]
    stage: int
    needs_full: bool = False
    own_engine: bool = False
    fatal_ok: bool = False
    found_too: bool = False
    meant: Callable[[EngineFlags], bool] = lambda _: False

    def run(self, bench: Bench) -> Proof:
        """Try it.

        Raises:
            EngineFailed: the engine did not do something; `died` where it did not survive that.
        """
        with ends_told(bench):
            return self.function(bench)


def found() -> tuple[Part, ...]:
    """All parts, in the order in which they are tried."""
    names = sorted(info.name for info in pkgutil.iter_modules(sleeping.__path__))
    modules = [importlib.import_module(f"{sleeping.__name__}.{name}") for name in names]
    parts = [part for module in modules for part in getattr(module, "PARTS", ())]
    return tuple(sorted(parts, key=lambda part: part.stage))
