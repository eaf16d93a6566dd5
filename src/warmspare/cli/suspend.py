"""`warmspare suspend`: free a CUDA process's GPU memory, and keep the process."""

from __future__ import annotations

import click

from warmspare.cli.act_options import PID, force, lock_timeout


@click.command()
@PID
@force
@lock_timeout
def suspend(pid: int, *, force: bool, timeout: float) -> int:
    """Suspend the CUDA process PID with all that it started: its GPU memory moves to host memory.

    All of them or none. `warmspare resume PID` brings them back.
    """
    from warmspare.cli import acting  # noqa: PLC0415 # --help must not pay for it
    from warmspare.runtime import suspending  # noqa: PLC0415

    return acting.act(
        pid,
        lambda tools, progress: suspending.suspend(
            tools, pid, acting.options(acting.SUSPEND, tools, progress, force=force, lock_s=timeout)
        ),
    )
