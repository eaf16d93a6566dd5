"""Measure this host: CPU, memory, the start of a process, and every kind of file system we may write to."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import platform
import shutil
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from warmspare.control import cpu_share, host_memory, speed, speed_tools
from warmspare.control.file_speed import IN_MEMORY, LEAST, Files, free_bytes, kind_of
from warmspare.control.process import find_program
from warmspare.model.facts import Outcome
from warmspare.trials import child
from warmspare.trials.api import Steps, trial
from warmspare.trials.speed import FileSystem, HostSpeed, Measure, Name, Place, measure

__all__ = ["HostSpeed", "host_speed"]

SHARE: Final = 10
"""A tenth of what is free is used, of memory and of a disk."""
MOST_MEMORY: Final = 512 * 2**20
MOST_FILES: Final = 256 * 2**20
SLOT_S: Final = 0.12
"""How long one repeat of one figure takes, about."""
REPEATS: Final = 3
THROTTLED_S: Final = 1.0
"""And under a quota of CPU time, which is dealt out in periods of a tenth of a second: then one repeat of many."""
WINDOWS: Final = frozenset({"9p", "drvfs", "virtiofs"})
"""What WSL mounts the Windows disk as. Source: microsoft/WSL, wsl.conf's automount, virtiofs in .wslconfig."""


class _Found:
    """What was measured so far, and what could not be."""

    def __init__(self) -> None:
        self.measures: list[Measure] = []
        self.lacking: list[str] = []

    def add(self, name: Name, value: float | None, why_none: str = "") -> None:
        """Take a figure; None is told with its reason, if one is given."""
        if value:
            self.measures.append(measure(name, value))
        elif why_none:
            self.lacking.append(f"{name}: {why_none}"[:200])

    def ask(self, name: Name, tool: Callable[..., float | None], *arguments: Any) -> None:  # noqa: ANN401 # the tool's
        """Take a figure of a tool that may not be installed, no lack; one that cannot be had costs no other."""
        try:
            self.add(name, tool(*arguments))
        except (speed_tools.Unusable, OSError) as error:
            self.add(name, None, (error.strerror if isinstance(error, OSError) else None) or str(error))


@trial(
    deadline=60,
    touches="every CPU for about a second, a tenth of free memory (512 MiB at most), and files of its own in a tenth"
    " of free disk space (256 MiB at most) in the scratch folder, /var/tmp, /dev/shm and, under WSL, on C:",
    quick=True,
)
def host_speed(steps: Steps) -> HostSpeed:
    """CPU, memory, process start and file systems, with the standard library alone; sysbench and fio add theirs.

    Of speeds the best of three short repeats is taken: other work on the host can only slow one down, so the best
    is nearest to what the host can do. Of single acts (starting a process, creating a file) it is the median of
    all that fit into the time: the best would be the one that something had made easy. Reads follow
    posix_fadvise(DONTNEED), and are left out where the pages stay; a hypervisor's own cache is not seen.
    """
    found, threads = _Found(), steps.prepare("count the CPUs", _threads)
    places = steps.prepare("find file systems", _places, steps.scratch)
    steps("cpu", _cpu, found, threads)
    steps("memory", _memory, found, threads)
    steps("process start", _process_start, found)
    systems = []
    for place, folder, kind in places:
        try:
            steps(f"files on {place}", _files, found, place, folder, steps.scratch)
        except OSError as error:  # one file system that fails is no failure of the host's others
            found.lacking.append(f"{place} ({kind}): {error.strerror or error}"[:200])
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


def _cpu(found: _Found, threads: int) -> None:
    found.ask("cpu_1_thread", speed.hashing, 1, *_slots())
    found.ask("cpu_n_threads", speed.hashing, threads, *_slots())


def _memory(found: _Found, threads: int) -> None:
    total = min(host_memory.free_bytes() // SHARE, MOST_MEMORY)
    if total < speed.LEAST_COPIED:
        found.lacking.append(f"memory: a tenth of what is free is {total // 2**20} MiB, which caches would hold")
        return
    found.ask("memory_1_thread", speed.copying, 1, total, *_slots())
    found.ask("memory_n_threads", speed.copying, min(threads, speed.COPIERS), total, *_slots())


def _process_start(found: _Found) -> None:
    program = find_program("true", os.environ)
    if program:
        found.ask("process_start_ms", speed.starting, program, SLOT_S)
    else:
        found.add("process_start_ms", None, "there is no program true")


def _places(scratch: Path) -> list[tuple[Place, Path, str]]:
    """One folder that we may write in for each kind of place, and its file system's type."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    found: dict[Place, tuple[Path, str]] = {}
    for root in (scratch.parent, *child.scratch_roots(), *child.WINDOWS_ROOTS):
        point, kind = kind_of(root, mounts)
        on_windows = root in child.WINDOWS_ROOTS
        place: Place = "mnt_c" if on_windows else "tmpfs" if kind in IN_MEMORY else "disk"
        if on_windows and not (kind in WINDOWS and point == "/mnt/c"):
            continue
        if place not in found and os.access(root, os.W_OK):
            found[place] = root, kind
    return [(place, root, kind) for place, (root, kind) in found.items()]


def _files(found: _Found, place: Place, root: Path, scratch: Path) -> None:
    with _folder(root, scratch) as folder:
        budget = min(free_bytes(folder) // SHARE, MOST_FILES)
        if place == "tmpfs":
            budget = min(budget, host_memory.free_bytes() // SHARE)
        if budget < LEAST:
            found.lacking.append(f"{place}: a tenth of what is free is {budget // 2**20} MiB")
            return
        files, kept = Files(folder, budget, SLOT_S), "its pages stay in memory when they are dropped"
        stays = "" if place == "tmpfs" else kept
        found.add(_name(f"{place}_write_gb_per_s"), files.writing(REPEATS))
        found.add(_name(f"{place}_read_gb_per_s"), files.reading(REPEATS), stays)
        found.add(_name(f"{place}_random_read_per_s"), files.reading_at_random(), stays)
        found.add(_name(f"{place}_create_ms"), files.creating())
        if place == "disk":
            (folder / "data").unlink()
            found.ask("disk_fio_random_read_per_s", speed_tools.fio, folder, "randread", files.size_bytes)
            found.ask("disk_fio_random_write_per_s", speed_tools.fio, folder, "randwrite", files.size_bytes)


def _sysbench(found: _Found, threads: int) -> None:
    found.ask("sysbench_cpu_per_s", speed_tools.sysbench_cpu, threads)
    found.ask("sysbench_memory_gb_per_s", speed_tools.sysbench_memory, threads)


def _name(text: str) -> Name:
    return msgspec.convert(text, Name)  # type: ignore[no-any-return] # a Literal is no class


@contextlib.contextmanager
def _folder(root: Path, scratch: Path) -> Iterator[Path]:
    """A folder of the trial's own in `root`, named like its scratch folder: whoever clears that away finds it too."""
    token = scratch.name.removeprefix(child.PREFIX).partition("-")[0]
    folder = Path(tempfile.mkdtemp(prefix=f"{child.PREFIX}{token}-", dir=root))
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # where nothing can be locked, no other run can take it for a stale one
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)
