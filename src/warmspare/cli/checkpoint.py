"""`warmspare checkpoint`: a process, with its GPU memory, to disk."""

from __future__ import annotations

import click

from warmspare.cli.act_options import PID, force, lock_timeout
from warmspare.cli.options import criu_path


@click.command()
@PID
@click.argument("folder", metavar="DIR")
@click.option("--no-gpu", is_flag=True, help="Nothing in the tree uses CUDA: do without the driver.")
@click.option("--tcp-established", is_flag=True, help="Keep its TCP connections (both ends, or a peer that waits).")
@click.option("--tcp-close", is_flag=True, help="Drop its TCP connections: it finds them closed.")
@click.option("--shell-job", is_flag=True, help="It has a terminal, or was started by a shell; restore it from one.")
@click.option("--ext-unix-sk", is_flag=True, help="It has datagram sockets to others, who are there at the restore.")
@click.option("--file-locks", is_flag=True, help="It holds locks on files that nobody else takes meanwhile.")
@click.option("--link-remap", is_flag=True, help="It has a deleted file open; a link to it is left beside it.")
@click.option("--sync", is_flag=True, help="Bring the image to disk before the process is ended.")
@criu_path
@force
@lock_timeout
def checkpoint(pid: int, folder: str, *, force: bool, timeout: float, **options: bool) -> int:
    """Save the process PID with all that it started to the new folder DIR, and end it.

    Nobody is ended before the image is whole; if anything fails before, the process runs on. Needs root.
    """
    from warmspare.cli import imaging  # noqa: PLC0415 # --help must not pay for it

    ours = {name: options.pop(name) for name in ("no_gpu", "sync")}
    return imaging.checkpoint(pid, folder, imaging.How(**ours, force=force, lock_s=timeout, options=options))
