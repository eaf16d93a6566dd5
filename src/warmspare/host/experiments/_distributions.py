"""Which packages are installed in some folders, by their metadata; nothing is imported.

Only names are listed, and of those that match the metadata is read.

Source: PEP 376, PEP 427 (dist-info); PyPA "Core metadata"; setuptools (egg-info); torch/version.py.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

_WANTED: Final = re.compile(
    r"(?i)(torch|vllm|nixl(?:[-_.]cu\d+)?|(?:lib)?ucxx?(?:[-_.]py)?(?:[-_.]cu\d+)?|nvidia[-_.]nccl[-_.]cu\d+"
    r"|cuda[-_.]bindings)-\d.*\.(?:dist|egg)-info"
)
_VERSION: Final = re.compile(r"(?m)^Version:\s*([0-9A-Za-z.+!_-]{1,64})\s*$")
_TORCH: Final = re.compile(r"(?m)^(__version__|cuda|hip)\b[^=\n]*=\s*'([0-9A-Za-z.+!_-]{1,64})'")
_WANTS_NCCL: Final = re.compile(r"(?m)^Requires-Dist: nvidia[-_]nccl[-_]cu\d+ ?\(?==([\d.]{1,32})")
_HEAD: Final = 16_384


class Installed(NamedTuple):
    """Versions by normalised name, the first folder winning; `broken` are those whose metadata does not say one.

    `torch_nccl` is the version of NCCL's wheel that torch's asks for.
    """

    versions: dict[str, str]
    broken: tuple[str, ...]


def look(folders: Iterable[str]) -> Installed:
    """The packages that matter here in these folders."""
    versions: dict[str, str] = {}
    broken: list[str] = []
    for folder in folders:
        for entry, name in _entries(folder):
            metadata = _head(f"{folder}/{entry}/METADATA") or _head(f"{folder}/{entry}/PKG-INFO")
            version = _VERSION.search(metadata or _head(f"{folder}/{entry}"))  # an egg-info may be a file
            if version:
                if name == "torch" and name not in versions and (nccl := _WANTS_NCCL.search(metadata)):
                    versions["torch_nccl"] = nccl[1]
                versions.setdefault(name, version[1])
            else:
                broken.append(name)
    return Installed(versions, tuple(sorted(set(broken) - set(versions))))


def torch_build(folder: str | None) -> dict[str, str]:
    """`torch_version`, with its local suffix, and `torch_cuda` or `torch_hip`, as torch/version.py has them."""
    found = _TORCH.findall(_head(f"{folder}/torch/version.py")) if folder else []
    return {f"torch_{name.strip('_')}": said for name, said in found}


def loads_wheels_itself(folder: str) -> bool:
    """Whether this torch loads NVIDIA's wheels by their paths before its own libraries, as 2.10 and later do."""
    return "_preload_cuda_deps()" in _head(f"{folder}/torch/__init__.py", 2**18)


def holding(folders: Iterable[str], path: str) -> str | None:
    """The first folder that has a file."""
    return next((folder for folder in folders if os.path.exists(f"{folder}/{path}")), None)  # noqa: PTH110 # never raises


def _entries(folder: str) -> list[tuple[str, str]]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 # names, not paths
    except OSError:  # Python passes over a folder that it cannot list
        return []
    found = ((name, _WANTED.fullmatch(name)) for name in sorted(names))
    return [(name, re.sub(r"[-_.]+", "_", match[1].lower())) for name, match in found if match]


def _head(path: str, size: int = _HEAD) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.read(size).decode("utf-8", "replace")
    except OSError:
        return ""
