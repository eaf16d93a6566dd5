"""How long `--help` takes against a bare click app, and how long `check --no-trials` takes.

    python benchmarks/startup.py [RUNS]

The bare app has one group and four commands of no work, run by the same interpreter.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

from paired import pairs, summary, wall_s

BARE: Final = """
import click
@click.group()
def cli(): "A bare click app."
for name in ("check", "snapshot", "judge", "explain"):
    cli.command(name)(lambda: None)
cli()
"""


def main(runs: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder, "bare.py")
        bare.write_text(BARE, encoding="utf-8")
        found = pairs([sys.executable, "-m", "warmspare", "--help"], [sys.executable, str(bare), "--help"], runs)
    print(summary("warmspare --help", [a for a, _ in found], "s"))
    print(summary("bare click app --help", [b for _, b in found], "s"))
    print(summary("ratio, pair by pair", [a / b for a, b in found], "x"))
    check = [sys.executable, "-m", "warmspare", "check", "--no-trials"]
    took = [wall_s(check, frozenset({0, 1, 3, 4})) for _ in range(runs + 1)][1:]
    print(summary("warmspare check --no-trials", took, "s"))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
