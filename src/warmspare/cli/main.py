"""The `warmspare` command: its subcommands, its exit codes and what happens when it is stopped.

Exit codes of check and judge: 0 GO, 1 NO-GO, 2 usage, 3 UNKNOWN, 4 DEGRADED; 128 + n when stopped by signal n.
Of actions: 0 done, 1 refused or failed with the process as it was, 2 usage, 5 a process lost or stranded, and named.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import NoReturn

import click

from warmspare import __version__
from warmspare.cli.baseline import baseline
from warmspare.cli.check import check
from warmspare.cli.checkpoint import checkpoint
from warmspare.cli.errors import USAGE, Refused, tell
from warmspare.cli.explain import explain
from warmspare.cli.inspect import inspect
from warmspare.cli.judge import judge
from warmspare.cli.known_issues import known_issues
from warmspare.cli.move import move
from warmspare.cli.ps import ps
from warmspare.cli.restore import restore
from warmspare.cli.resume import resume
from warmspare.cli.savable import savable
from warmspare.cli.shim import shim
from warmspare.cli.snapshot import snapshot
from warmspare.cli.suspend import suspend

STOPPING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Stopped(BaseException):
    """A signal asked the tool to stop; everything is cleared away on the way out.

    Not a KeyboardInterrupt: click prints an empty line for one.
    """

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


for command in (
    check, snapshot, judge, explain, baseline, ps, suspend, resume, move, checkpoint, restore, inspect, shim,
    known_issues, savable,
):  # fmt: skip
    cli.add_command(command)


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup asked for SIGHUP to be ignored
            signal.signal(number, _stop)
    _have_streams()
    sys.exit(_run())


def _have_streams() -> None:
    """Three open streams, whatever we were started with.

    A closed one would be lent to the next file that is opened. Files and pipes get UTF-8 in every locale, so
    that a report is the same bytes everywhere; a terminal that does not speak it gets escapes.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdin, sys.stdout, sys.stderr = (
        sys.stdin or open(0, encoding="utf-8"),  # noqa: SIM115 # open for as long as we run
        sys.stdout or open(1, "w", encoding="utf-8"),  # noqa: SIM115
        sys.stderr or open(2, "w", encoding="utf-8"),  # noqa: SIM115
    )
    for stream in (sys.stdout, sys.stderr):
        encoding = None if stream.isatty() else "utf-8"
        stream.reconfigure(encoding=encoding, errors="backslashreplace")  # type: ignore[union-attr]


def _stop(number: int, _frame: object) -> NoReturn:
    for one in STOPPING:  # a second Ctrl-C must not break off the clearing away, which has its own deadlines
        if signal.getsignal(one) is not signal.SIG_IGN:
            signal.signal(one, lambda *_: None)
    raise Stopped(number)


def _run() -> int:
    try:
        code = cli.main(args=sys.argv[1:] or ["--help"], prog_name="warmspare", standalone_mode=False)
    except click.ClickException as error:
        with contextlib.suppress(OSError):
            tell(error)
        return error.exit_code
    except Stopped as stopped:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # nor may one kill us while Python shuts down
        name = signal.Signals(stopped.number).name
        left = ", ".join(getattr(stopped, "__notes__", ()))
        what = f"this could not be cleared away: {left}" if left else "everything it started is cleared away"
        with contextlib.suppress(OSError):
            click.echo(f"warmspare: stopped by {name}; {what}", err=True)
        return 128 + stopped.number
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return USAGE
    except OSError as error:  # no process or file can be opened any more, or /dev/null is missing
        with contextlib.suppress(OSError):
            tell(Refused(f"this machine refused: {error.filename or 'a call'}: {error.strerror or error}"))
        return USAGE
    if not sys.argv[1:]:
        return USAGE
    return code if isinstance(code, int) else 0
