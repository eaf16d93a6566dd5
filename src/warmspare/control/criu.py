"""CRIU as a lever: dump a process tree to a folder, restore it, and say why it refused."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Final

import msgspec

from warmspare.control.process import find_program

CAUSES: Final = (
    ("seccomp", re.compile(r"(?i)suspend(ing)? seccomp( failed|:)|Dumping seccomp filters not supported")),
    ("disk_full", re.compile(r"No space left on device")),
    ("pid_taken", re.compile(r"Pid \d+ do not match expected|Can't fork for \d+: File exists")),
    ("sock_diag", re.compile(r"[Dd]iag module missing|sock diag infrastructure is incomplete")),
    ("mount", re.compile(r"unreachable sharing|doesn't have a proper root mount|No mapping for")),
    ("read_only", re.compile(r"Read-only file system")),
    # Before too_old: a root without CAP_SYS_ADMIN cannot detect kernel features either.
    ("denied", re.compile(r"CRIU needs to have the CAP_|Error.*(?:Operation not permitted|Permission denied)")),
    ("too_old", re.compile(r"Could not initialize kernel features detection|Unexpected rt vDSO area bounds")),
)  # fmt: skip
"""Causes by the text that CRIU's log shows for them, the most telling first.

Source: criu/cr-check.c, criu/seccomp.c, criu/mount.c; checkpoint-restore/criu#2391, #2472, #2672.
"""
NOISE: Final = re.compile(r"rlimit: Can't setup RLIMIT_NOFILE|util\.c:\d+\): exited, status=")
"""Errors that CRIU logs on its way to success, too."""
LOG_LIMIT: Final = 4 * 2**20


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How one run of CRIU ended: its status (negative: a signal), the cause by its log, and the line for it."""

    status: int
    cause: str | None
    line: str

    @property
    def code(self) -> str:
        """The cause, or the bare exit status."""
        return self.cause or (f"signal {-self.status}" if self.status < 0 else f"status {self.status}")


class Criu:
    """One CRIU program. It leaves the environment as it is and only adds to it."""

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
        unprivileged = () if os.geteuid() == 0 else ("--unprivileged",)
        command = [
            self.program,
            action,
            *args,
            "--images-dir",
            str(images),
            "--log-file",
            log.name,
            "-v4",
            *unprivileged,
        ]
        # Its streams go to files: a restored process that held our pipe would keep it open.
        with (images / f"{action}.out").open("wb") as output:
            status = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=images, check=False
            ).returncode
        if status == 0:
            return Ended(status=0, cause=None, line="")
        cause, line = explain(_tail(log) + _tail(images / f"{action}.out"))
        if cause is None and os.statvfs(images).f_bfree == 0:  # the log itself was cut short
            cause = "disk_full"
        return Ended(status=status, cause=cause, line=line)


def explain(log: str) -> tuple[str | None, str]:
    """The cause that a CRIU log shows, and the line that shows it (else its last error)."""
    for cause, pattern in CAUSES:
        for line in log.splitlines():
            if pattern.search(line) and "Warn" not in line and not NOISE.search(line):
                return cause, _bare(line)
    errors = [line for line in log.splitlines() if "Error" in line]
    # The first one says why; those after it come from the callers that failed with it.
    telling = [line for line in errors if not NOISE.search(line)] or errors
    return None, _bare(telling[0]) if telling else "no error in the log"


def _bare(line: str) -> str:
    return re.sub(r"^\(\d+\.\d+\)\s*(\d+:\s*)?", "", line).strip()[:300]


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_LIMIT))
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
