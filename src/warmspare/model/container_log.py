"""What container engines mean when a checkpoint or a restore fails: the cause, and the line that shows it.

Podman, crun, runc, containerd and Docker mostly say only that CRIU failed, and CRIU's own log says why. Both are read.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from warmspare.model import criu_log

ContainerCause = Literal[
    "rootless",
    "docker_not_experimental",
    "runtime_without_criu",
    "runtime_crashed",
    "no_criu",
    "old_criu",
    "driver_mounts",
    "cdi_mounts",
    "firmware_mount",
    "mount_of_init",
    "nvidia_hook",
    "no_iptables",
    "open_tcp",
    "ghost_file",
    "hybrid_cgroups",
    "cgroup_controller",
    "cgroup_freezer",
    "cgroup_restore",
    "see_criu_log",
]
Cause = ContainerCause | criu_log.Cause

CAUSES: Final[tuple[tuple[ContainerCause, re.Pattern[str]], ...]] = (
    ("driver_mounts", re.compile(r"has unreachable sharing")),
    ("cdi_mounts", re.compile(r"No mapping for \S+ ?mountpoint")),
    ("firmware_mount", re.compile(r"doesn't have a proper root mount")),
    ("mount_of_init", re.compile(r"Can't lookup mount=\S+ for fd=")),
    ("nvidia_hook", re.compile(r"(?i)error running \w* ?hook.*nvidia|nvidia-container-cli\S*: .*error")),
    ("no_iptables", re.compile(r'execvp\("ip6?tables-restore"|Locking network failed')),
    ("open_tcp", re.compile(r"Connected TCP socket, consider using --tcp-established")),
    ("ghost_file", re.compile(r"Can't dump ghost file|Try --link-remap|link-remap option")),
    ("hybrid_cgroups", re.compile(r"cgroups in hybrid mode not supported")),
    ("cgroup_controller", re.compile(r"controller `\S+` is not available")),
    ("cgroup_freezer", re.compile(r"Neither a cgroupv1 \(freezer\.state\) or cgroupv2 \(cgroup\.freeze\)")),
    ("cgroup_restore", re.compile(r"Error .*cg: write to cgroup\.\S+:")),
    ("docker_not_experimental", re.compile(r"(?i)checkpoint.*only supported on a Docker daemon with experimental")),
    (
        "rootless",
        re.compile(r"(?i)(checkpoint|restor)ing (a container )?requires root|cannot (checkpoint|restore) a rootless"),
    ),
    ("old_criu", re.compile(r"(?i)requires at least CRIU|libcriu is too old")),
    (
        "no_criu",
        re.compile(r'(?i)exec: "?criu"?: executable file not found|execvp\("criu"'),
    ),
    ("runtime_crashed", re.compile(r"failed: signal: (segmentation fault|aborted|killed)")),
    (
        "runtime_without_criu",
        re.compile(r"(?i)runtime does not support checkpoint|could not load .?libcriu"),
    ),
)
"""Causes by what the engines, the runtimes and CRIU say, the most telling first.

Source: opencontainers/runc#4522, checkpoint-restore/criu#2472 (NVIDIA's hook mounts what config.json does not name);
criu#2672, NVIDIA/nvidia-container-toolkit#834, #1098 (CDI names most of them, and the restore misses the rest);
NVIDIA/cuda-checkpoint#19 (GSP firmware); cri-o/cri-o#7632 (the hook, also without a GPU); criu#3040 (ghost files);
opencontainers/runc#2009, containers/podman#2038 (rootless); docker/cli, experimental; the cgroup and iptables
lines, and the crash, as crun 1.21 and CRIU 4.1.1 said them for us (a mount without a type, as CDI files have them,
crashes that crun on cgroup v1).
"""
WRAPPERS: Final = re.compile(r"criu failed: type \w+ err(no|or) \d+|CRIU (checkpointing|restoring) failed -?\d+")
"""What runc (and containerd and Docker with it) and crun say whatever CRIU's reason was.

Source: checkpoint-restore/criu#874, #1127, #2397; containerd/containerd#13033.
"""


def explain(said: str, criu: str = "") -> tuple[Cause | None, str]:
    """The cause by what the engine `said` and by CRIU's own log of it, and the line that shows it.

    With the engine's wrapper and no log of CRIU's the cause is `see_criu_log`. `None`: nothing known, the last line.
    """
    lines = [line for line in (*criu.splitlines(), *said.splitlines()) if line.strip()]
    for cause, pattern in CAUSES:
        for line in lines:
            if pattern.search(line):
                return cause, _bare(line)
    by_criu, line = criu_log.explain(criu)
    if by_criu or line != criu_log.NO_ERROR:
        return by_criu, line
    by_criu, line = criu_log.explain(said)
    if by_criu:
        return by_criu, line
    wrapped = [line for line in lines if WRAPPERS.search(line)]
    if wrapped:
        return "see_criu_log", _bare(wrapped[0])
    told = said.strip().splitlines()
    return None, _bare(told[-1]) if told else "it said nothing"


def _bare(line: str) -> str:
    """Without CRIU's time, Podman's stamp, and long ids, which only crowd the line."""
    line = re.sub(r"^\(\d+\.\d+\)\s*(\d+:\s*)?|^time=\S+ level=\w+ msg=", "", line.strip())
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", line)[:300]
