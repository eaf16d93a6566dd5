"""What sleeping costs and gives, by the size of a model: the trial `sleep_wake` on made models, a column each.

    python benchmarks/sleep.py [--full] [small] [8b] [-- VLLM_FLAGS…]

Every column is the trial as `warmspare check sleep-mode` runs it, with an engine of its own; times in seconds, memory
in MiB by NVML. The models are made on the spot: see `control/made_model.py` for their shapes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from msgspec import to_builtins
from msgspec.structs import replace

from warmspare import catalogue
from warmspare.host.live import LiveHost
from warmspare.host.port import SLOW
from warmspare.model.facts import Known, Readings
from warmspare.probes.api import collect
from warmspare.trials.api import NotTried, StepEvent
from warmspare.trials.engine_given import FULL_S, EngineHost
from warmspare.trials.given import EngineAsk, May
from warmspare.trials.run import run


def main(shapes: list[str], may: May, out: Path | None) -> int:
    """Run the trial for each shape and print its figures; 1 if a part did not end as done."""
    with LiveHost(ahead=SLOW) as host:
        readings = Readings(collect(host, catalogue.probes()))
    (trial,) = (trial for trial in catalogue.trials() if trial.name == "sleep_wake")
    try:
        given = EngineHost.of(readings, "host", may)
    except NotTried as reason:
        print(reason)
        return 1
    failed, columns = False, {}
    for shape in shapes:
        about = replace(given, shape=shape, deadline_s=FULL_S)
        ended = run(replace(trial, deadline_s=FULL_S), _shown, about)
        columns[shape] = {name: to_builtins(reading) for name, reading in ended.readings.items()}
        failed = failed or _print(shape, ended.readings) or bool(ended.left)
        if ended.left:
            print(f"left: {', '.join(ended.left)}")
    if out:
        out.write_text(json.dumps(columns, indent=1) + "\n", encoding="utf-8")
    return int(failed)


def _shown(event: StepEvent) -> None:
    if event.took_s is not None:
        print(f"  {event.name}: {event.took_s:.2f} s", file=sys.stderr)


def _print(shape: str, readings: dict[str, Any]) -> bool:
    """A line a figure; whether a part was tried and not done."""
    failed = False
    for name, reading in readings.items():
        if not isinstance(reading, Known):
            print(f"{shape} {name}: {reading.cause}: {reading.detail}")
            continue
        figures = to_builtins(reading.value)
        failed = failed or reading.value.outcome.kind != "done"
        told = {key: value for key, value in figures.items() if key not in ("fact", "outcome") and value is not None}
        print(f"{shape} {name}: {figures['outcome']['kind']} {json.dumps(told)}")
    return failed


if __name__ == "__main__":
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the long form")
    parser.add_argument("-o", dest="out", type=Path, help="also write the readings as JSON")
    parser.add_argument("shapes", nargs="*", default=["small"])
    asked = parser.parse_args(words[:end])
    flags = tuple(words[end + 1 :]) or None
    raise SystemExit(main(asked.shapes, May(full=asked.full, engine=EngineAsk(flags=flags)), asked.out))
