"""CRIU as a lever: dump a process tree to a folder, restore it, and say why it refused."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Final

import msgspec

from warmspare.control.process import find_program
from warmspare.model.criu_log import Cause, explain

LOG_LIMIT: Final = 4 * 2**20
CAP_SYS_ADMIN: Final = 21


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How one run of CRIU ended: its status (negative: a signal), the cause by its log, and the line for it."""

    status: int
    cause: Cause | None
    line: str

    @property
    def code(self) -> str:
        """The cause, or the bare exit status."""
        return self.cause or (f"signal {-self.status}" if self.status < 0 else f"status {self.status}")


class Criu:
    """One CRIU program, given the environment as it is but for its own configuration."""

    def __init__(self, program: str) -> None:
        """Use `program`, an absolute path."""
        self.program = program

    @classmethod
    def found(cls) -> Criu | None:
        """The CRIU of WARMSPARE_CRIU, PATH or the usual folders."""
        program = find_program("criu", os.environ)
        return cls(program) if program else None

    def dump(self, pid: int, images: Path) -> Ended:
        """Dump the tree under `pid` into `images` and end it; the caller checks that it is gone."""
        return self._run(images, "dump", "--tree", str(pid))

    def restore(self, images: Path) -> Ended:
        """Restore the tree from `images`, detached; it becomes the child of the nearest subreaper."""
        return self._run(images, "restore", "--restore-detached", "--pidfile", "restored.pid")

    def _run(self, images: Path, action: str, *args: str) -> Ended:
        log = images / f"{action}.log"
        unprivileged = ("--unprivileged",) if _needs_unprivileged() else ()
        # The user's configuration must not steer us: `leave-running`, say, or a script.
        environment = {name: value for name, value in os.environ.items() if name != "CRIU_CONFIG_FILE"}
        command = [
            self.program,
            action,
            *args,
            "--images-dir",
            str(images),
            "--log-file",
            log.name,
            "-v4",
            "--no-default-config",
            *unprivileged,
        ]
        # Its streams go to files: a restored process that held our pipe would keep it open.
        with (images / f"{action}.out").open("wb") as out:
            status = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=images, env=environment, check=False
            ).returncode
        if status == 0:
            return Ended(status=0, cause=None, line="")
        cause, line = explain(_tail(log) + _tail(images / f"{action}.out"))
        if cause is None and os.statvfs(images).f_bfree == 0:  # the log itself was cut short
            cause = "disk_full"
        return Ended(status=status, cause=cause, line=line)


def _needs_unprivileged() -> bool:
    """Whether CRIU must be told to do without CAP_SYS_ADMIN: a container's root has none either.

    Source: proc_pid_status(5); linux/capability.h.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return effective is None or not int(effective[1], 16) >> CAP_SYS_ADMIN & 1


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_LIMIT))
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
