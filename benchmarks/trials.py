"""The figures of trials, run for run: median, least, most, and their spread.

    python benchmarks/trials.py [--runs 5] NAME…      such as: peer_copy host_copy nccl_allreduce

Every run is the trial as `warmspare check` runs it, in a child of its own; one on GPUs runs on each GPU or pair.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator

import msgspec

from warmspare import catalogue
from warmspare.host.live import LiveHost
from warmspare.host.port import SLOW
from warmspare.model.facts import Known, Readings, fact_name
from warmspare.probes.api import collect
from warmspare.trials.api import NotTried, Trial
from warmspare.trials.run import Run, run


def main(names: list[str], runs: int) -> int:
    """Run them and print a line a figure; 1 if one did not end as done."""
    with LiveHost(ahead=SLOW) as host:
        readings = Readings(collect(host, catalogue.probes()))
    failed = False
    for trial in (trial for trial in catalogue.trials() if trial.name in names):
        for subject in trial.kind.subjects(readings):
            ended = list(_runs(trial, readings, subject, runs))
            done = [one.reading for one in ended if isinstance(one.reading, Known)]
            good = [one.value for one in done if one.value.outcome.kind == "done"]
            failed = failed or len(good) < runs
            print(f"{trial.name} {subject}: {len(good)} of {runs} done")
            for line in _figures([msgspec.to_builtins(value) for value in good]):
                print(f"  {line}")
            readings = readings.plus({(fact_name(trial.proofs[0]), subject): one for one in done[-1:]})
    return int(failed)


def _runs(trial: Trial, readings: Readings, subject: str, runs: int) -> Iterator[Run]:
    try:
        given = trial.given.of(readings, subject) if trial.given else None
    except NotTried as reason:
        print(f"{trial.name} {subject}: {reason}")
        return
    for _ in range(runs):
        yield run(trial, lambda _: None, given)


def _figures(proofs: list[dict[str, object]]) -> Iterator[str]:
    for name in proofs[0] if proofs else ():
        values = [value for proof in proofs if isinstance(value := proof[name], int | float)]
        if len(values) == len(proofs) and not any(isinstance(value, bool) for value in values):
            middle, least, most = statistics.median(values), min(values), max(values)
            spread = f"  spread {(most - least) / middle:.2%}" if middle else ""
            yield f"{name:24} median {middle:.6g}  min {least:.6g}  max {most:.6g}{spread}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    sys.exit(main(options.names, options.runs))
