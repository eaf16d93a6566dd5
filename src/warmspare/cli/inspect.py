"""`warmspare inspect`: what an image holds, and whether it would be restored here."""

from __future__ import annotations

import click


@click.command()
@click.argument("folder", metavar="DIR")
@click.option("--verify", is_flag=True, help="Read everything, and compare all checksums.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(folder: str, *, verify: bool, as_json: bool) -> int:
    """Say what the image DIR holds, and whether it could be restored here now; if not, why (exit code 1)."""
    from warmspare.cli import imaging  # noqa: PLC0415 # --help must not pay for it

    return imaging.inspect(folder, verify=verify, as_json=as_json)
