"""The bus bandwidth of an all-reduce of 1 GiB over all GPUs, run for run, and against other programs in turn.

    python benchmarks/allreduce.py [RUNS] [PROGRAM...]

Each run is a process of its own, as in the trial. A PROGRAM is nccl-tests' all_reduce_perf, or reference/allreduce.cu
built as its head says: anything that prints nccl-tests' last line. Runs and programs take turns, so that a ratio holds
when the machine's speed drifts.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from paired import summary

from warmspare.control.cuda import Driver
from warmspare.host import engine_nccl
from warmspare.trials.api import Steps
from warmspare.trials.collective import MIB
from warmspare.trials.nccl_allreduce import BUDGET_S, LOG, ROUNDS
from warmspare.trials.ranks import RanksProcess

SIZE_MIB: Final = 1024
PATIENCE_S: Final = 400.0
BUSBW: Final = re.compile(r"Avg bus bandwidth\s*:\s*([\d.]+)")


def ours(library: str, gpus: list[tuple[str, str]], size_mib: int) -> float:
    """GB/s of one run of the trial's own process."""
    with tempfile.TemporaryDirectory() as folder:
        added = {**LOG, "NCCL_DEBUG_FILE": f"{folder}/%p.log"}
        with RanksProcess(Steps(lambda _: None, Path(folder), PATIENCE_S), added) as ranks:
            ranks.prepare("prepare", "prepare", gpus, [size_mib * MIB])
            ranks.lever("load", "load", library)
            count = int(ranks.lever("join", "join"))
            took_s = float(ranks.lever("reduce", "reduce", size_mib * MIB, ROUNDS, BUDGET_S))
            ranks.lever("leave", "leave")
    return size_mib * MIB / took_s * 2 * (count - 1) / count / 1e9


def theirs(program: str, gpus: int, size_mib: int) -> float:
    """GB/s as another program prints it."""
    words = [str(size_mib)]
    if Path(program).name == "all_reduce_perf":
        words = ["-b", f"{size_mib}M", "-e", f"{size_mib}M", "-g", str(gpus), "-w", "5", "-n", "20", "-c", "0"]
    said = subprocess.run([program, *words], capture_output=True, text=True, check=True).stdout
    found = BUSBW.search(said)
    if found is None:
        sys.exit(f"{program} printed no bus bandwidth")
    return float(found[1])


def main(runs: int, programs: list[str], size_mib: int) -> None:
    """Measure and print."""
    library = engine_nccl.find(os.environ)
    if library is None:
        sys.exit("no NCCL library was found")
    gpus = [(f"gpu{n}", device.uuid) for n, device in enumerate(Driver().devices())]
    print(f"{library.shown}, {len(gpus)} GPUs, {size_mib} MiB")
    found: dict[str, list[float]] = {name: [] for name in ("ours", *programs)}
    for run in range(runs):
        found["ours"].append(ours(library.path, gpus, size_mib))
        for program in programs:
            found[program].append(theirs(program, len(gpus), size_mib))
        print(f"run {run + 1}: " + ", ".join(f"{values[-1]:.2f}" for values in found.values()) + " GB/s")
    for name, values in found.items():
        print(summary(Path(name).name, values, "GB/s"))
        print(f"{'spread':<34} {(max(values) - min(values)) / statistics.median(values):.2%}")
    for program in programs:
        ratios = [a / b for a, b in zip(found["ours"], found[program], strict=True)]
        print(summary(f"ours / {Path(program).name}", ratios, "x"))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, sys.argv[2:], int(os.environ.get("SIZE_MIB", SIZE_MIB)))
