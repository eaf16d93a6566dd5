"""`warmspare known-issues`: what is known to break in a version of vLLM, and whether it applies here."""

from __future__ import annotations

import click


@click.command(name="known-issues")
@click.option("--engine", metavar="vllm==VERSION", help="Of this version; else of the vLLM in the engine's Python.")
@click.option("--level", type=click.IntRange(1, 2), help="The level that the engine is put to sleep with.")
@click.option("--json", "json_path", metavar="FILE", help="Write JSON to FILE (- for standard output).")
@click.argument("flags", metavar="[-- FLAGS]...", nargs=-1, type=click.UNPROCESSED)
def known_issues(engine: str | None, level: int | None, json_path: str | None, flags: tuple[str, ...]) -> int:
    """List the known issues of Sleep Mode that apply to vLLM here, and those that may.

    FLAGS are the engine's own, after --: warmspare known-issues -- -tp 2 --enable-lora. Nothing is tried.
    """
    from warmspare.cli import issues_told  # noqa: PLC0415 # --help must not pay for it

    return issues_told.show(engine, level, json_path, flags)
