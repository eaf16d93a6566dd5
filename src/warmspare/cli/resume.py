"""`warmspare resume`: give a suspended CUDA process its GPU memory back."""

from __future__ import annotations

import click

from warmspare.cli.act_options import PID, force


@click.command()
@PID
@force
def resume(pid: int, *, force: bool) -> int:
    """Resume the suspended CUDA process PID with all that it started.

    All of them or none. It needs no proof, but as much free GPU memory as it had.
    """
    from warmspare.cli import acting  # noqa: PLC0415 # --help must not pay for it
    from warmspare.runtime import resuming  # noqa: PLC0415
    from warmspare.runtime.suspending import Options  # noqa: PLC0415

    return acting.act(pid, lambda tools, _: resuming.resume(tools, pid, Options(force=force)), mends=True)
