"""What an image says of itself: where it was made, of which processes, with what, and the checksums of its files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec

from warmspare.control.criu import Options
from warmspare.runtime.follower import CHUNK

NAME: Final = "warmspare.json"
SIZE_LIMIT: Final = 64 * 2**20
"""A manifest of 40 TiB of pages would be as large."""
SAME_BOOT: Final = "same boot"

Text = Annotated[str, msgspec.Meta(max_length=200)]
FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,120}(?![\s\S])")]
"""A plain name: no folder, nothing hidden, nothing that leads elsewhere."""
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}(?![\s\S])")]
Pid = Annotated[int, msgspec.Meta(ge=1, le=2**22)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Pair = tuple[str, str | None, str | None, bool]
"""What differs: its name, in the image, here, and whether --force takes the risk."""


class NoImage(Exception):
    """What was named is no image of ours, or is not whole; the message is one line that says which."""


class Gpu(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One GPU: its UUID, its product name, and its memory."""

    uuid: Text
    name: Text
    memory_mib: Count | None = None


class Made(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an image rests on. None: there is none, or it could not be told."""

    driver: Text | None
    kernel: Text
    boot: Text
    criu: Text | None
    tool: Text
    architecture: Text
    gpus: Annotated[tuple[Gpu, ...], msgspec.Meta(max_length=256)]


class Process(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One process of the tree. `vram_mib`: by UUID what it held of each GPU before it was suspended."""

    pid: Pid
    parent: Annotated[int, msgspec.Meta(ge=0, le=2**22)]
    name: Text
    uid: Count
    cuda: bool
    vram_mib: Annotated[dict[Text, Count], msgspec.Meta(max_length=256)] = msgspec.field(default_factory=dict)


class File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file: its size in bytes, and the SHA-256 of each 64 MiB of it."""

    size: Count
    chunks: tuple[Digest, ...]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole. `valid_in` says what is proven of it: only the boot that made it."""

    format: Literal["warmspare image"] = "warmspare image"
    version: Literal[1] = 1
    made_at: Text
    valid_in: Literal["same boot"] = SAME_BOOT
    made: Made
    processes: Annotated[tuple[Process, ...], msgspec.Meta(min_length=1, max_length=4096)]
    options: Options
    files: Annotated[dict[FileName, File], msgspec.Meta(min_length=1, max_length=100_000)]

    @property
    def root(self) -> Process:
        """The process that the others descend from."""
        return self.processes[0]

    @property
    def cuda(self) -> tuple[int, ...]:
        """The pids of those that the driver is called for."""
        return tuple(process.pid for process in self.processes if process.cuda)

    @property
    def size(self) -> int:
        """All files together, in bytes."""
        return sum(file.size for file in self.files.values())

    @property
    def vram_mib(self) -> dict[str, int]:
        """What all of them held together, by GPU."""
        held: dict[str, int] = {}
        for process in self.processes:
            for uuid, mib in process.vram_mib.items():
                held[uuid] = held.get(uuid, 0) + mib
        return held


def encode(manifest: Manifest) -> bytes:
    """The manifest as a file."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def decode(data: bytes) -> Manifest:
    """The manifest of a file.

    Raises:
        NoImage: it is none, or one of another version.
    """
    if len(data) > SIZE_LIMIT:
        message = f"{NAME} is larger than {SIZE_LIMIT >> 20} MiB"
        raise NoImage(message)
    try:
        found = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        said = str(error).encode("ascii", "backslashreplace").decode()[:200]
        message = f"{NAME} is no manifest of an image of this version: {said}"
        raise NoImage(message) from None
    if NAME in found.files:
        message = f"{NAME} names itself"
        raise NoImage(message)
    if wrong := [name for name, file in found.files.items() if len(file.chunks) != -(-file.size // CHUNK)]:
        message = f"{NAME} has too few or too many checksums of {wrong[0]}"
        raise NoImage(message)
    return found


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that differs between the image and this machine. `forgivable`: --force takes the risk."""

    what: str
    image: str
    here: str
    forgivable: bool

    def __str__(self) -> str:
        """As it stands in a report."""
        return f"{self.what}: {self.image} in the image, {self.here} here"


def differences(manifest: Manifest, here: Made, gpus: Mapping[str, str] | None = None) -> tuple[Difference, ...]:
    """What of `here` is not as it was where the image was made, the unforgivable first.

    `gpus` says by UUID which GPU takes which one's place; it must be of the same kind. A driver and a kind of GPU are
    of no account to an image without CUDA.
    """
    made, cuda = manifest.made, bool(manifest.cuda)
    pairs: list[Pair] = [("architecture", made.architecture, here.architecture, False)]
    pairs += [("driver", made.driver, here.driver, False)] if cuda else []
    pairs += _gpus(manifest, here, gpus or {}) if cuda else []
    pairs += [
        ("boot", made.boot, here.boot, True),
        ("kernel", made.kernel, here.kernel, True),
        ("CRIU", made.criu, here.criu, True),
    ]
    return tuple(
        Difference(what=what, image=image or "none", here=found or "none", forgivable=forgivable)
        for what, image, found, forgivable in pairs
        if image != found
    )


def _gpus(manifest: Manifest, here: Made, gpus: Mapping[str, str]) -> list[Pair]:
    """The kind of each GPU that was used, and of the one that is to be in its place."""
    kinds = {gpu.uuid: gpu.name for gpu in manifest.made.gpus}
    found = {gpu.uuid: gpu.name for gpu in here.gpus}
    used = manifest.vram_mib or kinds  # nobody told who used which: all of them count
    pairs: list[Pair] = []
    for uuid in used:
        place = gpus.get(uuid, uuid)
        if place not in found:
            pairs.append((f"GPU {place}", kinds.get(uuid, "unknown"), "not there", False))
        elif found[place] != kinds.get(uuid):
            pairs.append((f"GPU {place}", kinds.get(uuid), found[place], False))
    return pairs
