"""What a run may leave behind, looked for in its own corner: other runs on this machine do not count."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

MARK: Final = "WARMSPARE_TEST"
"""Set in the environment of a run: a trial hands the whole of it on to all it starts."""
FALLBACKS: Final = tuple(map(Path, ("/var/tmp", "/dev/shm", "/run")))  # noqa: S108 # looked at, not written
PATIENCE_S: Final = 20.0


class Corner:
    """A scratch root of its own and a mark in the environment, by which whatever a run leaves is known."""

    def __init__(self, scratch: Path) -> None:
        """Remember what is there before the run."""
        self.scratch = scratch
        self.scratch.mkdir(exist_ok=True)
        self.mark = secrets.token_hex(8)
        self.env = {MARK: self.mark, "TMPDIR": str(scratch)}
        self._namespaces = set(namespaces())
        self._fallbacks = self._elsewhere()

    def processes(self) -> list[int]:
        """Every process with the mark, zombies left out."""
        return [pid for pid in pids() if f"{MARK}={self.mark}".encode() in environ(pid)]

    def folders(self) -> list[Path]:
        """Trial folders in the scratch root, and new ones in the roots that a trial falls back to."""
        new = self._elsewhere() - self._fallbacks
        # Of a run that still goes on: of ours, its keeper counts as a process; all others are no matter of this corner.
        held = locked() if new else frozenset()
        left = [one for one in new if one.exists() and inode(one) not in held]
        return [*self.scratch.glob("warmspare-trial-*"), *left]

    def left(self) -> dict[str, object]:
        """All that is left now, by its kind; empty when nothing is."""
        found = {
            "processes": self.processes(),
            "folders": self.folders(),
            "namespaces": self._new_namespaces(),
        }
        return {kind: things for kind, things in found.items() if things}

    def left_in_the_end(self) -> dict[str, object]:
        """What is still left when everything had its time to end."""
        until(lambda: not self.left())
        return self.left()

    def _new_namespaces(self) -> set[str]:
        """New ones, unless all that are in them are strangers."""
        new = {name: pids for name, pids in namespaces().items() if name not in self._namespaces}
        return {name for name, pids in new.items() if not all(map(self._is_stranger, pids))}

    def _is_stranger(self, pid: int) -> bool:
        """Whether it has an environment without the mark; one that has none (it ends, or starts) is as its parent."""
        mark, own = f"{MARK}={self.mark}".encode(), environ(pid)
        if own != [b""]:
            return mark not in own
        above = parent(pid)
        if above is None or above in (1, os.getpid()):
            return False
        its = environ(above)
        return len(its) > 1 and mark not in its

    @staticmethod
    def _elsewhere() -> set[Path]:
        return {folder for root in FALLBACKS for folder in root.glob("warmspare-trial-*")}


def until(true: Callable[[], object], patience_s: float | None = None) -> bool:
    """Whether it becomes true in time. For what no event tells: the end of processes that are not ours to wait for."""
    deadline = time.monotonic() + (PATIENCE_S if patience_s is None else patience_s)
    while not (seen := true()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(seen)


def pids() -> list[int]:
    """All processes but this one."""
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and path.name != str(os.getpid())]


def environ(pid: int) -> list[bytes]:
    """A process's environment as it was started; empty when it is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def parent(pid: int) -> int | None:
    """Whose child it is; None when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def locked() -> frozenset[int]:
    """The inodes of what somebody holds by flock, as the kernel lists them: to try the lock would get in the way."""
    lines = Path("/proc/locks").read_text().splitlines()
    return frozenset(int(line.split()[5].rpartition(":")[2]) for line in lines if "FLOCK" in line and "->" not in line)


def inode(path: Path) -> int | None:
    """Its number; None when it is gone."""
    try:
        return path.stat().st_ino
    except OSError:
        return None


def namespaces() -> dict[str, list[int]]:
    """Every namespace that a process is in, and who is in it."""
    found: dict[str, list[int]] = {}
    for pid in pids():
        with contextlib.suppress(OSError):
            for link in Path(f"/proc/{pid}/ns").iterdir():
                with contextlib.suppress(OSError):
                    found.setdefault(str(link.readlink()), []).append(pid)
    return found


@contextlib.contextmanager
def small_disk(path: Path, *options: str) -> Iterator[Path]:
    """A file system of 1 MiB, mounted at `path`. Root only."""
    path.mkdir(exist_ok=True)
    mount = ["/bin/mount", "-t", "tmpfs", "-o", ",".join(("size=1m", *options)), "tmpfs", str(path)]
    subprocess.run(mount, check=True)
    try:
        yield path
    finally:
        subprocess.run(["/bin/umount", "--lazy", str(path)], check=True)
