"""The work behind `warmspare known-issues`: the engine that is meant, the list, and its JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Final

import msgspec

from warmspare import survey
from warmspare.cli.errors import Refused
from warmspare.cli.output import Sinks, say
from warmspare.cli.progress import Progress
from warmspare.cli.session import need_linux
from warmspare.model import engine_flags
from warmspare.model.facts import Known, Readings
from warmspare.probes.gpu import GpuIdentity
from warmspare.probes.gpus import GPU, Gpus
from warmspare.probes.platform import Platform
from warmspare.probes.software import EnginePython, PythonPackages
from warmspare.report.view import clean
from warmspare.tracks import known_issues
from warmspare.tracks.issue_conditions import Meant
from warmspare.tracks.known_issues import Match, Version

PREFIX: Final = "vllm=="
WIDTH: Final = 80
NOT_HERE: Final = "vLLM is not installed in the engine's Python; name a version, such as --engine vllm==0.26.0"
NOT_A_VERSION: Final = "--engine takes vllm==VERSION, such as vllm==0.26.0, not {said}"
NO_FLAGS: Final = "FLAGS are vLLM's and start with a dash: warmspare known-issues -- --enable-lora"


class Told(msgspec.Struct, frozen=True, kw_only=True, rename={"class_": "class"}):
    """One issue of the list; `unclear` is what it depends on and is not known, empty where it applies."""

    id: str
    class_: str
    symptom: str
    unclear: tuple[str, ...]
    affected: str | None
    fixed: str
    verified: str
    bears_on: str
    workaround: str
    sources: tuple[str, ...]


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """All that is shown; `flags_unclear` are the conditions of which a flag was not understood."""

    engine: str
    version: str
    applies: tuple[Told, ...]
    may_apply: tuple[Told, ...]
    fixed_before: tuple[str, ...]
    flags_given: bool
    flags_unclear: tuple[str, ...]


def show(engine: str | None, level: int | None, json_path: str | None, flags: tuple[str, ...]) -> int:
    """Print the list.

    Raises:
        Refused: `engine` names no version, there is no vLLM here, FLAGS are none, or the file cannot be written.
    """
    if flags and not any(flag.startswith("-") for flag in flags):
        raise Refused(NO_FLAGS)
    named = None if engine is None else _named(engine)
    sinks = Sinks({"json": json_path})
    need_linux()
    progress = Progress()
    try:
        readings = survey.glance({EnginePython, PythonPackages, Platform, Gpus, GpuIdentity}, progress)
    finally:
        progress.done()
    text, version = named or _installed(readings)
    listing = _listing(text, version, _meant(readings, level, flags))
    if "json" in sinks:
        sinks.write("json", f"{msgspec.json.format(msgspec.json.encode(listing)).decode()}\n")
    if not sinks.standard:
        say("".join(f"{clean(line)}\n" for line in _lines(listing)))
    return 0


def _named(engine: str) -> tuple[str, Version]:
    text = engine.removeprefix(PREFIX)
    version = known_issues.version_of(text) if engine.startswith(PREFIX) else None
    if version is None:
        raise Refused(NOT_A_VERSION.format(said=ascii(engine)[:60]))
    return text, version


def _installed(readings: Readings) -> tuple[str, Version]:
    reading = readings.get(PythonPackages)
    text = reading.value.vllm if isinstance(reading, Known) else None
    version = known_issues.version_of(text)
    if text is None or version is None:
        raise Refused(NOT_HERE if text is None else f"vLLM's version here is not understood: {ascii(text)[:60]}")
    return text, version


def _meant(readings: Readings, level: int | None, flags: tuple[str, ...]) -> Meant:
    """What is known of the engine and this machine; of the model nothing is."""
    packages, platform = readings.get(PythonPackages), readings.get(Platform)
    software = packages.value if isinstance(packages, Known) else None
    return Meant(
        flags=engine_flags.parse(flags) if flags else None,
        level=level,
        platform=platform.value.kind if isinstance(platform, Known) else None,
        rocm=software.torch_hip is not None if software and software.torch else None,
        pins=software.vllm_pins if software else None,
        gpus=_gpus(readings),
    )


def _gpus(readings: Readings) -> tuple[str, ...] | None:
    """The product names of all GPUs; None where one could not be read, or there is none."""
    known = [readings.get(GpuIdentity, subject) for subject in GPU.subjects(readings)]
    names = tuple(reading.value.name for reading in known if isinstance(reading, Known))
    return names if names and len(names) == len(known) else None


def _listing(text: str, version: Version, meant: Meant) -> Listing:
    rows = known_issues.all_issues()
    matches = known_issues.matching(rows, version, meant)
    return Listing(
        engine="vllm",
        version=text,
        applies=tuple(_told(match) for match in matches if match.applies),
        may_apply=tuple(_told(match) for match in matches if not match.applies),
        fixed_before=tuple(issue.id for issue in known_issues.fixed_before(rows, version)),
        flags_given=meant.flags is not None,
        flags_unclear=meant.flags.unclear if meant.flags else (),
    )


def _told(match: Match) -> Told:
    issue = match.issue
    return Told(
        id=issue.id,
        class_=issue.class_,
        symptom=issue.symptom,
        unclear=match.unclear,
        affected=issue.affected,
        fixed=issue.fixed,
        verified=issue.verified,
        bears_on=issue.bears_on,
        workaround=issue.workaround,
        sources=issue.sources,
    )


def _lines(listing: Listing) -> Iterator[str]:
    flags = "with these flags" if listing.flags_given else "no flags given: what depends on flags may apply"
    yield from _wrapped(f"Sleep Mode of vLLM {listing.version} on this machine, {flags}", "")
    if listing.flags_unclear:
        yield from _wrapped(f"flags not understood, about: {', '.join(listing.flags_unclear)}", "")
    for head, issues in (("applies", listing.applies), ("may apply", listing.may_apply)):
        yield ""
        yield f"{head}: {len(issues) or 'nothing that is known'}"
        for issue in issues:
            yield from _of_one(issue)
    yield ""
    yield f"fixed in {listing.version} or before: {len(listing.fixed_before)}"


def _of_one(issue: Told) -> Iterator[str]:
    yield f"  {issue.id} ({issue.class_.replace('-', ' ')})"
    yield from _wrapped(issue.symptom)
    if issue.unclear:
        yield from _wrapped(f"depends on: {', '.join(issue.unclear)}")
    yield from _wrapped(f"around it: {issue.workaround}")
    yield from _wrapped("fixed in no release" if issue.fixed == known_issues.NONE else f"fixed in: {issue.fixed}")
    yield from _wrapped(f"source: {', '.join(issue.sources)}")


def _wrapped(text: str, indent: str = "    ") -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
