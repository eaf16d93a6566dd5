"""`warmspare resume`: give a suspended CUDA process its GPU memory back."""

from __future__ import annotations

import click

from warmspare.cli.act_options import force, whom


@click.command()
@whom
@force
def resume(pid: int | None, engine: str | None, *, force: bool) -> int:
    """Resume the suspended CUDA process PID, or the vLLM server at URL, with all that it started.

    All of them or none. It needs no proof, but as much free GPU memory as it had. An engine that was put to sleep
    first is woken, and has to answer.
    """
    from warmspare.cli import acting  # noqa: PLC0415 # --help must not pay for it
    from warmspare.runtime import waking  # noqa: PLC0415
    from warmspare.runtime.suspending import Options  # noqa: PLC0415

    number, found = acting.whom(pid, engine)
    return acting.act(number, lambda tools, _: waking.resume(tools, number, Options(force=force), found), mends=True)
