"""`warmspare move`: a CUDA process goes on, on another GPU of the same kind."""

from __future__ import annotations

import click

from warmspare.cli.act_options import PID, force, lock_timeout


@click.command()
@PID
@click.option(
    "--to",
    "gpu",
    metavar="GPU",
    required=True,
    help="The other GPU: its UUID, its PCI address, its number in nvidia-smi, or gpuN as in our reports.",
)
@force
@lock_timeout
def move(pid: int, gpu: str, *, force: bool, timeout: float) -> int:
    """Move the CUDA process PID with all that it started to another GPU of the same kind.

    It is suspended, and resumed there; a suspended one is resumed there.
    """
    from warmspare.cli import acting  # noqa: PLC0415 # --help must not pay for it
    from warmspare.runtime import moving  # noqa: PLC0415

    return acting.act(
        pid,
        lambda tools, progress: moving.move(
            tools, pid, gpu, acting.options(acting.MOVE, tools, progress, force=force, lock_s=timeout)
        ),
    )
