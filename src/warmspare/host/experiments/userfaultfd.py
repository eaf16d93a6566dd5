"""Can a process handle its own page faults?

CRIU's lazy pages (restore first, bring memory later) rest on userfaultfd; a plain restore does not. Without
privilege it is refused or limited to faults from user mode, as the sysctl vm.unprivileged_userfaultfd says.

Source: userfaultfd(2); ioctl_userfaultfd(2), UFFDIO_API; criu/cr-check.c (check_uffd).
"""

import fcntl
import os
import struct

from warmspare.host.experiments._syscalls import Answer, Call, answer, step, syscall

_USERFAULTFD = Call("userfaultfd", x86_64=323, aarch64=282)
_USER_MODE_ONLY = 1
_UFFD_API = 0xAA
_UFFDIO_API = 0xC018AA3F


def run() -> Answer:
    """Open a userfaultfd and shake hands; where that is not permitted, once more for user-mode faults only.

    Returns:
        An ability, with `user_mode_only`: only the limited kind was granted (Linux 5.11 or newer).
    """
    full = answer(lambda: _shake_hands(0))
    if full["errno"] == "EPERM":
        limited = answer(lambda: _shake_hands(_USER_MODE_ONLY))
        if limited["works"]:
            return {**limited, "detail": "user mode only", "user_mode_only": True}
    return {**full, "user_mode_only": False}


def _shake_hands(flags: int) -> None:
    faults = syscall(_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK | flags)
    try:
        with step("UFFDIO_API"):
            fcntl.ioctl(faults, _UFFDIO_API, bytearray(struct.pack("QQQ", _UFFD_API, 0, 0)))
    finally:
        os.close(faults)
