"""What a log of CRIU is said to mean. The logs in `logs/` are real ones, of failures brought about for them.

Made on Debian 12, kernel 6.18.44, with CRIU 4.1.1 or 4.2.1 (`too_old.log`: Debian 12's own 3.17.1); cut to their
telling lines.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from leftovers import small_disk
from warmspare.control.criu import Criu
from warmspare.model.criu_log import CAUSES, REMEDIES, explain

LOGS = Path(__file__).parent / "logs"


@pytest.mark.parametrize(
    ("log", "cause", "says"),
    [
        ("too_old", "too_old", "Unexpected rt vDSO area bounds"),
        ("ordinary_user", "denied", "CRIU needs to have the CAP_SYS_ADMIN or the CAP_CHECKPOINT_RESTORE capability"),
        ("no_sys_admin", "denied", "Unable create a network namespace: Operation not permitted"),
        ("no_ptrace_capability", "denied", "Unable to interrupt task: 4084 (Operation not permitted)"),
        ("ptrace_refused", "denied", "ptrace(PTRACE_TRACEME) failed: Operation not permitted"),
        ("ptrace_filtered", "denied", "ptrace(PTRACE_TRACEME) failed: Function not implemented"),
        (
            "read_only_tmp",
            "read_only",
            "Fail to make dir /tmp/.criu.move_mount_set_group.Swwb6B: Read-only file system",
        ),
        ("disk_full", "disk_full", "No space left on device"),
        ("pid_taken", "pid_taken", "Can't fork for 26253: File exists"),
        ("connected_tcp", "tcp_established", "Connected TCP socket, consider using --tcp-established option."),
        ("io_uring", "io_uring", "send_fds failed (-22)"),
        ("device", "device", "Can't dump file 3 of that type [20600] (chr 10:229)"),
        ("unix_socket", "unix_socket", "External socket is used. Consider using --ext-unix-sk option."),
        ("half_unix_socket", "unix_socket", "Can't dump half of stream unix connection"),
        ("terminal", "terminal", "Found slave peer index 0 without correspond master peer"),
        ("no_terminal", "terminal", "Don't have tty to inherit session from, aborting"),
        ("session", "session", "is not a session leader. Consider using --shell-job option"),
        ("no_iptables", "network_lock", "Iptables configuration failed"),
        ("file_locks", "file_locks", "Some file locks are hold by dumping tasks!"),
        ("link_remap", "deleted_file", "Can't create link remap for"),
        ("ghost_file", "deleted_file", "Can't dump ghost file"),
        ("file_changed", "file_changed", "File srv/out has bad size 462 (expect 270)"),
        ("socket_options", "too_old", "sockets: Can't get 1:16 opt: Operation not supported"),
        ("garbage_images", None, "Magic doesn't match for inventory.img"),
    ],
)
def test_a_real_log_is_understood(log: str, cause: str | None, says: str) -> None:
    found, line = explain((LOGS / f"{log}.log").read_text())
    assert found == cause
    assert says in line


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        # checkpoint-restore/criu#2391 and microsoft/WSL#9993: WSL2's filter on PID 1
        ("(00.01) Error (compel/src/lib/infect.c:266): suspending seccomp failed: Operation not permitted", "seccomp"),
        ("(00.01) Error (criu/cr-check.c:721): couldn't suspend seccomp: Operation not permitted", "seccomp"),
        ("Error (criu/cr-check.c:738): Dumping seccomp filters not supported: Permission denied", "seccomp"),
        # opencontainers/runc#4522, cuda-checkpoint#19, checkpoint-restore/criu#2672: driver mounts in containers
        ("Error (criu/mount.c:1): mnt: Mount 9 ./proc/driver/nvidia/gpus/0 has unreachable sharing", "mount"),
        ("Error (criu/mount.c:1): mnt: 9:./gsp.bin doesn't have a proper root mount", "mount"),
        ("Error (criu/mount.c:1): mnt: No mapping for 712:(null) mountpoint", "mount"),
    ],
)
def test_a_line_that_users_reported_is_understood(line: str, cause: str) -> None:
    assert explain(line)[0] == cause


def test_a_warning_and_the_usual_noise_are_no_cause() -> None:
    log = """\
