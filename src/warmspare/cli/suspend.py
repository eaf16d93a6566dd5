"""`warmspare suspend`: free a CUDA process's GPU memory, and keep the process."""

from __future__ import annotations

import click

from warmspare.cli.act_options import force, lock_timeout, whom


@click.command()
@whom
@force
@lock_timeout
def suspend(pid: int | None, engine: str | None, *, force: bool, timeout: float) -> int:
    """Suspend the CUDA process PID with all that it started: its GPU memory moves to host memory.

    All of them or none. `warmspare resume PID` brings them back. With --engine it is the vLLM server at URL, which is
    drained and put to sleep first; `warmspare resume` wakes it again.
    """
    from warmspare.cli import acting  # noqa: PLC0415 # --help must not pay for it
    from warmspare.cli.progress import Progress  # noqa: PLC0415
    from warmspare.runtime import sleeping_first, suspending  # noqa: PLC0415
    from warmspare.runtime.unit import Tools  # noqa: PLC0415

    number, found = acting.whom(pid, engine)

    def do(tools: Tools, progress: Progress) -> str:
        options = acting.options(acting.SUSPEND, tools, progress, force=force, lock_s=timeout)
        if found is None:
            return suspending.suspend(tools, number, options)
        return sleeping_first.suspend(tools, found, options)

    return acting.act(number, do)
