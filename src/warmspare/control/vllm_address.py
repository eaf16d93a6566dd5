"""Where an engine is: on a unix socket, or at a host and a port that are pinned to one address."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import threading
from typing import Final
from urllib.parse import SplitResult, urlsplit

import msgspec

SOCKET_PATH: Final = 107
"""The longest path of a unix socket, in bytes. Source: unix(7)."""
SHORTEST: Final = len("/s")
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252})")
_KEY: Final = re.compile(r"[!-~]{1,4096}")


class BadUrl(ValueError):
    """An address, or a key, that cannot be an engine's."""


class Tcp(msgspec.Struct, frozen=True):
    """A host and a port."""

    host: str
    port: int


class Unix(msgspec.Struct, frozen=True):
    """The path of a unix socket."""

    path: str


Address = Tcp | Unix


def address_at(url: str) -> Address:
    """The address of `http://HOST:PORT` or `unix:/PATH`.

    Raises:
        BadUrl: it is neither, or has more to it than that.
    """
    if not url.isprintable() or " " in url:
        wrong = "an address holds no blanks and nothing that cannot be printed"
        raise BadUrl(wrong)
    if url.startswith("unix:"):
        return _unix(url.removeprefix("unix:"))
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        message = f"{without_user(url)}: {error}"
        raise BadUrl(message) from None
    if why := _wrong(parts, host, port):
        message = f"{without_user(url)}: {why}; it takes http://HOST:PORT or unix:/PATH"
        raise BadUrl(message)
    return Tcp(str(host), int(port or 0))


def without_user(url: str) -> str:
    """A URL without what may be a name and a password."""
    return re.sub(r"//[^/]*@", "//", url)


def _wrong(parts: SplitResult, host: str | None, port: int | None) -> str | None:
    if parts.scheme != "http":
        return "TLS is not spoken here" if parts.scheme == "https" else "no such kind of address"
    if parts.username is not None or parts.password is not None:
        return "a user or a password has no place in it"
    if not host or not (_is_numeric(host) or _NAME.fullmatch(host)):
        return "it names no host"
    if not port:
        return "it names no port"
    return (
        "it has more than a host and a port" if parts.path not in ("", "/") or parts.query or parts.fragment else None
    )


def _unix(path: str) -> Unix:
    path = path.removeprefix("//") if path.startswith("///") else path
    if not path.startswith("/") or not SHORTEST <= len(path.encode()) <= SOCKET_PATH:
        message = f"a unix socket has an absolute path of {SOCKET_PATH} bytes at most"
        raise BadUrl(message)
    return Unix(path)


def is_key(key: str) -> bool:
    """Whether an API key can be sent in a header."""
    return bool(_KEY.fullmatch(key))


def is_loopback(place: Address) -> bool:
    """Whether an address, in numbers, can only be this machine."""
    return isinstance(place, Tcp) and ipaddress.ip_address(place.host).is_loopback


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Unresolved(OSError):
    """A host's name that led to no address."""


def resolved(address: Address, within_s: float) -> Address:
    """The same with the host in numbers: the first that the system names, IPv4 before IPv6.

    Raises:
        TimeoutError: the system did not answer in time.
        Unresolved: it knows no such host.
    """
    if isinstance(address, Unix) or _is_numeric(address.host):
        return address
    found: list[str] = []

    def look() -> None:
        with contextlib.suppress(OSError, UnicodeError):  # nothing found says it
            found.extend(str(entry[4][0]) for entry in socket.getaddrinfo(address.host, None, type=socket.SOCK_STREAM))

    thread = threading.Thread(target=look, daemon=True)  # getaddrinfo(3) takes no deadline
    thread.start()
    thread.join(within_s)
    if thread.is_alive():
        raise TimeoutError
    # vLLM's --host is an IPv4 address more often than not, and localhost may name both.
    usable = sorted((host for host in found if _is_numeric(host)), key=lambda host: ":" in host)
    if not usable:
        raise Unresolved(address.host)
    return Tcp(usable[0], address.port)
