"""`warmspare savable`: start a command so that CRIU can dump it."""

from __future__ import annotations

import click

NOT_FOUND = 127
NOT_RUN = 126
"""As env(1) and nohup(1) have them."""


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", metavar="[--] COMMAND [ARGS]...", nargs=-1, required=True, type=click.UNPROCESSED)
def savable(command: tuple[str, ...]) -> int:
    """Become COMMAND with io_uring denied to it, so that `warmspare checkpoint` can save it later.

    The kernel answers it, and all that it starts, as if it had no io_uring. Needs no root.
    """
    from warmspare.cli.errors import Failed, tell  # noqa: PLC0415 # --help must not pay for it
    from warmspare.control.savable import NotDenied, become  # noqa: PLC0415

    name = command[0]
    if not name:
        message = "COMMAND is empty"
        raise click.UsageError(message)
    try:
        become(command)
    except NotDenied as error:
        message = f"{name} was not started: {error}"
        raise Failed(message) from None
    except OSError as error:
        tell(Failed(f"{name} was not started: {error.strerror or error}"))
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_RUN
