"""The transcript: every question put to a machine, with its answer. Enough to ask them again later."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from warmspare.model.facts import Cause, Seconds, Text

Verb = Literal["read", "list", "exists", "run", "nvml", "symbol", "experiment"]
Argument = Annotated[str, msgspec.Meta(max_length=4096)]


class _Answer(msgspec.Struct, frozen=True, tag_field="is", forbid_unknown_fields=True):
    pass


class Said(_Answer, frozen=True, tag="said"):
    """A file's text."""

    text: Text


class Listed(_Answer, frozen=True, tag="listed"):
    """The sorted names in a folder."""

    names: Annotated[tuple[Argument, ...], msgspec.Meta(max_length=65_536)]


class Ran(_Answer, frozen=True, tag="ran", kw_only=True):
    """A command that ended: the program that ran, its exit status (negative: a signal) and its output."""

    program: Argument
    status: int
    stdout: Text = ""
    stderr: Text = ""

    @property
    def output(self) -> str:
        """Both streams, standard output first."""
        return self.stdout + self.stderr


class Gave(_Answer, frozen=True, tag="gave"):
    """A value from NVML, a library or an experiment."""

    value: Any


class Failed(_Answer, frozen=True, tag="failed", kw_only=True):
    """No answer. `cause` is None where the thing asked about is not there, which is itself known."""

    cause: Cause | None
    detail: Text = ""
    code: Text | None = None


Answer: TypeAlias = Said | Listed | Ran | Gave | Failed


class Call(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question and its answer, with the wall time it took."""

    verb: Verb
    args: Annotated[tuple[Argument, ...], msgspec.Meta(max_length=64)]
    answer: Answer
    took_s: Seconds = 0.0
