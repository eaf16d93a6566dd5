"""A trial's scratch folder, and how all that a trial left is cleared away, by its keeper or by a later run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from warmspare.control import cgroups, process
from warmspare.model.facts import Cause
from warmspare.trials import awaken, gentle
from warmspare.trials.api import NotTried

PREFIX: Final = "warmspare-trial-"
WINDOWS_ROOTS: Final = (Path("/mnt/c/Users/Public"), Path("/mnt/c/Windows/Temp"))
"""Folders on the Windows disk under WSL that everybody may write to; only a trial that measures that disk does."""
LOCK_GRACE_S: Final = 5.0
"""A folder younger than this whose trial still has processes may be one that is not locked yet."""


def scratch_roots() -> tuple[Path, ...]:
    """Where scratch folders may be made, the preferred first: disk, then memory for read-only disks."""
    roots = ["/var/tmp", "/dev/shm", "/run"]  # noqa: S108 # mkdtemp makes private folders there
    with contextlib.suppress(FileNotFoundError):  # it has tried to write, and could nowhere
        roots.insert(0, tempfile.gettempdir())
    return tuple(dict.fromkeys(map(Path, roots)))


@contextlib.contextmanager
def scratch_folder(token: str) -> Iterator[Path]:
    """A private folder, locked while its keeper lives so that a later run can tell a stale one.

    It stays where a restored process of it had to be left alive, or an engine may have been left asleep.
    """
    problem: OSError | None = None
    for root in scratch_roots():
        try:
            folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{token}-", dir=root))
        except OSError as error:
            problem = error
            continue
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield folder
        finally:
            if not gentle.alive([folder], token) and not awaken.owed(folder):
                shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
        return
    raise NotTried(Cause.DENIED, f"no folder can be written for the trial: {problem}")


def sweep_stale() -> list[str]:
    """Clear away what a killed keeper left: its tagged processes, then its folder. Returns what stays."""
    left = []
    for root in (*scratch_roots(), *WINDOWS_ROOTS):
        with contextlib.suppress(OSError):
            for folder in root.glob(f"{PREFIX}*"):
                token = folder.name.removeprefix(PREFIX).partition("-")[0]
                if _is_stale(folder, token):
                    left += clear(token)
    return left


def clear(token: str, waking: Callable[[], None] | None = None) -> list[str]:
    """End every process that carries `token`, then remove its folders and control groups. Returns what stays."""
    return cleared(token, lambda spared: process.end_tagged(token, spared), waking)


def cleared(
    token: str, end: Callable[[frozenset[int]], list[int]], waking: Callable[[], None] | None = None
) -> list[str]:
    """End all but what was restored, whose levers one of them may still pull; suspend that; end the rest.

    An engine that may be asleep is woken. With `waking`, which is called first, that may take `awaken.WAKE_S`.
    """
    restored = gentle.alive(_folders(token), token)
    stubborn = end(restored)
    left = gentle.settle(restored)
    if restored:
        stubborn = end(frozenset(left))
        left = {pid: left[pid] for pid in left.keys() & gentle.alive(_folders(token), token)}
    if waking and any(map(awaken.owed, _folders(token))):
        waking()
    asleep = awaken.settle(_folders(token), awaken.WAKE_S if waking else awaken.LIMIT_S)
    kept = [] if left or asleep else _clear_folders(token)
    return [*gentle.by_hand(left), *(f"pid {pid}" for pid in stubborn), *asleep, *kept]


def _folders(token: str) -> list[Path]:
    found: list[Path] = []
    for root in (*scratch_roots(), *WINDOWS_ROOTS):
        with contextlib.suppress(OSError):
            found += root.glob(f"{PREFIX}{token}-*")
    return found


def _clear_folders(token: str) -> list[str]:
    for folder in (found := _folders(token)):
        shutil.rmtree(folder, ignore_errors=True)
    return [*(str(folder) for folder in found if folder.exists()), *cgroups.remove(f"{PREFIX}{token}")]


def _is_stale(folder: Path, token: str) -> bool:
    """Ours, a real folder, and no keeper holds its lock or is just about to."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        seen = os.fstat(lock)
        young = time.time() - seen.st_mtime < LOCK_GRACE_S and bool(process.tagged(token))
        if seen.st_uid != os.geteuid() or young:
            return False
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True
