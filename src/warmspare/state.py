"""Proofs that are kept: the last snapshot of a machine, under a key that says what the proofs rest on.

Another driver, kernel, GPU or CRIU makes another key, and proofs under another key are stale: they are not
given out. Redacted names are stable on one machine, so they can stand in the key.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from pathlib import Path
from typing import Any, Final

import msgspec

from warmspare.control.files import Replacement
from warmspare.model.facts import Key as ReadingKey
from warmspare.model.facts import Known, Proof, Reading, Readings
from warmspare.model.snapshot import SIZE_LIMIT, BadSnapshot, Reader, Snapshot, encode
from warmspare.probes.criu import CriuProgram
from warmspare.probes.driver import Driver
from warmspare.probes.gpus import Gpus
from warmspare.probes.kernel import Kernel
from warmspare.probes.software import PythonPackages

SECRET_BYTES: Final = 32
ROOT_FOLDER: Final = Path("/var/lib/warmspare")


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What a proof rests on. None: not known, which is a key of its own and matches only itself."""

    kernel: str | None
    driver: str | None
    gpus: tuple[str, ...] | None
    criu: str | None
    vllm: str | None = None

    @property
    def file(self) -> str:
        """The name of the snapshot kept under this key."""
        return f"snapshot-{hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:16]}.json"


def key(readings: Readings) -> Key:
    """The key of the machine that was read."""
    kernel, driver = readings.get(Kernel), readings.get(Driver)
    gpus, criu = readings.get(Gpus), readings.get(CriuProgram)
    packages = readings.get(PythonPackages)
    return Key(
        kernel=kernel.value.release if isinstance(kernel, Known) else None,
        driver=driver.value.kernel_version if isinstance(driver, Known) else None,
        gpus=gpus.value.ids if isinstance(gpus, Known) else None,
        criu=criu.value.version if isinstance(criu, Known) else None,
        vllm=packages.value.vllm if isinstance(packages, Known) else None,
    )


def folder() -> Path:
    """Where state is kept: WARMSPARE_STATE_DIR, root's folder, or the user's own state folder."""
    if named := os.environ.get("WARMSPARE_STATE_DIR"):
        return Path(named)
    if os.geteuid() == 0:
        return ROOT_FOLDER
    xdg = os.environ.get("XDG_STATE_HOME", "")
    if xdg.startswith("/"):
        return Path(xdg, "warmspare")
    home = os.path.expanduser("~")  # noqa: PTH111 # Path.home() raises for a user id without a name
    return Path(home if home.startswith("/") else "/", ".local/state/warmspare")


def secret(where: Path) -> bytes | None:
    """This installation's own secret, made at its first use; None where nothing can be kept."""
    path = where / "secret"
    try:
        own(where)
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(SECRET_BYTES))
        found = path.read_bytes()
    except OSError:
        return None
    return found if len(found) == SECRET_BYTES else None


def own(where: Path) -> None:
    """Make the folder, or refuse one that others can write: as root, what is read there is trusted.

    Raises:
        OSError: it cannot be made, or is not ours alone.
    """
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_ours(where)


def check_ours(where: Path) -> None:
    """Refuse a folder that others can write, or that is none.

    Raises:
        OSError: it is not there, or not ours alone.
    """
    seen = where.lstat()
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid() or seen.st_mode & 0o022:
        message = f"{where} is not a folder of ours alone"
        raise PermissionError(message)


def store(snapshot: Snapshot, reader: Reader, where: Path) -> Path:
    """Keep `snapshot`, and with it the proofs of the same key that it did not try again.

    Raises:
        OSError, Unwritable: the folder cannot be made or written, or is not ours alone.
    """
    own(where)
    mine = key(snapshot.readings)
    added = {
        k: reading
        for k, reading in kept(snapshot.readings, reader, where).items()
        if not isinstance(dict(snapshot.readings.items()).get(k), Known)
    }
    merged = msgspec.structs.replace(snapshot, readings=snapshot.readings.plus(added))
    Replacement(where / mine.file, mode=0o600).commit(encode(merged))
    return where / mine.file


def kept(readings: Readings, reader: Reader, where: Path) -> dict[ReadingKey, Reading[Any]]:
    """The proofs kept for this very machine state.

    None if it changed, if what was kept is unreadable, or if others may write in the folder: they may have made it.
    """
    mine = key(readings)
    try:
        check_ours(where)
        with (where / mine.file).open("rb") as file:
            old = reader.read(file.read(SIZE_LIMIT + 1))
    except (OSError, BadSnapshot):
        return {}
    if key(old.readings) != mine:
        return {}
    return {
        k: msgspec.structs.replace(reading, refs=())
        for k, reading in old.readings.items()
        if isinstance(reading, Known) and isinstance(reading.value, Proof)
    }
