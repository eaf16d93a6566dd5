"""What this machine and its user are called: what redaction must take out."""

from __future__ import annotations

import hashlib
import os
import pwd
import secrets
from pathlib import Path
from typing import Final

from warmspare.model.redact import Identities

FIRST_PERSON: Final = 1000
"""The first user id that belongs to a person; names below it (root, nobody) tell nothing."""
GENERIC: Final = frozenset(
    {"localhost", "localhost.localdomain", "vm", "root", "linux", "ubuntu", "debian", "docker", "nvidia", "kernel"}
)
"""Names that many machines have: they tell nothing, and are words of our own besides."""

NOBODYS: Final = frozenset({
    "/", "/root", "/home", "/tmp", "/run", "/mnt", "/media", "/srv", "/opt",  # noqa: S108 # no file of ours
    "/mnt/c", "/nonexistent", "/var", "/var/empty", "/var/lib", "/var/run", "/var/tmp",  # noqa: S108
})  # fmt: skip
"""Homes that many machines have."""
SYSTEMS: Final = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr")
"""Homes of a system's own users lie in these, and so do the things that we ask for."""


def identities(secret: bytes | None) -> Identities:
    """The names to redact, and a secret of the machine that keys their pseudonyms.

    `secret` stands in for a machine id where there is none (containers, small VMs); without either,
    pseudonyms hold for this run only.
    """
    node = os.uname().nodename
    hosts = {name for name in (node, node.partition(".")[0]) if name.lower() not in GENERIC}
    users = {os.environ.get(name, "") for name in ("SUDO_USER", "USER", "LOGNAME")}
    users |= {_name_of(uid) for uid in (os.getuid(), os.geteuid())}
    users = {name for name in users if name and _is_person(name)}
    return Identities(
        hosts=tuple(sorted(filter(None, hosts))),
        users=tuple(sorted(users)),
        homes=tuple(sorted(_homes(users))),
        key=_machine_id() + (secret or b"") or secrets.token_bytes(32),
    )


def _homes(users: set[str]) -> set[str]:
    """What HOME says and what the password file has for us and those users, with the folders behind links."""
    ours: tuple[int | str, ...] = (os.getuid(), os.geteuid(), *users)
    told = {os.environ.get("HOME", ""), *map(_home_of, ours)}
    plain = {f"/{os.path.normpath(home).lstrip('/')}" for home in told if home.startswith("/")}
    homes = plain | {os.path.realpath(home) for home in plain}
    generic = {home for home in homes if home in NOBODYS or home.startswith(tuple(f"{f}/" for f in SYSTEMS))}
    return {os.fsencode(home).decode("utf-8", "replace") for home in homes - generic - set(SYSTEMS)}


def _home_of(user: int | str) -> str:
    try:
        return (pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)).pw_dir
    except KeyError:
        return ""


def _machine_id() -> bytes:
    """A digest of the machine id, which is itself a secret. Source: machine-id(5)."""
    try:
        machine = Path("/etc/machine-id").read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return b""
    return hashlib.sha256(f"warmspare:{machine}".encode()).digest() if machine else b""


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _is_person(name: str) -> bool:
    try:
        return pwd.getpwnam(name).pw_uid >= FIRST_PERSON
    except KeyError:  # a name that only the environment knows
        return True
