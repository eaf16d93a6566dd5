"""Every kind of file system that we may write to: found, and measured each in a process that may be stopped."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from warmspare.control import aside, host_memory, speed_tools
from warmspare.control.file_speed import IN_MEMORY, LEAST, MAYBE_MEMORY, OWN_CACHE, Files, free_bytes, kind_of
from warmspare.trials import leftover
from warmspare.trials.speed import Measure, Name, Place
from warmspare.trials.speed_found import Found

SHARE: Final = 10
"""A tenth of what is free is used, of memory and of a disk."""
MOST_FILES: Final = 256 * 2**20
SLOT_S: Final = 0.12
"""How long one repeat of one figure takes, about."""
REPEATS: Final = 3
PLACE_S: Final = 10.0
"""How long one file system may take with all of its figures; some never answer."""
FIND_S: Final = 2.0
"""How long it may take to say what it is, and whether it can be written."""
STAYS: Final = "its pages stay in memory when they are dropped"
WINDOWS: Final = frozenset({"9p", "drvfs", "virtiofs"})
"""What WSL mounts the Windows disk as. Source: microsoft/WSL, wsl.conf's automount, virtiofs in .wslconfig."""


class _Seen(NamedTuple):
    """What a folder is on: the mount point, the file system's type, and whether we may write there."""

    point: str
    kind: str
    is_writable: bool


def places_of(found: Found, scratch: Path) -> list[tuple[Place, Path, str]]:
    """One folder that we may write in for each kind of place, and its file system's type."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    places: dict[Place, tuple[Path, str]] = {}
    for root in dict.fromkeys((scratch.parent, *leftover.scratch_roots(), *leftover.WINDOWS_ROOTS)):
        seen, on_windows = list[_Seen](), root in leftover.WINDOWS_ROOTS
        problem = aside.follow(
            lambda tell, root=root: tell(_seen(root, mounts)),  # type: ignore[misc] # bound to this turn's root
            lambda line, seen=seen: seen.append(msgspec.json.decode(line, type=_Seen)),  # type: ignore[misc] # likewise
            FIND_S,
        )
        if not seen:
            # No path: a run's file is given to others.
            found.lack(f"{'mnt_c' if on_windows else 'a folder for temporary files'}: {problem}")
            continue
        point, kind, writable = seen[0]
        place: Place = "mnt_c" if on_windows else "tmpfs" if kind in IN_MEMORY else "disk"
        if on_windows and not (kind in WINDOWS and point == "/mnt/c"):
            continue
        if place not in places and writable:
            places[place] = root, kind
    return [(place, root, kind) for place, (root, kind) in places.items()]


def _seen(root: Path, mounts: str) -> _Seen:
    return _Seen(*kind_of(root, mounts), os.access(root, os.W_OK))


def files_aside(found: Found, place: Place, on: tuple[Path, str], scratch: Path) -> None:
    """Its figures as far as it gives them in time; a file system that fails is no failure of the host's others."""
    _, kind = on

    def work(tell: aside.Tell) -> None:
        theirs = Found(tell)
        try:
            _files(theirs, place, on, scratch)
        except OSError as error:
            theirs.lack(f"{place} ({kind}): {error.strerror or error}")

    problem = aside.follow(work, lambda line: found.take(msgspec.json.decode(line, type=Measure | str)), PLACE_S)
    if problem:
        found.lack(f"{place} ({kind}): {problem}")


def _files(found: Found, place: Place, on: tuple[Path, str], scratch: Path) -> None:
    root, kind = on
    with _folder(root, scratch) as folder:
        budget = min(free_bytes(folder) // SHARE, MOST_FILES)
        if kind in MAYBE_MEMORY:
            budget = min(budget, host_memory.free_bytes() // SHARE)
        if budget < LEAST:
            found.lack(f"{place}: a tenth of what is free is {budget // 2**20} MiB")
            return
        files = Files(folder, budget, SLOT_S)
        found.add(_name(f"{place}_write_gb_per_s"), files.writing(REPEATS))
        _reads(found, place, kind, files)
        found.add(_name(f"{place}_create_ms"), files.creating())
        if place == "disk":
            (folder / "data").unlink()
            found.ask("disk_fio_random_read_per_s", speed_tools.fio, folder, "randread", files.size_bytes)
            found.ask("disk_fio_random_write_per_s", speed_tools.fio, folder, "randwrite", files.size_bytes)


def _reads(found: Found, place: Place, kind: str, files: Files) -> None:
    stays = STAYS + (": what is under it may be memory" if kind in MAYBE_MEMORY else "")
    stays = f"{kind} has a cache of its own, which stays" if kind in OWN_CACHE else "" if place == "tmpfs" else stays
    own = kind in OWN_CACHE
    found.add(_name(f"{place}_read_gb_per_s"), None if own else files.reading(REPEATS), stays)
    found.add(_name(f"{place}_random_read_per_s"), None if own else files.reading_at_random(), stays)


def _name(text: str) -> Name:
    return msgspec.convert(text, Name)  # type: ignore[no-any-return] # a Literal is no class


@contextlib.contextmanager
def _folder(root: Path, scratch: Path) -> Iterator[Path]:
    """A folder of the trial's own in `root`, named like its scratch folder: whoever clears that away finds it too."""
    token = scratch.name.removeprefix(leftover.PREFIX).partition("-")[0]
    folder = Path(tempfile.mkdtemp(prefix=f"{leftover.PREFIX}{token}-", dir=root))
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # where nothing can be locked, no other run can take it for a stale one
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)
