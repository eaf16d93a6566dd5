"""Gives a tree its TCP connections back that CRIU holds, where the tree goes on without having been restored.

CRIU does so itself when a dump fails. After a dump that left the tree stopped, each connection is in repair mode, and
a packet filter drops what comes for it.

Source: criu/netfilter.c (a table `CRIU-…` of the family inet), criu/sk-tcp.c; linux/netfilter/nf_tables.h;
netlink(7); pidfd_getfd(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

TABLE: Final = re.compile(r"Running nftables \[\w+ \w+ inet (CRIU-[0-9a-f-]{1,64}) ")
NETFILTER: Final = 12
"""NETLINK_NETFILTER."""
BATCH_BEGIN, BATCH_END = 0x10, 0x11
DELETE_TABLE: Final = 10 << 8 | 2
"""NFNL_SUBSYS_NFTABLES, NFT_MSG_DELTABLE."""
FAMILY_INET: Final = 1
NAME: Final = 1
"""NFTA_TABLE_NAME."""
REQUEST, ACKNOWLEDGE = 1, 4
ERROR: Final = 2
"""NLMSG_ERROR, which an acknowledgement is too, with 0."""
REPAIR: Final = 19
"""TCP_REPAIR. Source: linux/tcp.h."""
GETFD: Final = 438
"""pidfd_getfd(2), by the same number on every architecture."""
HEADER: Final = struct.Struct("=IHHII")


def tables(log: str) -> tuple[str, ...]:
    """The tables that CRIU says in its log it has made."""
    return tuple(dict.fromkeys(TABLE.findall(log)))


def take_back(table: str) -> None:
    """Remove a table; one that is not there is as good.

    Raises:
        OSError: the kernel refuses.
    """
    name = table.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(name), NAME) + name + b"\0" * (-len(name) % 4)
    batch = (
        _message(BATCH_BEGIN, REQUEST, 0, struct.pack("!BBH", 0, 0, 10))
        + _message(DELETE_TABLE, REQUEST | ACKNOWLEDGE, 1, struct.pack("!BBH", FAMILY_INET, 0, 0) + attribute)
        + _message(BATCH_END, REQUEST, 2, struct.pack("!BBH", 0, 0, 10))
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER) as netlink:
        netlink.settimeout(5.0)
        netlink.send(batch)
        answer = netlink.recv(65_536)
    _, kind, _, _, _ = HEADER.unpack_from(answer)
    (code,) = struct.unpack_from("=i", answer, HEADER.size)
    if kind == ERROR and code and -code != errno.ENOENT:
        raise OSError(-code, os.strerror(-code), table)


def end_repair(pids: Iterable[int]) -> None:
    """Take every TCP connection of these processes out of repair mode; the kernel then asks its peer for news.

    Raises:
        OSError: we may not.
    """
    for pid in pids:
        for one in _sockets(pid):
            with one:
                is_tcp = one.type == socket.SOCK_STREAM and one.proto == socket.IPPROTO_TCP
                if is_tcp and one.getsockopt(socket.IPPROTO_TCP, REPAIR):
                    one.setsockopt(socket.IPPROTO_TCP, REPAIR, 0)


def _sockets(pid: int) -> Iterator[socket.socket]:
    """Our own copies of a process's sockets."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            if str(link.readlink()).startswith("socket:"):
                copy = libc.syscall(GETFD, process, int(link.name), 0)
                if copy < 0:
                    error = ctypes.get_errno()
                    raise OSError(error, os.strerror(error), str(link))
                yield socket.socket(fileno=copy)
    finally:
        os.close(process)


def _message(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(payload), kind, flags, number, 0) + payload