(00.01) Warn  (criu/kerndat.c:1): Operation not permitted; No space left on device
(00.01) Debug (criu/files.c:7): Read-only file system: Error 30, Permission denied
(00.01) Dumping /No space left on device, Error in its name
(00.02) Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted
(00.03)   4711: Error (criu/files.c:9): the reason
(00.04) Error (criu/cr-dump.c:2111): Dumping FAILED.
"""
    assert explain(log) == (None, "Error (criu/files.c:9): the reason")


def test_that_the_kernel_could_not_be_looked_at_is_its_age_only_when_nothing_else_says_why() -> None:
    generic = "(00.1) Error (criu/crtools.c:267): Could not initialize kernel features detection.\n"
    noise = "(00.0) Error (criu/util.c:1): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n"
    assert explain(noise + generic)[0] == "too_old"
    assert explain("(00.0) Error (criu/a.c:1): a: Permission denied\n" + generic)[0] == "denied"
    assert explain("(00.0) Error (criu/vdso.c:1): Unexpected rt vDSO area bounds: Permission denied")[0] == "too_old"


def test_no_log_and_no_error_are_said_so() -> None:
    assert explain("") == explain("(00.1) all is well\n") == (None, "no error in the log")


def test_a_line_is_kept_short() -> None:
    assert len(explain("Error " + "x" * 9_999)[1]) == 300


@pytest.mark.parametrize(("script", "code"), [("exit 3", "status 3"), ("kill -9 $$", "signal 9")])
def test_an_end_without_a_log_is_its_bare_status(tmp_path: Path, script: str, code: str) -> None:
    program = tmp_path / "criu"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    assert Criu(str(program)).restore(tmp_path).code == code


def test_what_criu_prints_counts_as_its_log_too(tmp_path: Path) -> None:
    program = tmp_path / "criu"
    program.write_text(f"#!/bin/sh\ncat {LOGS / 'ordinary_user.log'} >&2\nexit 1\n")
    program.chmod(0o755)
    assert Criu(str(program)).restore(tmp_path).cause == "denied"


@pytest.mark.root
def test_a_log_that_the_full_disk_swallowed_is_still_a_full_disk(tmp_path: Path) -> None:
    program = tmp_path / "criu"
    program.write_text("#!/bin/sh\ncat /dev/zero > filler\nexit 1\n")
    program.chmod(0o755)
    with small_disk(tmp_path / "disk") as images:
        assert Criu(str(program)).restore(images).code == "disk_full"


@pytest.mark.root
@pytest.mark.criu
def test_a_real_refusal_is_refused_with_its_reason(tmp_path: Path) -> None:
    criu = Criu.found()
    assert criu
    code = "import socket, time; s = socket.create_server(('127.0.0.1', 0));"
    code += " c = socket.create_connection(s.getsockname()); a = s.accept(); print(flush=True); time.sleep(600)"
    with subprocess.Popen(
        [sys.executable, "-IS", "-c", code], stdin=-3, stdout=-1, stderr=-3, start_new_session=True
    ) as connected:
        try:
            assert connected.stdout
            connected.stdout.readline()
            ended = criu.dump(connected.pid, tmp_path)
            assert ended.cause in ("tcp_established", "too_old")  # from Linux 6.16 on CRIU before 4.2 reads no socket
            assert re.search("Error.*(inet|sockets): ", ended.line)
            assert connected.poll() is None  # a refused dump leaves the process as it was
        finally:
            connected.kill()


def test_every_cause_has_a_remedy() -> None:
    assert {cause for cause, _ in CAUSES} == set(REMEDIES)
