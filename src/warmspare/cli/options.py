"""Options and arguments that commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

CRIU = "WARMSPARE_CRIU"
C = TypeVar("C", bound=Callable[..., Any])


def _set_criu(_context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    """Every child of ours finds CRIU by this variable, the trial's own too."""
    path = os.environ.get(CRIU, "") if value is None else value
    if value is None and not path:
        return
    if not (os.path.isfile(path) and os.access(path, os.X_OK)):  # noqa: PTH113 # nor does Path add anything here
        message = f"{path or 'an empty path'} is not a program that can be run"
        raise click.BadParameter(message, param_hint="'--criu'" if value is not None else f"'{CRIU}'")
    os.environ[CRIU] = os.path.abspath(path)  # noqa: PTH100 # not resolved: a wrapper may look at its name


def check_tracks(_context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse a track that this version does not have, with the names of those it has."""
    if value:
        from warmspare import catalogue  # noqa: PLC0415 # only when a track is named

        known = catalogue.tracks()
        if unknown := [name for name in value if name not in known]:
            message = f"no track is called {unknown[0]!r}; there are {', '.join(known)}"
            raise click.UsageError(message)
    return value


def trying(command: C) -> C:
    """The options of commands that may try things on this machine."""
    for option in (
        click.option("--no-trials", is_flag=True, help="Look only, try nothing."),
        click.option("--full", "extent", flag_value="full", help="Run every trial, the long ones too."),
        click.option("--quick", "extent", flag_value="quick", help="Run only the quick trials, also for named tracks."),
        click.option("--busy-ok", is_flag=True, help="Try GPUs that somebody is at work on, too."),
        click.option(
            "--risk-restore",
            is_flag=True,
            help="Have processes restored also where their end may hang the machine.",
        ),
        click.option("--criu", metavar="PATH", expose_value=False, callback=_set_criu, help="The CRIU to use."),
        click.option("--no-redact", is_flag=True, help="Keep hostname, serials, UUIDs, user names and home paths."),
        click.argument("tracks", metavar="[TRACK]...", nargs=-1, callback=check_tracks),
    ):
        command = option(command)
    return command


def reporting(command: C) -> C:
    """The options of commands that print a report."""
    for option in (
        click.option("-v", "--verbose", is_flag=True, help="Show every check with its evidence."),
        click.option(
            "--json",
            "json_path",
            metavar="FILE",
            help="Also write the report as JSON (- for standard output).",
        ),
        click.option(
            "--md",
            "md_path",
            metavar="FILE",
            help="Also write the report as Markdown (- for standard output).",
        ),
    ):
        command = option(command)
    return command


def criu_path(command: C) -> C:
    """Which CRIU to use."""
    text = "The CRIU to use."
    return click.option("--criu", metavar="PATH", expose_value=False, callback=_set_criu, help=text)(command)
