"""`warmspare check`: survey this machine, judge it, say so, and keep the proofs."""

from __future__ import annotations

import click

from warmspare.cli.engine_options import WithFlags, asked_engine, engine
from warmspare.cli.options import reporting, trying


@click.command(cls=WithFlags)
@trying
@engine
@reporting
def check(  # noqa: PLR0913 # one parameter an option
    tracks: tuple[str, ...],
    extent: str | None,
    json_path: str | None,
    md_path: str | None,
    *,
    no_trials: bool,
    busy_ok: bool,
    risk_restore: bool,
    no_redact: bool,
    verbose: bool,
) -> int:
    """Say which recovery techniques this machine supports, and prove it.

    Without TRACK all of them are judged and the quick trials run; naming a track runs all of its trials.
    """
    from warmspare.cli import session  # noqa: PLC0415 # --help must not pay for it
    from warmspare.cli.output import Sinks  # noqa: PLC0415
    from warmspare.trials.given import May  # noqa: PLC0415

    targets = Sinks({"json": json_path, "md": md_path})
    meant = asked_engine(tracks, extent)
    may = May(busy_ok=busy_ok, risk_restore=risk_restore, full=extent == "full", engine=meant)
    tried = session.Extent(extent=extent, no_trials=no_trials, may=may)
    survey = session.survey(tracks, tried, redacted=not no_redact, verbose=verbose)
    try:
        return session.report(survey.snapshot, tracks, targets, verbose=verbose)
    finally:  # a report that cannot be written loses no proof, and hides nothing that was left behind
        session.keep(survey)
