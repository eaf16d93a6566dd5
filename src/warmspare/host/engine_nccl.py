"""Which libnccl.so.2 an engine would load: worked out as its torch and ld.so would find it; nothing is loaded.

The Python is the engine's (see control/engine_python.py). What its torch would load is what ld.so finds for torch's
libraries (see experiments/_loader.py). torch 2.10 and later load the wheel's NCCL by its path first if NVIDIA's other
wheels are there too: of torch's own wheels that is the one their DT_RPATH names as well, of other builds it cannot be
told from here. vLLM asks for libnccl.so.2 after it has imported torch, so it gets the one that torch has, unless
VLLM_NCCL_SO_PATH names another.

Source: pytorch .ci/manywheel/build_cuda.sh, torch/__init__.py (_preload_cuda_deps); vLLM vllm/utils/nccl.py
(find_nccl_library), vllm/envs.py.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from warmspare.control import engine_python
from warmspare.host.experiments import _distributions, _elf, _loader
from warmspare.host.loading import shown

NCCL: Final = "libnccl.so.2"
NAMED_OUTRIGHT: Final = "VLLM_NCCL_SO_PATH"
TORCH: Final = "torch/lib/libtorch_cuda.so"
_LIMIT: Final = 16


class Loaded(NamedTuple):
    """The way that torch gets its NCCL, the file if there is one, and a line where the way cannot be told."""

    way: str
    path: str | None = None
    detail: str | None = None


class EngineNccl(NamedTuple):
    """A library file, and its path as it may be shown: whole, it would name people."""

    path: str
    shown: str


def find(environment: Mapping[str, str]) -> EngineNccl | None:
    """The file that an engine would load; None where there is no NCCL at all.

    The one that vLLM is told to take, the one that torch would load, the system's, any other that is known. Where two
    could be torch's, it is the one of its Python.
    """
    try:
        python = engine_python.find(environment)
    except engine_python.FailedError:  # the facts say so; the system's library can be tried all the same
        python = None
    found = loaded(python, _distributions.holding(python.folders, "torch/version.py") if python else None, environment)
    others = [] if found.way == "not_understood" else list(system(NCCL, environment))
    others += places(python, environment)
    path = environment.get(NAMED_OUTRIGHT) or found.path or next((path for _, path in known(others)), None)
    return EngineNccl(path, shown_in(path, python)) if path else None


def loaded(python: engine_python.Python | None, torch: str | None, environment: Mapping[str, str]) -> Loaded:
    """What torch in the folder `torch` would load."""
    if python is None or torch is None:
        return Loaded("no_torch")
    if not os.path.exists(f"{torch}/{TORCH}"):  # noqa: PTH110 # never raises
        return Loaded("no_cuda")
    try:
        chain = list(_chain(torch, python.program))
    except (OSError, _elf.NoElfError) as error:
        return Loaded("not_understood", detail=f"torch's libraries: {_plain(error)}")
    if chain[1:] and NCCL in chain[1][1].needed:  # it was there before the other
        chain = chain[1:]
    if NCCL not in chain[0][1].needed:
        return Loaded("linked_in")
    found = _searched(chain, environment)
    if found.way not in ("rpath", "ld_preload") and _distributions.loads_wheels_itself(torch):
        wheel = _distributions.holding(python.folders, f"nvidia/nccl/lib/{NCCL}")
        if wheel and os.path.normpath(found.path or "") != f"{wheel}/nvidia/nccl/lib/{NCCL}":
            return Loaded("not_understood", detail="ld.so finds another NCCL than torch, which looks first, may load")
    return found


def _searched(chain: list[tuple[str, _elf.Elf]], environment: Mapping[str, str]) -> Loaded:
    if path := _loader.preloaded(NCCL, environment):
        return Loaded("ld_preload", path)
    try:
        found = _loader.find(NCCL, chain, environment)
    except _elf.NoElfError as error:
        return Loaded("damaged", detail=_plain(error))
    return Loaded(found.by, found.path) if found else Loaded("not_found")


def _chain(torch: str, program: str) -> Iterator[tuple[str, _elf.Elf]]:
    """libtorch_cuda.so, those that load it (the first of them may need NCCL itself), and the program."""
    yield f"{torch}/{TORCH}", _elf.read(f"{torch}/{TORCH}")
    bindings = sorted(glob.glob(f"{glob.escape(torch)}/torch/_C.*.so"))[:1]  # noqa: PTH207
    for path in (f"{torch}/torch/lib/libtorch_python.so", *bindings, os.path.realpath(program)):
        if os.path.exists(path):  # noqa: PTH110 # never raises
            yield path, _elf.read(path)


def place_of(path: str, python: engine_python.Python | None, environment: Mapping[str, str]) -> str:
    """Which of the known places a file is in."""
    real = os.path.realpath(path)
    of_it = (place for place, other in known(places(python, environment)) if os.path.realpath(other) == real)
    return next(of_it, "another_folder")


def places(python: engine_python.Python | None, environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Where an NCCL may lie, each by the name of the place and its path."""
    for folder in python.folders if python else ():
        for parts in ("nvidia/nccl/lib", "nvidia/cu13/lib", "nvidia/cu12/lib", "torch/lib"):
            yield "python_package", f"{folder}/{parts}/{NCCL}"
    if python and python.kind == "conda_environment":
        yield "conda_environment", f"{python.prefix}/lib/{NCCL}"
    if named := environment.get(NAMED_OUTRIGHT):
        yield "vllm_nccl_so_path", named
    yield from system(NCCL, environment)


def system(name: str, environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Where the system's loader looks for a library, in its order."""
    yield from (("ld_library_path", f"{folder}/{name}") for folder in _loader.library_path(environment))
    yield from (("system_loader", path) for path in _loader.cached(name))
    yield from (("system_loader", f"{folder}/{name}") for folder in _loader.default_folders())


def known(places: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those that are there, each file once."""
    found: dict[str, tuple[str, str]] = {}
    for place, path in places:
        if os.path.isfile(path):  # noqa: PTH113 # never raises
            found.setdefault(os.path.realpath(path), (place, path))
    return list(found.values())[:_LIMIT]


def shown_in(path: str, python: engine_python.Python | None) -> str:
    """A path without what comes before the environment; outside of it as any other may be."""
    path = os.path.abspath(path)  # noqa: PTH100 # links are left as they are
    for folder in python.folders if python else ():
        name = os.path.basename(folder)  # noqa: PTH119
        if path.startswith(f"{folder}/"):
            return f"{name if name.endswith('-packages') else '…'}{path[len(folder) :]}"
    return shown(path)


def _plain(error: Exception) -> str:
    """An error without its path, or with what may be shown of it."""
    return str(error.strerror if isinstance(error, OSError) else error)[:200]
