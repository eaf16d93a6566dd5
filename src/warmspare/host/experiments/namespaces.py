"""May a child have a user namespace, and a pid namespace, of its own?

A pid namespace lets CRIU restore a process under its old pid while that pid is in use; a user namespace is
how an ordinary user gets one. EPERM, EUSERS or ENOSPC: switched off by a sysctl, a container or a security
module.

Source: user_namespaces(7); pid_namespaces(7); unshare(2).
"""

import os
import socket
from pathlib import Path

from warmspare.host.experiments._children import child, hear, in_child
from warmspare.host.experiments._syscalls import Answer, Call, WrongResultError, answer, step, syscall

_UNSHARE = Call("unshare", x86_64=272, aarch64=97)
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWPID = 0x20000000


def run() -> Answer:
    """Unshare each kind in a child of its own, and use it.

    Returns:
        ``{"user": ability, "pid": ability}``. The pid namespace is asked for with this process's own
        rights, not inside the user namespace.
    """
    return {
        "user": in_child(lambda: answer(_be_root_in_a_user_namespace)),
        "pid": in_child(lambda: answer(_be_pid_1_in_a_pid_namespace)),
    }


def _be_root_in_a_user_namespace() -> None:
    user = os.geteuid()
    syscall(_UNSHARE, _CLONE_NEWUSER)
    # Ubuntu 24.04 grants the namespace and takes all rights in it away (AppArmor): only using it tells.
    with step("writing the namespace's uid_map"):
        Path("/proc/self/uid_map").write_text(f"0 {user} 1\n", encoding="utf-8")
    if os.geteuid() != 0:
        message = "the user is not root in the new namespace"
        raise WrongResultError(message)


def _be_pid_1_in_a_pid_namespace() -> None:
    syscall(_UNSHARE, _CLONE_NEWPID)
    with child(_tell_pid) as first:
        if int(hear(first)) != 1:
            message = "the first process of the new namespace is not pid 1 there"
            raise WrongResultError(message)


def _tell_pid(line: socket.socket) -> None:
    line.send(str(os.getpid()).encode())
