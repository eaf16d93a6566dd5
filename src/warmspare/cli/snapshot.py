"""`warmspare snapshot`: survey this machine into a file that can be judged anywhere."""

from __future__ import annotations

import click

from warmspare.cli.engine_options import WithFlags, asked_engine, engine
from warmspare.cli.errors import Refused
from warmspare.cli.options import trying


@click.command(cls=WithFlags)
@trying
@engine
@click.option("-o", "--output", metavar="FILE", help="Where to write it (- for standard output).")
@click.option("--schema", is_flag=True, help="Write the JSON Schema of snapshots instead.")
def snapshot(  # noqa: PLR0913 # one parameter an option
    tracks: tuple[str, ...],
    extent: str | None,
    output: str | None,
    *,
    no_trials: bool,
    busy_ok: bool,
    risk_restore: bool,
    no_redact: bool,
    schema: bool,
) -> int:
    """Write down everything that check would see, for `warmspare judge` on any machine."""
    import json  # noqa: PLC0415 # --help must not pay for it

    from warmspare import catalogue  # noqa: PLC0415
    from warmspare.cli import session  # noqa: PLC0415
    from warmspare.cli.output import Sinks  # noqa: PLC0415
    from warmspare.model import snapshot as files  # noqa: PLC0415
    from warmspare.report import json as report  # noqa: PLC0415
    from warmspare.trials.given import May  # noqa: PLC0415

    if output is None:
        message = "name a file with -o, or - for standard output"
        raise Refused(message)
    target = Sinks({"snapshot": output}, new_mode=0o600 if no_redact else None)
    if schema:
        target.write("snapshot", json.dumps(files.schema(catalogue.facts()), indent=1) + "\n")
        return 0
    meant = asked_engine(tracks, extent)
    may = May(busy_ok=busy_ok, risk_restore=risk_restore, full=extent == "full", engine=meant)
    tried = session.Extent(extent=extent, no_trials=no_trials, may=may)
    survey = session.survey(tracks, tried, redacted=not no_redact, verbose=False)
    try:
        target.write("snapshot", report.plain(files.encode(survey.snapshot).decode()))
    finally:
        session.keep(survey)
    return 0
