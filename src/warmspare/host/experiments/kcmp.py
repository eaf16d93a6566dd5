"""Can two file descriptors be told to be the same open file?

CRIU needs it to find what processes share, so that a restore shares it again. Missing without CONFIG_KCMP
(or, on old kernels, CONFIG_CHECKPOINT_RESTORE).

Source: kcmp(2), KCMP_FILE; criu/cr-check.c (check_kcmp).
"""

import os

from warmspare.host.experiments._syscalls import Answer, Call, WrongResultError, answer, syscall

_KCMP = Call("kcmp", x86_64=312, aarch64=272)
_KCMP_FILE = 0
_SAME = 0


def run() -> Answer:
    """Compare a descriptor with its duplicate, which is the same file, and with another, which is not."""
    return answer(_tell_apart)


def _tell_apart() -> None:
    one, other = os.pipe()
    duplicate = os.dup(one)
    try:
        if _compare(one, duplicate) != _SAME:
            message = "a duplicate was said to be another file"
            raise WrongResultError(message)
        if _compare(one, other) == _SAME:
            message = "another file was said to be the same"
            raise WrongResultError(message)
    finally:
        for descriptor in (one, other, duplicate):
            os.close(descriptor)


def _compare(one: int, other: int) -> int:
    return syscall(_KCMP, os.getpid(), os.getpid(), _KCMP_FILE, one, other)
