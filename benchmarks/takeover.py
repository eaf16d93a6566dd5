"""How long a takeover takes, over many kills, and whether any version taken over was not whole.

    python benchmarks/takeover.py [--kills 100] [--mib 1024] [--source GPU-…] [--target GPU-…] [--out FILE]

The writer runs on the source (the first GPU, if none is named) and is killed -9 at a random moment in mid-write, with
writes queued ahead; the reader owns four slots on the target (the second). Each version that is taken over is checked
by its checksum and against the pattern that it should be: at once, when the writer's process is gone, and a second
after the kill. Every kill is a row of the JSON file. Exit code 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import secrets
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from warmspare.control.cuda import Context, Driver
from warmspare.control.kernels import Kernels
from warmspare.trials.takeover_plants import sees_torn
from warmspare.trials.takeover_session import Kill, Session

PATIENCE_S: Final = 30.0
PLANTED_BYTES: Final = 65_536
TIMES: Final = ("takeover_s", "detect_s", "verify_s", "gone_s", "lag_s")


def main() -> int:
    """Measure, write and print."""
    options = _options()
    listed = [device.uuid for device in Driver().devices()]
    source = options.source or listed[0]
    target = options.target or listed[min(1, len(listed) - 1)]
    for gpu in (source, target):
        _be_sure_of_the_checks(gpu)
    started = time.monotonic()
    kills = _kills(source, target, options.mib << 20, options.kills)
    took_s = time.monotonic() - started
    summary = {name: _spread([value for kill in kills if (value := getattr(kill, name)) is not None]) for name in TIMES}
    counts = {
        "kills": len(kills),
        "wrong": sum(kill.wrong is not None for kill in kills),
        "lost, most at once": max(kill.lost for kill in kills),
        "lost though known to be whole": sum(max(0, kill.acknowledged - kill.version) for kill in kills),
        "slots in mid-write": sum(kill.unsealed for kill in kills),
        "kills in mid-write": sum(kill.unsealed > 0 for kill in kills),
        "slots sealed and torn": sum(kill.torn for kill in kills),
    }
    if options.out:
        told = {"source": source, "target": target, "mib": options.mib, "took_s": took_s, "counts": counts,
                "summary": summary, "kills": kills}  # fmt: skip
        Path(options.out).write_bytes(msgspec.json.format(msgspec.json.encode(told)))
    print(f"{options.mib} MiB, {source} → {target}, {took_s:.0f} s in all")
    for name, spread in summary.items():
        print(f"{name:10}", "  ".join(f"{word} {value * 1e3:.2f} ms" for word, value in spread.items()))
    for name, count in counts.items():
        print(f"{name}: {count}")
    for wrong in {kill.wrong for kill in kills if kill.wrong}:
        print(f"WRONG: {wrong}")
    return int(counts["wrong"] > 0)


def _kills(source: str, target: str, size: int, wanted: int) -> list[Kill]:
    """The next writer starts once the last is dead, while its version is left to lie: it disturbs no measurement."""
    kills: list[Kill] = []
    session = Session(source, target, size)
    session.be_ready(PATIENCE_S)
    while True:
        if wrong := session.run(PATIENCE_S):
            sys.exit(f"WRONG before kill {len(kills) + 1}: {wrong}")
        if not session.kill(PATIENCE_S):
            sys.exit(f"nothing was taken over within {PATIENCE_S:g} s of kill {len(kills) + 1}")
        following = Session(source, target, size) if len(kills) + 1 < wanted else None
        if following:
            following.be_ready(PATIENCE_S)
        kills.append(session.verify_again(PATIENCE_S))
        session.close()
        if not following:
            return kills
        session = following


def _be_sure_of_the_checks(gpu: str) -> None:
    context = Context(Driver().device(gpu))
    kernels, seed = Kernels(context), secrets.randbits(63)
    planted = context.allocate(PLANTED_BYTES)
    if not kernels.sees_faults(planted, seed) or not sees_torn(context, kernels, seed):
        sys.exit(f"a planted fault was not seen on {gpu}")
    planted.free()
    kernels.close()


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    in_order = sorted(values)
    return {"median": statistics.median(in_order), "p95": in_order[-(-95 * len(in_order) // 100) - 1],
            "max": in_order[-1]}  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--source")
    parser.add_argument("--target")
    parser.add_argument("--out")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
