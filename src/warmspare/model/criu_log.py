"""What CRIU's own words mean: the cause behind a log of its, and the line that shows it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

Cause = Literal[
    "seccomp", "disk_full", "read_only", "pid_taken", "sock_diag", "mount", "too_old", "denied",
    "io_uring", "device", "unix_socket", "terminal", "session", "tcp_established", "network_lock", "file_locks",
    "deleted_file", "file_changed",
]  # fmt: skip

CAUSES: Final[tuple[tuple[Cause, re.Pattern[str]], ...]] = (
    ("seccomp", re.compile(r"(?i)suspend(ing)? seccomp( failed|:)|Dumping seccomp filters not supported")),
    ("disk_full", re.compile(r"No space left on device")),
    ("read_only", re.compile(r"Read-only file system")),
    ("pid_taken", re.compile(r"Pid \d+ do not match expected|Can't fork for \d+: File exists")),
    ("sock_diag", re.compile(r"[Dd]iag module missing|sock diag infrastructure is incomplete")),
    ("mount", re.compile(r"unreachable sharing|doesn't have a proper root mount|No mapping for")),
    ("too_old", re.compile(r"Unexpected rt vDSO area bounds")),
    ("too_old", re.compile(r"sockets: Can't get 1:(16|34) opt: Operation not supported")),
    ("io_uring", re.compile(r"io_uring|send_fds failed \(-22\)")),
    ("device", re.compile(r"Can't dump file \d+ of that type \[\d+\] \(chr |/dev/(nvidia|dxg)")),
    ("unix_socket", re.compile(r"External socket is used|Can't dump half of stream unix connection")),
    ("session", re.compile(r"session leader")),
    ("terminal", re.compile(r"tty: (Found slave peer|Don't have tty|Don't have a terminal)|dangling tty")),
    ("tcp_established", re.compile(r"Connected TCP socket")),
    ("network_lock", re.compile(r"Iptables configuration failed|Failed to lock TCP connection")),
    ("file_locks", re.compile(r"file locks are hold")),
    ("deleted_file", re.compile(r"Can't create link remap|Can't dump ghost file|ghost file .* size")),
    ("file_changed", re.compile(r"File .* has bad (size|mode|build-ID)|Can't open file .* on restore")),
    ("denied", re.compile(r"Operation not permitted|Permission denied|CRIU needs to have the CAP_|ptrace.*not impl")),
    # Last: whatever kept it from looking at the kernel, a line above says what; else it does not know this one.
    ("too_old", re.compile(r"Could not initialize kernel features detection")),
)
"""Causes by the text that CRIU's errors show for them, the most telling first.

Source: criu/cr-check.c, criu/seccomp.c, criu/mount.c, criu/sk-unix.c, criu/tty.c, criu/files-ext.c, criu/files-reg.c;
checkpoint-restore/criu#2391, #2472, #2672, #2718 (Linux 6.16 takes socket options away; CRIU 4.2 does without them).
"""
REMEDIES: Final[Mapping[Cause, str]] = MappingProxyType({
    "seccomp": "under WSL2 set networkingMode=nat; in a container use --security-opt seccomp=unconfined",
    "disk_full": "make room there, or name a folder on a larger disk",
    "read_only": "name a folder that can be written; CRIU wants /tmp too",
    "pid_taken": "end the process that has the pid, or restore with --new-pidns",
    "sock_diag": "load the kernel's modules unix_diag, inet_diag, tcp_diag, udp_diag, netlink_diag and packet_diag",
    "mount": "the process sees mounts that CRIU cannot name: checkpoint the container, with its own runtime",
    "too_old": "this CRIU is older than this kernel: take a newer one (4.2 or later from Linux 6.16 on)",
    "denied": "run it as root; in a container give it CAP_CHECKPOINT_RESTORE, CAP_SYS_PTRACE and CAP_SYS_ADMIN",
    "io_uring": "the kernel lets nobody dump an io_uring: start the program by `warmspare savable -- COMMAND`",
    "device": "a process has a device open: one without CUDA that asks NVML must close it (nvmlShutdown) or not ask",
    "unix_socket": "a socket leads out of the tree: close it; for datagram sockets pass --ext-unix-sk",
    "terminal": "its terminal is outside the tree: start it with setsid and its streams in files, or pass --shell-job",
    "session": "its session's leader is outside the tree: start it with setsid, or pass --shell-job",
    "tcp_established": "pass --tcp-established to keep its connections, or --tcp-close to drop them",
    "network_lock": "the kernel needs nf_tables for --tcp-established; --tcp-close does without",
    "file_locks": "pass --file-locks",
    "file_changed": "a file that it had open is not as it was: put it back as it was, with the same size",
    "deleted_file": "a file that it has open was deleted: close it, or pass --link-remap if another name of it is left",
})  # fmt: skip
"""What somebody who met this can do."""
NOISE: Final = re.compile(r"rlimit: Can't setup RLIMIT_NOFILE|util\.c:\d+\): exited, status=")
"""Errors that CRIU logs on its way to success, too."""
ERROR: Final = re.compile(
    r"^\s*(\(\d+\.\d+\)\s*)?(pie: )?(\d+:\s*)?Error\b|^CRIU needs to have the CAP_"
    r"|Unable to interrupt task.*not permitted"
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
    return re.sub(r"^\s*(\(\d+\.\d+\)\s*)?(pie: )?(\d+:\s*)?", "", line).strip()[:300]
