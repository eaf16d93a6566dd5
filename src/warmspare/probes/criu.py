"""CRIU: which one, its version, its plugin, and what it says of this kernel itself."""

from __future__ import annotations

import contextlib
import re
from typing import Final, Literal

from warmspare.host.port import Host, Missing, Unreadable
from warmspare.model.criu_log import explain
from warmspare.model.facts import Cause, Fact
from warmspare.model.transcript import Ran
from warmspare.probes.api import probe

LOOKED: Final = re.compile(r"Looks good|seccomp_suspend is (not )?supported")
"""CRIU got as far as its verdict; what it misses is part of that."""
KEPT_FROM_LOOKING: Final = frozenset({"denied", "read_only", "disk_full"})


class CriuProgram(Fact, frozen=True, kw_only=True):
    """The CRIU that is found, and the version it claims."""

    found: bool
    path: str | None
    version: str | None


class CriuPlugin(Fact, frozen=True, kw_only=True):
    """CRIU's CUDA plugin: a help, not a need; the driver's own calls do the same."""

    found: bool
    path: str | None


class CriuCheck(Fact, frozen=True, kw_only=True):
    """What `criu check` says. `too_old`: this CRIU cannot read this kernel, and the kernel is not to blame.

    `missing` holds CRIU's own lines on what it misses.
    """

    result: Literal["good", "partial", "too_old", "bad"]
    missing: tuple[str, ...]


class CriuSeccompSuspend(Fact, frozen=True, kw_only=True):
    """Whether CRIU can suspend seccomp, which a plain check does not ask."""

    supported: bool


@probe
def criu_program(host: Host) -> CriuProgram:
    """From WARMSPARE_CRIU, PATH or the usual folders."""
    try:
        answer = host.run("criu", "--version")
    except Missing:
        return CriuProgram(found=False, path=None, version=None)
    if answer.status < 0:
        raise Unreadable(Cause.CRASHED, f"{answer.program} --version was ended by signal {-answer.status}")
    version = re.match(r"Version: (\d{1,4}(?:\.\d{1,4}){1,3})\s", answer.stdout)
    if answer.status or not version:
        said = ascii(answer.output.strip()[:60])
        raise Unreadable(Cause.INVALID, f"{answer.program} --version said {said}, status {answer.status}")
    return CriuProgram(found=True, path=answer.program, version=version[1])


@probe
def criu_plugin(host: Host) -> CriuPlugin:
    """cuda_plugin.so in the folders that CRIU looks in. Source: criu/include/plugin.h."""
    folders = ["/usr/lib/criu", "/usr/local/lib/criu", "/usr/lib64/criu", "/usr/lib/x86_64-linux-gnu/criu"]
    with contextlib.suppress(Missing):  # without a CRIU only the usual folders are left
        folders.append(host.run("criu", "--version").program.rpartition("/")[0] + "/../lib/criu")
    for folder in folders:
        path = f"{folder}/cuda_plugin.so"
        if host.exists(path):
            return CriuPlugin(found=True, path=path)
    return CriuPlugin(found=False, path=None)


@probe
def criu_check(host: Host) -> CriuCheck:
    """The text counts, not the exit status: `check --all` exits 1 for a feature nobody needs.

    Source: criu/cr-check.c.
    """
    answer = _ask(host, "check", "--all")
    text = answer.output
    missing = tuple(line.strip() for line in text.splitlines() if re.match(r"\s*(Warn|Error)", line))[:40]
    if explain(text)[0] == "too_old" and not LOOKED.search(text):
        return CriuCheck(result="too_old", missing=missing)
    if "Looks good but" in text:
        return CriuCheck(result="partial", missing=missing)
    if "Looks good." in text and answer.status == 0:
        return CriuCheck(result="good", missing=())
    return CriuCheck(result="bad", missing=missing or (text.strip()[:200],))


@probe
def criu_seccomp_suspend(host: Host) -> CriuSeccompSuspend:
    """Always asked apart: a plain check passes on WSL2 hosts where a dump then fails."""
    text = _ask(host, "check", "--feature", "seccomp_suspend").output
    if "seccomp_suspend is supported" in text:
        return CriuSeccompSuspend(supported=True)
    if explain(text)[0] == "too_old" or "Unknown feature" in text:
        raise Unreadable(Cause.INVALID, f"this CRIU cannot tell: {text.strip()[:200]}")
    return CriuSeccompSuspend(supported=False)


def _ask(host: Host, *args: str) -> Ran:
    try:
        host.run("criu", "--version")  # one that never returns is waited for once
        answer = host.run("criu", *args)
    except Missing:
        raise Unreadable(Cause.SKIPPED, "no CRIU was found") from None
    cause, line = explain(answer.output)
    if cause in KEPT_FROM_LOOKING and not LOOKED.search(answer.output):  # it tries mounts under /tmp, say
        raise Unreadable(Cause.DENIED, f"CRIU could not look: {line[:200]}")
    if answer.status < 0:
        raise Unreadable(Cause.CRASHED, f"criu {' '.join(args)} was ended by signal {-answer.status}")
    return answer
