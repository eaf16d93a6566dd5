"""Measure this host: CPU, memory, the start of a process, and every kind of file system we may write to."""

from __future__ import annotations

import math
import os
import platform
import ssl
from typing import Final

from warmspare.control import cpu_share, host_memory, speed, speed_tools
from warmspare.control.process import find_program
from warmspare.model.facts import Outcome
from warmspare.trials.api import Steps, trial
from warmspare.trials.speed import FileSystem, HostSpeed, Name
from warmspare.trials.speed_files import REPEATS, SHARE, SLOT_S, files_aside, places_of
from warmspare.trials.speed_found import Found

__all__ = ["HostSpeed", "host_speed"]

MEMORY: Final[tuple[Name, Name]] = ("memory_1_thread", "memory_n_threads")
MOST_MEMORY: Final = 512 * 2**20
TIMES_CACHE: Final = 2
"""How much more than the caches hold is copied, if a tenth of free memory is as much: then they keep none of it."""
THROTTLED_S: Final = 1.0
"""And under a quota of CPU time, which is dealt out in periods of a tenth of a second: then one repeat of many."""


@trial(
    deadline=60,
    touches="every CPU for about a second, a tenth of free memory (512 MiB at most, or twice the caches), and files of"
    " its own in a tenth of free disk space (256 MiB at most) in the scratch folder, /var/tmp, /dev/shm and, under WSL,"
    " on C:",
    quick=True,
)
def host_speed(steps: Steps) -> HostSpeed:
    """CPU, memory, process start and file systems, with the standard library alone; sysbench and fio add theirs.

    Of speeds the best of three short repeats is taken: other work on the host can only slow one down, so the best
    is nearest to what the host can do. Of single acts (starting a process, creating a file) it is the median of
    all that fit into the time: the best would be the one that something had made easy. Reads follow
    posix_fadvise(DONTNEED), and are left out where the pages stay; a hypervisor's own cache is not seen.
    """
    found, threads = Found(), steps.prepare("count the CPUs", _threads)
    places = steps.prepare("find file systems", places_of, found, steps.scratch)
    steps("cpu", _cpu, found, threads)
    steps("memory", _memory, found, threads)
    steps("process start", _process_start, found)
    systems = []
    for place, folder, kind in places:
        steps(f"files on {place}", files_aside, found, place, (folder, kind), steps.scratch)
        systems.append(FileSystem(place=place, type=kind))
    steps("sysbench", _sysbench, found, threads)
    return HostSpeed(
        outcome=Outcome(kind="done"),
        measures=tuple(found.measures),
        threads=threads,
        file_systems=tuple(systems),
        software=f"{platform.python_implementation()} {platform.python_version()}, {ssl.OPENSSL_VERSION}",
        lacking=tuple(found.lacking[:16]),
    )


def _threads() -> int:
    """As many as there are CPUs for, by a cgroup's quota too, and as a tenth of the free memory holds."""
    quota = cpu_share.quota()
    by_quota = cpu_share.cpus() if quota is None else math.ceil(quota)
    return max(1, min(cpu_share.cpus(), by_quota, host_memory.free_bytes() // SHARE // speed.WORKER_BYTES))


def _slots() -> tuple[float, int]:
    """How long a repeat of work on the CPUs takes, and how many there are."""
    return (SLOT_S, REPEATS) if cpu_share.quota() is None else (THROTTLED_S, 1)


def _cpu(found: Found, threads: int) -> None:
    found.ask("cpu_1_thread", speed.hashing, 1, *_slots())
    found.ask("cpu_n_threads", speed.hashing, threads, *_slots())


def _memory(found: Found, threads: int) -> None:
    share = host_memory.free_bytes() // SHARE
    if share < speed.LEAST_COPIED:
        found.lack(f"memory: a tenth of what is free is {share // 2**20} MiB, which caches would hold")
        return
    copiers = min(threads, speed.COPIERS)
    for name, workers, cache in zip(MEMORY, (1, copiers), host_memory.cache_bytes(), strict=True):
        used = min(share, max(MOST_MEMORY, TIMES_CACHE * cache))
        found.ask(name, speed.copying, workers, used, *_slots())
        if used < TIMES_CACHE * cache:
            found.lack(f"{name}: may be the speed of caches, which hold {cache // 2**20} MiB of {used // 2**20}")


def _process_start(found: Found) -> None:
    program = find_program("true", os.environ)
    if program:
        found.ask("process_start_ms", speed.starting, program, SLOT_S)
    else:
        found.add("process_start_ms", None, "there is no program true")


def _sysbench(found: Found, threads: int) -> None:
    found.ask("sysbench_cpu_per_s", speed_tools.sysbench_cpu, threads)
    found.ask("sysbench_memory_gb_per_s", speed_tools.sysbench_memory, threads)
