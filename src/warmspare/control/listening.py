"""Who listens on an address of this machine: the process whose tree is a server, by the kernel's lists alone.

A listening socket is found by its address, its holders by its inode among all open files. No name and no command line
is believed. Only this process's own network namespace is seen.

Source: proc(5), /proc/net/tcp, /proc/PID/fd; proc_pid_net(5); include/net/tcp_states.h; include/uapi/linux/net.h.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from warmspare.control.process import started

LISTENING: Final = "0A"
"""TCP_LISTEN."""
ACCEPTS: Final = 0x10000
"""__SO_ACCEPTCON."""
Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
Sockets = dict[int, int]
"""The user of each socket by its inode; -1: not told."""


class NotFound(Exception):
    """Nobody can be named; the message is one line that says why."""


def on_port(host: str, port: int) -> int:
    """The process at the top of those that listen on this address; they are one server's.

    Raises:
        NotFound: the address is not this machine's, nobody listens there, or it cannot be said who.
    """
    addresses = _own(host)
    where = f"{host}:{port}"
    found: Sockets = {}
    for address in addresses:
        found |= _on(address, port)
    return _holder(found, where)


def on_socket(path: str) -> int:
    """The same of a unix socket, by its path.

    Raises:
        NotFound: nobody listens there, or it cannot be said who.
    """
    wanted = os.path.realpath(path)
    found: Sockets = {}
    for line in _lines("/proc/self/net/unix"):
        words = line.split(maxsplit=7)
        if len(words) == 8 and int(words[3], 16) & ACCEPTS and words[7] in (path, wanted):  # noqa: PLR2004 # its fields
            found[int(words[6])] = -1
    return _holder(found, path)


def _own(host: str) -> list[Ip]:
    """The addresses that a name stands for, if all of them are this machine's."""
    try:
        told = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        message = f"{host!r} is no address: {error}"
        raise NotFound(message) from error
    addresses = sorted({str(place[0]) for *_, place in told})
    for address in addresses:
        if not _is_own(address):
            message = f"{host} ({address}) is not this machine: only an engine that runs here can be suspended"
            raise NotFound(message)
    return [ipaddress.ip_address(address.partition("%")[0]) for address in addresses]


def _is_own(address: str) -> bool:
    """Whether this machine has the address: only then can a socket be bound to it."""
    if ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        return True
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _on(address: Ip, port: int) -> Sockets:
    """Sockets that a connection to this address comes to: those bound to it, else those bound to every address."""
    exact: Sockets = {}
    any_address: Sockets = {}
    for local, number, uid, inode in _tcp():
        same = local == address or (isinstance(local, ipaddress.IPv6Address) and local.ipv4_mapped == address)
        if number == port and same:
            exact[inode] = uid
        elif number == port and local.is_unspecified and (local.version, address.version) != (4, 6):
            any_address[inode] = uid
    return exact or any_address


def _tcp() -> Iterator[tuple[Ip, int, int, int]]:
    """Address, port, user and inode of each listening TCP socket."""
    for file in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        for line in _lines(file):
            words = line.split()
            if words[3] == LISTENING:
                place, _, port = words[1].partition(":")
                yield _address(place), int(port, 16), int(words[7]), int(words[9])


def _address(text: str) -> Ip:
    """An address as the kernel prints it: words of 32 bits, each in the machine's own order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    return ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text(encoding="utf-8", errors="surrogateescape").splitlines()[1:]
    except OSError:
        return []  # no IPv6 on this machine, or nothing at all: nobody is found then


def _holder(sockets: Sockets, where: str) -> int:
    if not sockets:
        message = (
            f"no process listens on {where}, as far as this network namespace shows;"
            " where the engine runs in a container, run this inside it"
        )
        raise NotFound(message)
    held = _holders(sockets)
    if not held:
        users = sorted({str(uid) for uid in sockets.values() if uid >= 0})
        whose = f"user {' and '.join(users)}'s" if users else "another user's"
        message = (
            f"who listens on {where} cannot be seen: the socket is {whose}, or of a process in another pid namespace;"
            " run this as that user or as root, and where the engine runs"
        )
        raise NotFound(message)
    return _top(held, where, one_socket=len(sockets) == 1)


def _holders(sockets: Iterable[int]) -> set[int]:
    """Processes that have one of these sockets open, as far as they may be looked into."""
    wanted = {f"socket:[{inode}]" for inode in sockets}
    return {int(folder.name) for folder in Path("/proc").glob("[0-9]*") if not wanted.isdisjoint(_open_in(folder))}


def _open_in(folder: Path) -> Iterator[str]:
    """What a process has open; nothing where it is another user's, or has ended."""
    with contextlib.suppress(OSError):
        for one in (folder / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                yield str(one.readlink())


def _top(held: set[int], where: str, *, one_socket: bool) -> int:
    """The one of them that started all the others, or the process that started them all.

    A server of several processes passes its one socket on to them. Processes with sockets of their own, and those that
    share nothing but a distant ancestor, are not one server.
    """
    above = {pid: _line(pid) for pid in held}
    shared = [one for one in min(above.values(), key=len) if all(one in line for line in above.values())]
    top = shared[0] if shared else 0
    if top in held or (one_socket and top > 1 and all(line[1:2] == [top] for line in above.values())):
        return top
    numbers = " and ".join(str(pid) for pid in sorted(held))
    message = f"processes {numbers} all listen on {where}, and are not one server's; name one by its process"
    raise NotFound(message)


def _line(pid: int) -> list[int]:
    """A process and those above it, the nearest first."""
    line = [pid]
    while (seen := started(line[-1])) and seen[0] and seen[0] not in line:
        line.append(seen[0])
    return line
