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


def identities(secret: bytes | None) -> Identities:
    """The names to redact, and a secret of the machine that keys their pseudonyms.

    `secret` stands in for a machine id where there is none (containers, small VMs); without either,
    pseudonyms hold for this run only.
    """
    node = os.uname().nodename
    hosts = {name for name in (node, node.partition(".")[0]) if name.lower() not in GENERIC}
    users = {os.environ.get(name, "") for name in ("SUDO_USER", "USER", "LOGNAME")}
    users |= {_name_of(uid) for uid in (os.getuid(), os.geteuid())}
    return Identities(
        hosts=tuple(sorted(filter(None, hosts))),
        users=tuple(sorted(name for name in users if name and _is_person(name))),
        key=_machine_id() + (secret or b"") or secrets.token_bytes(32),
    )


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
