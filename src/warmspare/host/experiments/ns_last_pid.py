"""Can the file that steers the next pid be opened for writing?

CRIU's way to restore pids where clone3 cannot set them; part of `criu check`. ENOENT:
CONFIG_CHECKPOINT_RESTORE is off. EROFS: a container's read-only /proc/sys. Anybody may open it: whether a
write is permitted (to CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN) is decided at the write, which is not tried
here, for it would steer the pids of others. That this works is therefore necessary for the lever, and not
sufficient.

Source: proc_sys_kernel(5); linux/kernel/pid_namespace.c (pid_ns_ctl_handler); criu/cr-check.c.
"""

import os

from warmspare.host.experiments._syscalls import Answer, answer


def run() -> Answer:
    """Open /proc/sys/kernel/ns_last_pid for writing, write nothing, close it."""
    return answer(_open)


def _open() -> None:
    os.close(os.open("/proc/sys/kernel/ns_last_pid", os.O_WRONLY | os.O_CLOEXEC))
