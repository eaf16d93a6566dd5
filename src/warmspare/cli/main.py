"""The `warmspare` command: its subcommands, its exit codes and what happens when it is stopped.

Exit codes of check and judge: 0 GO, 1 NO-GO, 2 usage, 3 UNKNOWN, 4 DEGRADED; 128 + n when stopped by signal n.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import NoReturn

import click

from warmspare import __version__
from warmspare.cli.check import check
from warmspare.cli.explain import explain
from warmspare.cli.judge import judge
from warmspare.cli.snapshot import snapshot

USAGE = 2


class Stopped(KeyboardInterrupt):
    """A signal asked the tool to stop; everything is cleared away on the way out."""

    def __init__(self, number: int) -> None:
        """Remember which signal it was."""
        super().__init__()
        self.number = number


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="warmspare")
def cli() -> None:
    """Can this machine keep an LLM server alive through a failure?

    warmspare proves it layer by layer, by trying.
    """


for command in (check, snapshot, judge, explain):
    cli.add_command(command)


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup asked for SIGHUP to be ignored
            signal.signal(number, _stop)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # a terminal may not speak UTF-8
    sys.exit(_run())


def _stop(number: int, _frame: object) -> NoReturn:
    raise Stopped(number)


def _run() -> int:
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as stopped:
        # click turns a KeyboardInterrupt into its own Abort and keeps it as the cause.
        reason = stopped if isinstance(stopped, Stopped) else stopped.__context__
        number = reason.number if isinstance(reason, Stopped) else signal.SIGINT
        with contextlib.suppress(OSError):
            click.echo(f"stopped by {signal.Signals(number).name}; everything it started is cleared away", err=True)
        return 128 + number
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return USAGE
    return code if isinstance(code, int) else 0
