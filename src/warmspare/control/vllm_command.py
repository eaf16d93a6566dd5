"""How a vLLM server of our own is run, and with what around it.

`PYTHON -m vllm.entrypoints.openai.api_server` is there in every version; `--uds` since 0.10.2, and before that it is
the loopback address and a free port. Source: vllm 0.26.0, entrypoints/openai/cli_args.py, envs.py; the wheels of
0.10.0 and 0.10.2.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from warmspare.control.vllm_address import SOCKET_PATH, Address, Tcp, Unix

UDS_SINCE: Final = (0, 10, 2)
UNTAGGED: Final = "0.1.dev"
"""So begins what a build calls itself that was made without the tags: of whatever age it is."""
IPC_NAME: Final = 40
"""The room that vLLM's own sockets need in a folder: each is named by a UUID."""
OURS: Final = ("--host", "--port", "--uds", "--no-enable-sleep-mode", "--api-key", "--model", "--ssl-")
"""Flags that would take the engine out of our hands; of `--ssl-` all."""


class BadFlags(ValueError):
    """A flag that is not the user's to give here."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The server that is wanted.

    `folder` is private, for its log and its socket. What it compiles is kept in `caches`; None: where it always is.
    `gpus` are UUIDs; none: those of the environment. `version` is vLLM's by its metadata; None: a newer one.
    """

    python: str
    model: str
    folder: Path
    flags: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    caches: Path | None = None
    version: str | None = None


def refuse(flags: tuple[str, ...]) -> None:
    """Look for flags that are ours to give.

    Raises:
        BadFlags: one is; argparse would take it shortened, too.
    """
    for flag in flags:
        name = flag.partition("=")[0].replace("_", "-")
        if not name.startswith("--") or name in ("--", "--enable-sleep-mode"):
            continue
        if any(own.startswith(name) or (own[-1] == "-" and name.startswith(own)) for own in OURS):
            message = f"{name}: this is set here"
            raise BadFlags(message)


def command(asked: Asked, address: Address) -> list[str]:
    """What is run."""
    if isinstance(address, Unix):
        bound = ["--uds", address.path]
    else:
        bound = ["--host", address.host, "--port", str(address.port)]
    module = ["-m", "vllm.entrypoints.openai.api_server"]
    model = str(Path(asked.model).absolute()) if Path(asked.model).is_dir() else asked.model
    sleeps = [] if "--enable-sleep-mode" in asked.flags else ["--enable-sleep-mode"]
    return [asked.python, *module, "--model", model, *sleeps, *asked.flags, *bound]


def environment(asked: Asked, inherited: Mapping[str, str]) -> dict[str, str]:
    """Ours whole, and what sleep mode needs; nobody is called, and a folder named vllm here is not imported."""
    folder = asked.folder.absolute()
    added = {
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if Path(asked.model).is_dir():
        added["HF_HUB_OFFLINE"] = "1"
    if asked.gpus:
        added["CUDA_VISIBLE_DEVICES"] = ",".join(asked.gpus)
    if len(os.fsencode(folder)) + IPC_NAME <= SOCKET_PATH:
        added["VLLM_RPC_BASE_PATH"] = str(folder)
    if asked.caches:
        kept = asked.caches.absolute()
        added |= {
            "VLLM_CACHE_ROOT": str(kept / "vllm"),
            "TORCHINDUCTOR_CACHE_DIR": str(kept / "inductor"),
            "TRITON_CACHE_DIR": str(kept / "triton"),
        }
    return {**inherited, **added}


def place(asked: Asked) -> Address:
    """Where it will listen: on a socket that its folder keeps private, else on the loopback at a free port."""
    path = str(asked.folder.absolute() / "s")
    if len(os.fsencode(path)) <= SOCKET_PATH and _has_uds(asked.version):
        return Unix(path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Tcp("127.0.0.1", probe.getsockname()[1])


def _has_uds(version: str | None) -> bool:
    if version is not None and version.startswith(UNTAGGED):
        return True
    numbers = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version or "")
    return numbers is None or tuple(int(number or 0) for number in numbers.groups()) >= UDS_SINCE
