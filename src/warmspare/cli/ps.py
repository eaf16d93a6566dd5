"""`warmspare ps`: the CUDA processes, their states, and what is visible of their chance to survive a suspend."""

from __future__ import annotations

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ps(*, as_json: bool) -> int:
    """List the CUDA processes that you may see.

    Shows also what interrupted and failed commands left behind. Nothing is touched.
    """
    from warmspare.cli import listing  # noqa: PLC0415 # --help must not pay for it

    return listing.show(as_json=as_json)
