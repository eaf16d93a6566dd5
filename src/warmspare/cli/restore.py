"""`warmspare restore`: a saved process goes on."""

from __future__ import annotations

import click

from warmspare.cli.act_options import force
from warmspare.cli.options import criu_path


@click.command()
@click.argument("folder", metavar="DIR")
@click.option("--to", "gpus", metavar="GPU|OLD=NEW", multiple=True, help="Another GPU of the same kind; repeatable.")
@click.option("--new-pidns", is_flag=True, help="In a pid namespace of its own: its process numbers need not be free.")
@criu_path
@force
def restore(folder: str, gpus: tuple[str, ...], *, new_pidns: bool, force: bool) -> int:
    """Restore what checkpoint saved to DIR, and leave DIR as it is.

    Every byte is compared with what was saved before anything runs. Needs root.
    """
    from warmspare.cli import imaging  # noqa: PLC0415 # --help must not pay for it

    return imaging.restore(folder, gpus, new_pidns=new_pidns, force=force)
