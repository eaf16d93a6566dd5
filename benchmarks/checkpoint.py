"""`warmspare checkpoint` and `restore` against the driver's calls and CRIU by hand, in turn, on the same storage.

    python benchmarks/checkpoint.py [--gib 12] [--runs 3] FOLDER

One process holds the memory; in each run it is written to FOLDER and brought back twice, once by either. By hand is
the least that does it, command by command: `cuda-checkpoint` (the stand-in of `warmspare shim`, some 0.06 s a start)
locks and checkpoints, `criu dump`, the process gone; `criu restore`, and it restores (with cuInit) and unlocks. Ours
are the two commands as a user gives them, Python's start, the checksums and what is looked at beforehand included.
What either left in the kernel's hands is brought to disk before the other begins, and they take turns in who begins.
Wants root.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from holder import Holder
from paired import summary

from warmspare.control import process
from warmspare.control.criu import Criu
from warmspare.control.cuda_driver import Driver

TOOL = (sys.executable, "-m", "warmspare")


def by_hand(lever: Path, criu: Criu, pid: int, images: Path) -> tuple[float, float]:
    """Seconds to disk, and back."""
    images.mkdir(mode=0o700)

    def pull(*actions: str) -> None:
        for action in actions:
            subprocess.run([str(lever), "--action", action, "--pid", str(pid)], check=True)

    def dump() -> None:
        _criu(criu, images, "dump", "--tree", str(pid))
        os.waitpid(pid, 0)

    acts: tuple[Callable[[], object], ...] = (
        lambda: pull("lock", "checkpoint"),
        dump,
        lambda: _criu(criu, images, "restore", "--restore-detached"),
        lambda: pull("restore", "unlock"),
    )
    took = [_seconds(act) for act in acts]
    print("by hand: driver {:.2f}, dump {:.2f}; restore {:.2f}, driver {:.2f} s".format(*took))
    return took[0] + took[1], took[2] + took[3]


def _criu(criu: Criu, images: Path, *words: str) -> None:
    with (images / f"{words[0]}.out").open("wb") as out:
        command = [criu.program, *words, "--images-dir", str(images), "--log-file", f"{words[0]}.log"]
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=True)


def ours(pid: int, images: Path) -> tuple[float, float]:
    """The same by the two commands."""
    down = _seconds(lambda: _command("checkpoint", str(pid), str(images)))
    os.waitpid(pid, 0)
    return down, _seconds(lambda: _command("restore", str(images)))


def _command(*words: str) -> None:
    ended = subprocess.run([*TOOL, *words], capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(f"warmspare {' '.join(words)} ended with {ended.returncode}: {ended.stderr[-600:]}")
    print(ended.stdout, end="", flush=True)


def _seconds(act: Callable[[], object]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def storage(folder: Path) -> str:
    """The kind of file system, its device, and what it has free."""
    df = str(process.find_program("df", os.environ))
    command = [df, "--output=fstype,source,avail", "--block-size=G", str(folder)]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[1]
    return " ".join(words.split())


def main(gib: float, runs: int, folder: Path) -> int:
    """Measure and print; 1 if the process lost something."""
    criu = Criu.found()
    if criu is None:
        sys.exit("no CRIU was found")
    process.become_subreaper()  # what CRIU restores becomes ours, and is reaped here when it is written again
    driver, rows, right = Driver(), [], True
    subprocess.run([*TOOL, "shim", str(folder)], stdout=subprocess.DEVNULL, check=True)
    print(f"{gib:g} GiB on {storage(folder)}")
    with Holder(gib, folder) as holder:
        cycles: dict[str, Callable[[Path], tuple[float, float]]] = {
            "hand": lambda images: by_hand(folder / "cuda-checkpoint", criu, holder.pid, images),
            "ours": lambda images: ours(holder.pid, images),
        }
        for run in range(runs):
            found: dict[str, tuple[float, float]] = {}
            for name in ("hand", "ours") if run % 2 == 0 else ("ours", "hand"):
                os.sync()
                images = folder / f"{name}-{run}"
                found[name] = cycles[name](images)
                right = holder.is_right() and right
                shutil.rmtree(images)
                print(f"run {run + 1}, {name}: {found[name][0]:.2f} s down, {found[name][1]:.2f} s up", flush=True)
            hand, own = found["hand"], found["ours"]
            rows.append((hand, own))
        _end(driver, holder.pid)
        holder.process.returncode = 0
    for n, half in enumerate(("checkpoint", "restore")):
        print(summary(f"{half}, by hand", [hand[n] for hand, _ in rows], "s"))
        print(summary(f"{half}, ours", [own[n] for _, own in rows], "s"))
        print(summary(f"{half}, ours / by hand", [own[n] / hand[n] for hand, own in rows], "x"))
    print("the bytes are right" if right else "the bytes are WRONG")
    return 0 if right else 1


def _end(driver: Driver, pid: int) -> None:
    """A restored process is suspended again before it is killed. Source: NVIDIA/cuda-checkpoint#53."""
    driver.call("cuCheckpointProcessLock", pid, None)
    driver.call("cuCheckpointProcessCheckpoint", pid, None)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gib", type=float, default=12.0)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    sys.exit(main(options.gib, options.runs, options.folder))
