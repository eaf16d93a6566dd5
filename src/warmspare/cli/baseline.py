"""`warmspare baseline`: keep a measured run of this machine, and compare the machine with it in another boot."""

from __future__ import annotations

import click


@click.group(no_args_is_help=False)
def baseline() -> None:
    """Measure this host, and compare it with a stored run of the same machine.

    Save a run on bare metal Linux, carry its file to the other boot (WSL2, say), and compare there.
    """


@baseline.command()
@click.option("-o", "--output", metavar="FILE", help="Write the run there instead (- for standard output).")
def save(output: str | None) -> int:
    """Measure this host and keep the run, under the key of its CPU and GPUs."""
    from warmspare.cli import comparing  # noqa: PLC0415 # --help must not pay for it

    return comparing.save(output)


@baseline.command()
@click.argument("file", metavar="[FILE]", required=False)
def compare(file: str | None) -> int:
    """Measure this host again and compare it with the run in FILE, or with the one kept here.

    A native run in FILE is kept here, so that check states the fraction too.
    """
    from warmspare.cli import comparing  # noqa: PLC0415 # --help must not pay for it

    return comparing.compare(file)
