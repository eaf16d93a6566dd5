"""What CRIU's own words mean: the cause behind a log of its, and the line that shows it."""

from __future__ import annotations

import re
from typing import Final, Literal

Cause = Literal["seccomp", "disk_full", "read_only", "pid_taken", "sock_diag", "mount", "too_old", "denied"]

CAUSES: Final[tuple[tuple[Cause, re.Pattern[str]], ...]] = (
    ("seccomp", re.compile(r"(?i)suspend(ing)? seccomp( failed|:)|Dumping seccomp filters not supported")),
    ("disk_full", re.compile(r"No space left on device")),
    ("read_only", re.compile(r"Read-only file system")),
    ("pid_taken", re.compile(r"Pid \d+ do not match expected|Can't fork for \d+: File exists")),
    ("sock_diag", re.compile(r"[Dd]iag module missing|sock diag infrastructure is incomplete")),
    ("mount", re.compile(r"unreachable sharing|doesn't have a proper root mount|No mapping for")),
    ("too_old", re.compile(r"Unexpected rt vDSO area bounds")),
    ("denied", re.compile(r"Operation not permitted|Permission denied|CRIU needs to have the CAP_|ptrace.*not impl")),
    # Last: whatever kept it from looking at the kernel, a line above says what; else it does not know this one.
    ("too_old", re.compile(r"Could not initialize kernel features detection")),
)
"""Causes by the text that CRIU's errors show for them, the most telling first.

Source: criu/cr-check.c, criu/seccomp.c, criu/mount.c; checkpoint-restore/criu#2391, #2472, #2672.
"""
NOISE: Final = re.compile(r"rlimit: Can't setup RLIMIT_NOFILE|util\.c:\d+\): exited, status=")
"""Errors that CRIU logs on its way to success, too."""
ERROR: Final = re.compile(
    r"^\s*(\(\d+\.\d+\)\s*)?(\d+:\s*)?Error\b|^CRIU needs to have the CAP_|Unable to interrupt task.*not permitted"
)
"""What counts: CRIU's errors, and two refusals that it does not call so."""
NO_ERROR: Final = "no error in the log"


def explain(log: str) -> tuple[Cause | None, str]:
    """The cause that a CRIU log shows, and the line that shows it (else its last error)."""
    errors = [line for line in log.splitlines() if ERROR.search(line)]
    telling = [line for line in errors if not NOISE.search(line)]
    for cause, pattern in CAUSES:
        for line in telling:
            if pattern.search(line):
                return cause, _bare(line)
    # The first one says why; those after it come from the callers that failed with it.
    said = telling or errors
    return None, _bare(said[0]) if said else NO_ERROR


def _bare(line: str) -> str:
    return re.sub(r"^\(\d+\.\d+\)\s*(\d+:\s*)?", "", line).strip()[:300]
