"""Questions as they stand in a transcript, and the answers that a machine gives to them."""

from __future__ import annotations

from typing import Any, Final

from warmspare.model.facts import Cause
from warmspare.model.transcript import Answer, Failed, Gave, Listed, Ran, Said, Verb

Question = tuple[Verb, tuple[str, ...]]
Answers = dict[Question, Answer]
Machines = dict[str, tuple[Answers, tuple[str, ...]]]
"""By name: what a machine answers, and where each format was seen."""

NVML_SAYS: Final = {
    2: "Invalid Argument",
    3: "Not Supported",
    9: "Driver Not Loaded",
    13: "Function Not Found",
    17: "The operating system has blocked the request.",
    999: "Unknown Error",
}
"""NVML's codes in the words of nvidia-ml-py."""


def ask(verb: Verb, *args: object) -> Question:
    """A question, as it stands in a transcript."""
    return verb, tuple(map(str, args))


def gave(value: Any) -> Gave:  # noqa: ANN401 # whatever NVML or an experiment gives
    """The answer that is a value."""
    return Gave(value)


def gone(what: str) -> Failed:
    """The answer about a thing that is not there."""
    return Failed(cause=None, detail=f"{what}: No such file or directory", code="ENOENT")


def ran(program: str, stdout: str, status: int = 0, stderr: str = "") -> Ran:
    """The answer of a command."""
    return Ran(program=program, status=status, stdout=stdout, stderr=stderr)


def files(texts: dict[str, str | None]) -> Answers:
    """Files with their text; None: not there."""
    return {ask("read", path): gone(path) if text is None else Said(text) for path, text in texts.items()}


def paths(there: dict[str, bool]) -> Answers:
    """Which paths exist."""
    return {ask("exists", path): Gave(value) for path, value in there.items()}


def folder(path: str, *names: str) -> Answers:
    """A folder's listing."""
    return {ask("list", path): Listed(tuple(sorted(names)))}


def not_installed(program: str, *calls: tuple[str, ...]) -> Answers:
    """A command that is not in PATH."""
    return {ask("run", program, *args): Failed(cause=None, detail=f"{program}: not found in PATH") for args in calls}


def nvml(call: str, *args: object, value: Any = None, code: int | None = None) -> Answers:  # noqa: ANN401 # as above
    """One answer of NVML: a value, or its refusal."""
    if code is None:
        return {ask("nvml", call, *args): Gave(value)}
    cause = Cause.DENIED if code == 4 else Cause.INVALID  # no permission
    return {ask("nvml", call, *args): Failed(cause=cause, detail=f"{call}: {NVML_SAYS[code]}", code=str(code))}
