"""What the journal knows of an engine that was put to sleep before its processes were suspended: it is owed a wake.

An engine that was found asleep is owed none.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Final, Self

import msgspec

from warmspare.control.target import Target
from warmspare.runtime import cards as gpus
from warmspare.runtime import guards
from warmspare.runtime.cards import Card
from warmspare.runtime.guards import Mib, Refusal
from warmspare.runtime.journal import Journal
from warmspare.runtime.operations import Operation
from warmspare.runtime.unit import summed

ENGINE: Final = "engine"
"""The detail of an operation that names the engine, as its user did."""
SLEPT: Final = "slept"
"""The detail that says who put it to sleep: US, or FOUND where it slept already."""
US: Final = "us"
FOUND: Final = "found"
AWAKE: Final = "awake"
"""The detail that says how many MiB it held on which GPU before it slept: {uuid: MiB}."""
ASLEEP: Final = "asleep"
"""The detail that says how much of that it still held when it slept; it is there only if it did."""
TOKENS: Final = "tokens"
"""The detail that says what it answered before it slept."""
SETTLED: Final = {("suspend", "undone"), ("suspend", "failed"), ("resume", "done")}
"""Operations after which it is owed nothing."""


class Owed(msgspec.Struct, frozen=True, kw_only=True):
    """An engine that sleeps because this tool put it to sleep.

    `targets` is the tree that was suspended, the root first; `cuda` the pids in it that the driver was called for.
    `awake` and `asleep` are what it held on which GPU, None where nobody told, or where it is not known to have slept.
    """

    url: str
    awake: Mib | None
    asleep: Mib | None
    tokens: tuple[int, ...] | None
    targets: tuple[Target, ...]
    cuda: tuple[int, ...]

    @classmethod
    def by(cls, operation: Operation) -> Self | None:
        """What an operation says of it; None if the engine is not ours to wake."""
        told = operation.detail
        if told.get(SLEPT) != US:
            return None
        return cls(
            url=told[ENGINE],
            awake=json.loads(told[AWAKE]) if AWAKE in told else None,
            asleep=json.loads(told[ASLEEP]) if ASLEEP in told else None,
            tokens=tuple(json.loads(told[TOKENS])) if TOKENS in told else None,
            targets=operation.targets,
            cuda=operation.cuda,
        )

    @property
    def pid(self) -> int:
        """The server's root."""
        return self.targets[0].pid

    @property
    def detail(self) -> dict[str, str]:
        """What an operation that goes on with it writes down, so that it is not forgotten if that fails."""
        return {**detail(self.url, US, self.tokens), **held(self.awake, self.asleep)}

    def against(self, shown: Sequence[Card], running: Collection[int]) -> tuple[Refusal, ...]:
        """What speaks against waking it; `running` are those of its processes that are not suspended."""
        return guards.before_wake(self._needed(shown, running), gpus.free(shown))

    def _needed(self, shown: Sequence[Card], running: Collection[int]) -> Mib | None:
        """What a wake takes beyond what they hold."""
        has: Mib | None
        if not running:
            has = {}
        elif self.asleep is not None and set(running) == set(self.cuda):
            has = self.asleep
        else:
            has = summed(gpus.vram(shown, running))
        if self.awake is None or has is None:
            return None
        return {gpu: mib - has.get(gpu, 0) for gpu, mib in self.awake.items()}


def detail(url: str, slept: str, tokens: Sequence[int] | None) -> dict[str, str]:
    """What is written down of an engine before it is put to sleep; nothing of what is not known."""
    return {ENGINE: url, SLEPT: slept, **({} if tokens is None else {TOKENS: json.dumps(list(tokens))})}


def held(awake: Mib | None, asleep: Mib | None) -> dict[str, str]:
    """The same of what it holds."""
    known = {AWAKE: awake, ASLEEP: asleep}
    return {name: json.dumps(dict(mib)) for name, mib in known.items() if mib is not None}


def owed(journal: Journal, tree: Sequence[Target]) -> Owed | None:
    """The engine that was put to sleep before one of these was suspended, and has not been woken since.

    Raises:
        JournalFailed: the journal cannot be read.
    """
    for one in tree:
        past = journal.last_with(one, ENGINE)
        if past and (past.action, past.outcome) not in SETTLED and (found := Owed.by(past)):
            return found
    return None
