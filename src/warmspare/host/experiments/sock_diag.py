"""Which kinds of socket does the kernel list over netlink?

CRIU collects the sockets of these families before a dump. Where a kind cannot be listed ("Diag module missing
(-2)"), a dump that stays in its network namespace fails only if the process has such a socket, one that takes
the namespace along always. Missing: ENOENT (the *_DIAG option is off, or its module is not there) or
EOPNOTSUPP. Asking may make the kernel load the family's module, as it does for ss(8) and CRIU.

Source: sock_diag(7); linux/{unix,inet,packet,netlink}_diag.h; criu/sockets.c (collect_sockets).
"""

import os
import socket
import struct
import time
from functools import partial

from warmspare.host.experiments._syscalls import Answer, answer

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST_DUMP = 0x301
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLMSG_HEADER = struct.Struct("=IHHII")
_ALL_PROTOCOLS = 255

_DEADLINE_S = 5.0
_MESSAGE_BYTES = 65536

# No state is asked for, so that a host with a million connections answers as briefly as an idle one.
_INET_REQUEST = struct.Struct("=BBxxI48x")
_UNIX_REQUEST = struct.Struct("=BBxxI16x")
_OTHER_REQUEST = struct.Struct("=BBxx16x")

_REQUESTS = {
    "unix": _UNIX_REQUEST.pack(socket.AF_UNIX, 0, 0),
    "inet_tcp": _INET_REQUEST.pack(socket.AF_INET, socket.IPPROTO_TCP, 0),
    "inet_udp": _INET_REQUEST.pack(socket.AF_INET, socket.IPPROTO_UDP, 0),
    "inet_raw": _INET_REQUEST.pack(socket.AF_INET, socket.IPPROTO_RAW, 0),
    "inet6_tcp": _INET_REQUEST.pack(socket.AF_INET6, socket.IPPROTO_TCP, 0),
    "inet6_udp": _INET_REQUEST.pack(socket.AF_INET6, socket.IPPROTO_UDP, 0),
    "inet6_raw": _INET_REQUEST.pack(socket.AF_INET6, socket.IPPROTO_RAW, 0),
    "packet": _OTHER_REQUEST.pack(socket.AF_PACKET, 0),
    "netlink": _OTHER_REQUEST.pack(socket.AF_NETLINK, _ALL_PROTOCOLS),
}


def run() -> Answer:
    """Ask for a list of each family's sockets; an empty list is a success.

    Returns:
        ``{"families": {"unix": {"works", "errno", "detail"}, "inet_tcp": …, "inet6_tcp": …, "packet": …}}``.
    """
    return {"families": {family: answer(partial(_dump, request)) for family, request in _REQUESTS.items()}}


def _dump(request: bytes) -> None:
    header = _NLMSG_HEADER.pack(_NLMSG_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0)
    end = time.monotonic() + _DEADLINE_S
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as diag:
        diag.settimeout(_DEADLINE_S)
        diag.sendto(header + request, (0, 0))
        while not _is_last(diag.recv(_MESSAGE_BYTES)):
            if time.monotonic() > end:
                raise TimeoutError


def _is_last(messages: bytes) -> bool:
    """Say whether a dump ends in these messages; raise OSError if it ends in a refusal."""
    offset = 0
    while offset + _NLMSG_HEADER.size <= len(messages):
        length, kind, *_ = _NLMSG_HEADER.unpack_from(messages, offset)
        if kind in {_NLMSG_DONE, _NLMSG_ERROR}:
            # A dump that fails half-way (no tcp_diag behind inet_diag) says so in the "done" message.
            _raise_if_refused(struct.unpack_from("=i", messages, offset + _NLMSG_HEADER.size)[0])
            return True
        offset += max(_NLMSG_HEADER.size, (length + 3) & ~3)
    return False


def _raise_if_refused(status: int) -> None:
    if status < 0:
        raise OSError(-status, os.strerror(-status))
