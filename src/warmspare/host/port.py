"""The host as a port with few verbs.

Exceptions that a verb may raise:

    Unreadable      no answer, with its cause; the probe's reading becomes Absent
      Missing       the thing asked about is not there: a fact for the probe to state
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator
from typing import Any, Final, NoReturn

from warmspare.model.facts import Cause
from warmspare.model.transcript import Answer, Failed, Gave, Listed, Ran, Said, Verb

DEADLINE_S: Final[dict[Verb, float]] = {
    "read": 2.0,
    "list": 2.0,
    "exists": 2.0,
    "run": 10.0,
    "nvml": 10.0,
    "symbol": 10.0,
    "experiment": 10.0,
}
"""How long a verb may take before the child that asks is killed, in seconds."""
SLOW: Final[tuple[tuple[Verb, tuple[str, ...]], ...]] = (
    ("experiment", ("cuda_count",)),
    ("run", ("criu", "check", "--all")),
    ("run", ("criu", "check", "--feature", "seccomp_suspend")),
    ("run", ("docker", "--version")),
)
"""Questions begun before the others, side by side: cuInit takes over a second on a host with four GPUs."""


class Unreadable(Exception):
    """The machine gave no answer; `cause` says why, and nothing about the machine follows."""

    def __init__(self, cause: Cause, detail: str, code: str | None = None) -> None:
        """Carry the cause, one line of detail, and the raw code if there is one."""
        super().__init__(detail)
        self.cause, self.detail, self.code = cause, detail, code


class Missing(Unreadable):
    """The file, folder, command or library is not there: that is known."""

    def __init__(self, detail: str) -> None:
        """Say what is not there."""
        super().__init__(Cause.INVALID, f"not there: {detail}")


class Host(abc.ABC):
    """Asks a machine, or a recording of one. Every answer stands in the transcript."""

    def __init__(self) -> None:
        """Start with nobody watching."""
        self._watchers: list[set[int]] = []

    @abc.abstractmethod
    def ask(self, verb: Verb, args: tuple[str, ...]) -> tuple[int, Answer]:
        """Put one question; returns the answer and its place in the transcript (-1: in none)."""

    @contextlib.contextmanager
    def watching(self) -> Iterator[set[int]]:
        """Collect the transcript places of everything asked inside, as evidence."""
        refs: set[int] = set()
        self._watchers.append(refs)
        try:
            yield refs
        finally:
            self._watchers.remove(refs)

    def _answer(self, verb: Verb, *args: str) -> Answer:
        place, answer = self.ask(verb, args)
        if place >= 0:
            for refs in self._watchers:
                refs.add(place)
        if isinstance(answer, Failed):
            if answer.cause is None:
                raise Missing(answer.detail)
            raise Unreadable(answer.cause, answer.detail, answer.code)
        return answer

    def read(self, path: str) -> str:
        """The text of a file (`.gz` unpacked), its first 64 Ki characters."""
        answer = self._answer("read", path)
        return answer.text if isinstance(answer, Said) else _odd("read", answer)

    def list(self, path: str) -> tuple[str, ...]:
        """The sorted names in a folder."""
        answer = self._answer("list", path)
        return answer.names if isinstance(answer, Listed) else _odd("list", answer)

    def exists(self, path: str) -> bool:
        """Whether a path is there."""
        answer = self._answer("exists", path)
        return bool(answer.value) if isinstance(answer, Gave) else _odd("exists", answer)

    def run(self, program: str, *args: str) -> Ran:
        """Run a command to its end, without a shell, and keep its status and output."""
        answer = self._answer("run", program, *args)
        return answer if isinstance(answer, Ran) else _odd("run", answer)

    def nvml(self, call: str, *args: int) -> Any:  # noqa: ANN401 # whatever NVML gives
        """The value of an NVML query; a first argument of a nvmlDeviceGet… call is the device's index."""
        answer = self._answer("nvml", call, *map(str, args))
        return answer.value if isinstance(answer, Gave) else _odd("nvml", answer)

    def symbol(self, library: str, name: str) -> bool:
        """Whether a shared library exports a symbol; Missing if the library cannot be loaded."""
        answer = self._answer("symbol", library, name)
        return bool(answer.value) if isinstance(answer, Gave) else _odd("symbol", answer)

    def experiment(self, name: str) -> dict[str, Any]:
        """The answer of a named experiment, run in a killable child of its own."""
        answer = self._answer("experiment", name)
        value = answer.value if isinstance(answer, Gave) else None
        return value if isinstance(value, dict) else _odd("experiment", answer)


def _odd(verb: str, answer: Answer) -> NoReturn:
    raise Unreadable(Cause.INVALID, f"{verb} was answered with {type(answer).__name__}")
