"""`warmspare judge`: judge snapshots, of this machine or any other. Arithmetic on files."""

from __future__ import annotations

import click

from warmspare.cli.errors import Refused
from warmspare.cli.options import check_tracks, reporting


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--track",
    "tracks",
    multiple=True,
    metavar="TRACK",
    callback=check_tracks,
    help="Judge only this track (may be repeated).",
)
@reporting
def judge(
    files: tuple[str, ...],
    tracks: tuple[str, ...],
    json_path: str | None,
    md_path: str | None,
    *,
    verbose: bool,
) -> int:
    """Judge snapshot FILEs (- reads standard input). The same file gives the same bytes everywhere.

    Of several FILEs only the headlines are shown; -v shows all of each.
    """
    from warmspare.cli import session  # noqa: PLC0415 # --help must not pay for it
    from warmspare.cli.output import Sinks, say  # noqa: PLC0415
    from warmspare.report.view import clean  # noqa: PLC0415

    if len(files) > 1 and (json_path or md_path):
        message = "--json and --md take one FILE; judge the others apart"
        raise Refused(message)
    targets = Sinks({"json": json_path, "md": md_path})
    snapshots = [(name, session.load(name)) for name in files]
    worst = 0
    for name, snapshot in snapshots:
        if len(files) > 1:
            say(f"== {clean(name)}\n")
        code = session.report(snapshot, tracks, targets, verbose=verbose, brief=len(files) > 1 and not verbose)
        worst = session.worse(worst, code)
    return worst
