"""How long 1,000 snapshots take to read, judge and render (as `warmspare judge FILE…` does) in one process.

python benchmarks/judge_many.py [FILE…]      default: every recorded host, over and over
"""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path
from typing import Final

from warmspare import catalogue
from warmspare.judge import judge
from warmspare.model.snapshot import Reader
from warmspare.report import terminal
from warmspare.report.view import view

MANY: Final = 1000


def main(files: list[Path]) -> None:
    """Measure and print; each stage is timed apart."""
    tracks, reader = catalogue.tracks(), Reader(catalogue.facts())
    rules, remedies = catalogue.rules(tracks), catalogue.remedies()
    contents = [file.read_bytes() for file in files]
    if not contents:
        sys.exit("no snapshots to judge")
    spent = {"read": 0.0, "judge": 0.0, "render": 0.0}
    for data in itertools.islice(itertools.cycle(contents), MANY):
        start = time.perf_counter()
        snapshot = reader.read(data)
        read = time.perf_counter()
        judgement = judge(snapshot.readings, tracks)
        judged = time.perf_counter()
        terminal.render(view(snapshot, judgement, rules, remedies, brief=True), brief=True)
        spent["read"] += read - start
        spent["judge"] += judged - read
        spent["render"] += time.perf_counter() - judged
    for stage, seconds in spent.items():
        print(f"{stage:<8} {seconds:7.3f} s for {MANY}")
    print(f"{'total':<8} {sum(spent.values()):7.3f} s for {MANY}, of {len(files)} different hosts")


if __name__ == "__main__":
    hosts = Path(__file__).parent.parent / "tests/hosts"
    main([Path(name) for name in sys.argv[1:]] or sorted(hosts.glob("*.json")))
