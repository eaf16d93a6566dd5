"""What the command line refuses: one line with the cause and what to do, exit code 2.

Of actions that fail 1, and 5 where a process is lost or stranded.
"""

from __future__ import annotations

import sys

import click

USAGE = 2
FAILED = 1
LOST = 5


class Refused(click.ClickException):
    """What was asked cannot be done; the message is one line that says why."""

    exit_code = USAGE


class Failed(Refused):
    """An action was refused by what was found, or failed; the words of the command were right."""

    exit_code = FAILED


class Lost(Failed):
    """A process is lost, or stranded in a state that the tool could not bring it out of; the line names it."""

    exit_code = LOST


def tell(error: click.ClickException) -> None:
    """Print the one line; what click found wrong with the words themselves gets a hint where they stand."""
    from warmspare.report.view import clean  # noqa: PLC0415 # only what goes wrong pays for it

    line = clean(error.format_message().strip())
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "warmspare"
        line = f"{line.rstrip('.')}; see {command} --help"
    if sys.stderr:
        click.echo(f"warmspare: {line}", err=True)
