"""`warmspare explain`: what a requirement asks, why, how to fix it and where it comes from."""

from __future__ import annotations

import click


@click.command()
@click.argument("name", metavar="[ID]", required=False)
def explain(name: str | None) -> int:
    """Explain a requirement, track, trial, remedy or claim by its ID; without ID, list them all."""
    from warmspare.cli.explaining import Explainer  # noqa: PLC0415 # --help must not pay for it
    from warmspare.cli.output import say  # noqa: PLC0415

    say(Explainer().explain(name) if name else Explainer().everything())
    return 0
