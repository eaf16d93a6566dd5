"""What the words of container engines and of CRIU under them are said to mean."""

from __future__ import annotations

import pytest

from warmspare.model.container_log import CAUSES, explain

ID = "8b6ef2f404b73563e95e8d6a17fb36eef7c0a5df7b9aa26532a20ed242ff487e"
RUNC = "criu failed: type NOTIFY errno 0 path= /run/containerd/io.containerd.runtime.v2.task/moby/1/criu-dump.log"
CRUN = "CRIU checkpointing failed -52.  Please check CRIU logfile /x/userdata/dump.log: Invalid exchange"
DUMP = "(00.012519) Error (criu/"
FAILED = "\n(00.012600) Error (criu/cr-dump.c:2111): Dumping FAILED."


@pytest.mark.parametrize(
    ("cause", "said", "log"),
    [
        # opencontainers/runc#4522, checkpoint-restore/criu#2472
        (
            "driver_mounts",
            RUNC,
            f"{DUMP}mount.c:1088): mnt: Mount 2451 ./proc/x has unreachable sharing.",
        ),
        # checkpoint-restore/criu#2672
        ("cdi_mounts", "", f"{DUMP}mount.c:3137): mnt: No mapping for 3730:(null) mountpoint"),
        # NVIDIA/cuda-checkpoint#19
        (
            "firmware_mount",
            CRUN,
            f"{DUMP}mount.c:757): mnt: 637:./usr/x.bin doesn't have a proper root mount",
        ),
        ("mount_of_init", "", f"{DUMP}files.c:1): Can't lookup mount=42 for fd=0 path=/dev/null"),
        # cri-o/cri-o#7632
        (
            "nvidia_hook",
            "error running hook #0: error running hook: exit status 1, stderr: nvidia-container-cli.real: mount error",
            "",
        ),
        # seen here: crun 1.21, CRIU 4.1.1
        (
            "no_iptables",
            CRUN,
            'Error (criu/util.c:641): execvp("iptables-restore", ...) failed: No such file or directory',
        ),
        ("hybrid_cgroups", "crun: cgroups in hybrid mode not supported, drop all controllers from cgroupv2", ""),
        ("cgroup_controller", "crun: controller `pids` is not available under /sys/fs/cgroup/x/cgroup.controllers", ""),
        (
            "cgroup_freezer",
            CRUN,
            f"{DUMP}seize.c:1043): Neither a cgroupv1 (freezer.state) or cgroupv2 (cgroup.freeze) control file found.",
        ),
        ("cgroup_restore", "", f"{DUMP}cgroup.c:1397): cg: write to cgroup.subtree_control: Device or resource busy"),
        ("runtime_crashed", f"Error: `/x/crun checkpoint {ID}` failed: signal: segmentation fault", ""),
        (
            "open_tcp",
            RUNC,
            f"{DUMP}sk-inet.c:191): Connected TCP socket, consider using --tcp-established",
        ),
        ("ghost_file", RUNC, f"{DUMP}files-reg.c:1): Can't dump ghost file /x of 2 size, increase limit"),
        ("rootless", "Error: checkpointing a container requires root", ""),
        ("rootless", "cannot checkpoint a rootless container", ""),
        ("old_criu", "Error: checkpoint/restore requires at least CRIU 31100, current version is 30000", ""),
        ("no_criu", 'exec: "criu": executable file not found in $PATH', ""),
        ("runtime_without_criu", "Error: configured runtime does not support checkpoint/restore", ""),
        ("runtime_without_criu", "crun: could not load `libcriu.so.2`", ""),
        (
            "docker_not_experimental",
            "docker checkpoint create is only supported on a Docker daemon with experimental features enabled",
            "",
        ),
        ("see_criu_log", f"Error response from daemon: Cannot checkpoint container a: {RUNC}: unknown", ""),
        ("see_criu_log", CRUN, ""),
        # what CRIU alone is known to say
        ("seccomp", RUNC, f"{DUMP}infect.c:266): suspending seccomp failed: Operation not permitted"),
        ("disk_full", RUNC, f"{DUMP}image.c:1): No space left on device"),
        (None, CRUN, f"{DUMP}files.c:7): a reason of its own"),
        (None, "Error: something else\n", ""),
    ],
)
def test_what_was_said_has_a_cause(cause: str | None, said: str, log: str) -> None:
    found, line = explain(said, log and log + FAILED)
    assert found == cause
    assert line
    assert line in (log or said).replace(ID, ID[:12])


def test_the_reason_outranks_the_wrapper_and_the_noise() -> None:
    noise = "(00.03) Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n"
    cause, line = explain(
        f"{CRUN}\n", f"{noise}(00.04)    7: Error (criu/mount.c:1): mnt: x has unreachable sharing{FAILED}"
    )
    assert (cause, line) == ("driver_mounts", "Error (criu/mount.c:1): mnt: x has unreachable sharing")


def test_a_log_that_a_newer_crun_prints_itself_is_read_too() -> None:
    said = f"{CRUN}\n{DUMP}infect.c:266): suspending seccomp failed: Operation not permitted\n"
    assert explain(said)[0] == "seccomp"


def test_silence_is_told() -> None:
    assert explain("", "") == (None, "it said nothing")


def test_every_cause_is_tried_here() -> None:
    told = test_what_was_said_has_a_cause.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {cause for cause, _ in CAUSES} <= {cause for cause, _, _ in told}
