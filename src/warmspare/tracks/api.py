"""How tracks, remedies and claims are found: a track is one file here with a `TRACK` in it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import tomllib
import types
from importlib import resources
from typing import Literal

import msgspec

from warmspare.model.tracks import Track


class Remedy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to do about an unmet requirement, what that changes, and what it takes."""

    do: str
    changes: str
    effort: Literal["seconds", "minutes", "restart", "hardware", "none"]


class Claim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A claim of the report this project began with, what tracing it showed, and what settles it."""

    id: str
    track: str
    says: str
    report: str
    cites: str
    status: Literal["confirmed", "wrong", "outdated", "misattributed", "unproven", "partly"]
    traced: str
    sources: tuple[str, ...]
    settled_by: str


def discover(package: types.ModuleType) -> dict[str, tuple[str, Track]]:
    """Every module of `package` that has a TRACK, as id → (question, track), in the order of their names.

    Raises:
        ValueError: a track's module has no docstring to take the question from.
    """
    found = {}
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        if isinstance(track := getattr(module, "TRACK", None), Track):
            question = (inspect.getdoc(module) or "").split("\n\n")[0].replace("\n", " ")
            if not question:
                message = f"track {info.name} asks no question: its docstring is empty"
                raise ValueError(message)
            found[info.name.replace("_", "-")] = (question, track)
    return found


def remedies() -> dict[str, Remedy]:
    """All remedies by id."""
    return msgspec.convert(_toml("remedies.toml"), dict[str, Remedy])


def claims() -> dict[str, Claim]:
    """All claims by id."""
    listed = msgspec.convert(_toml("claims.toml")["claim"], list[Claim])
    return {claim.id: claim for claim in listed}


def _toml(name: str) -> dict[str, object]:
    return tomllib.loads(resources.files("warmspare.tracks").joinpath(name).read_text(encoding="utf-8"))
