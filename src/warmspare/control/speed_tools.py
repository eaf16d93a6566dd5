"""sysbench and fio, where they are installed: short runs, and the one figure read out of what each says."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Final, Literal

import msgspec

from warmspare.control.process import find_program

PATIENCE_S: Final = 5.0
"""How long one run may take, which is asked to take one second."""
MIB: Final = 2**20


class Unusable(Exception):
    """A tool that is there did not give its figure; the message is one line that says why."""


class _Side(msgspec.Struct):
    iops: float


class _Job(msgspec.Struct):
    error: int
    read: _Side
    write: _Side


class _Said(msgspec.Struct):
    jobs: list[_Job]


def sysbench_cpu(threads: int) -> float | None:
    """Prime searches a second, of all threads; None where sysbench is not installed.

    Raises:
        Unusable: it is there and gave no such figure.
    """
    said = _ran("sysbench", "cpu", f"--threads={threads}", "--time=1", "run")
    return None if said is None else _number(r"events per second:\s+([\d.]+)", said, "sysbench")


def sysbench_memory(threads: int) -> float | None:
    """Writes of 1 MiB blocks, GB/s of all threads; None and Unusable as for `sysbench_cpu`."""
    options = ("--memory-block-size=1M", "--memory-total-size=1T", f"--threads={threads}", "--time=1")
    said = _ran("sysbench", "memory", *options, "run")
    return None if said is None else _number(r"\(([\d.]+) MiB/sec\)", said, "sysbench") * MIB / 1e9


def fio(folder: Path, pattern: Literal["randread", "randwrite"], size_bytes: int) -> float | None:
    """Operations of 4 KiB a second, one at a time and past the page cache, on one file in `folder`.

    None and Unusable as for `sysbench_cpu`; a file system without O_DIRECT is among the reasons.
    Source: fio(1), JSON output.
    """
    said = _ran(
        "fio", "--name=warmspare", f"--filename={folder / 'fio'}", f"--rw={pattern}", f"--size={size_bytes}",
        "--bs=4k", "--direct=1", "--ioengine=psync", "--runtime=1", "--time_based", "--thread",
        "--output-format=json", cwd=folder,
    )  # fmt: skip
    if said is None:
        return None
    try:  # older ones say a note before it
        job = msgspec.json.decode(said[said.index("{") :].encode(), type=_Said).jobs[0]
    except (ValueError, IndexError, msgspec.DecodeError) as error:
        message = f"fio's answer was not understood: {error}"[:200]
        raise Unusable(message) from None
    found = (job.read if pattern == "randread" else job.write).iops
    if job.error or found <= 0:
        message = f"fio's job ended with error {job.error}"
        raise Unusable(message)
    return found


def _ran(name: str, *arguments: str, cwd: Path | None = None) -> str | None:
    program = find_program(name, os.environ)
    if program is None:
        return None
    try:
        ran = subprocess.run(
            [program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=PATIENCE_S, cwd=cwd, check=True,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip() or error.stdout.strip() or "nothing").splitlines()[-1]
        last = last.replace(str(cwd), "its folder") if cwd else last  # a run's file is given to others
        message = f"{name} ended with status {error.returncode}: {last}"[:200]
    except subprocess.TimeoutExpired:
        message = f"{name} did not end within {PATIENCE_S:g} s"
    except OSError as error:
        message = f"{name} could not be started: {error.strerror}"
    else:
        return ran.stdout
    raise Unusable(message) from None


def _number(pattern: str, said: str, name: str) -> float:
    found = re.search(pattern, said)
    if not found:
        message = f"{name}'s answer has no figure"
        raise Unusable(message)
    return float(found[1])
