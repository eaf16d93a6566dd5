"""Let NIXL move a buffer from one GPU to another, by WRITE and by READ; the second GPU checks its own memory."""

from __future__ import annotations

import secrets
from typing import Any, Final, Literal

import msgspec

from warmspare.control.nixl import Agent, both
from warmspare.model import ucx_log
from warmspare.model.facts import Cause, Count, GbPerS, Outcome, Proof, Subject, Text
from warmspare.trials.api import NotTried, Steps, trial
from warmspare.trials.best_pair import BestPair
from warmspare.trials.given import Pair
from warmspare.trials.own_python import engines_python

SIZE: Final = 256 * 2**20
MIB: Final = 2**20
WORD_BYTES: Final = 8
TIMES: Final = 8
FASTER: Final = 1.1
"""Faster than a PCIe link can carry by this factor is no PCIe."""
BLIND: Final = "the check kernel did not see a planted fault"
MISSING: Final = "NIXL is not installed in the engine's Python, {named}: pip install nixl there"
NAMED: Final = {
    "warmspare_python": "named by WARMSPARE_PYTHON",
    "vllm_program": "that of the program vllm",
    "virtual_env": "that of VIRTUAL_ENV",
    "search_path": "the first in PATH",
    "own_python": "our own",
}


Operation = Literal["WRITE", "READ"]


class NixlTransfer(Proof, frozen=True, kw_only=True):
    """NIXL between two processes, each with a GPU: what was written and what was read is what was sent.

    Speeds are in decimal GB/s, by the clock, of several transfers in a row from the pair's first GPU to its second.
    The transports are UCX's own words for what it chose; None where it did not say. The backend's name, UCX, says
    nothing of the way. `beyond_pcie` is whether both went faster than these GPUs' PCIe links can carry, so not by
    them; None where that limit is not known. `package` is what was imported as NIXL.
    """

    pair: Subject | None = None
    package: Text | None = None
    version: Text | None = None
    backend: Text | None = None
    write_gb_per_s: GbPerS | None = None
    read_gb_per_s: GbPerS | None = None
    transport_write: Text | None = None
    transport_read: Text | None = None
    beyond_pcie: bool | None = None
    size_mib: Count | None = None


class _Moved(msgspec.Struct, frozen=True):
    """What one operation came to."""

    backend: str
    gb_per_s: float
    transport: str | None


class _Side(msgspec.Struct, frozen=True):
    """An agent, what its peer is called, and where the peer's buffer lies."""

    agent: Agent
    peer: str
    place: list[int]


@trial(deadline=90, touches="two GPUs: at most 256 MiB, and a tenth of the free memory, of each")
def nixl_transfer(steps: Steps, pair: BestPair) -> NixlTransfer:
    """Poison, WRITE from the first GPU, check on the second; poison, READ into the second, check there."""
    python = engines_python()
    agents = steps.prepare("start two processes", _start, python.program, steps)
    found = steps.prepare("look for NIXL", agents[1].ask, "look")
    if found["package"] is None:
        raise NotTried(Cause.SKIPPED, MISSING.format(named=NAMED[python.named_by]))
    size = steps.prepare("make contexts", _open, agents, pair)
    steps.prepare("plant a fault", _see_faults, agents, size)

    steps("load NIXL", both, agents, "load", [{"package": found["package"]}] * 2)
    joined = steps("make agents", both, agents, "join")
    met = steps("exchange metadata", both, agents, "meet", [{"metadata": it["metadata"]} for it in reversed(joined)])
    source, target = (
        _Side(agent, it["peer"], other["place"]) for agent, it, other in zip(agents, met, reversed(joined), strict=True)
    )
    written = _moved(steps, "WRITE", source, (source, target), size)
    read = _moved(steps, "READ", target, (source, target), size)
    slower = min(written.gb_per_s, read.gb_per_s)
    return NixlTransfer(
        outcome=Outcome(kind="done"),
        pair=f"{pair.source.subject}→{pair.target.subject}",
        package=found["package"],
        version=found["version"],
        backend=written.backend,
        write_gb_per_s=written.gb_per_s,
        read_gb_per_s=read.gb_per_s,
        transport_write=written.transport,
        transport_read=read.transport,
        beyond_pcie=slower > FASTER * pair.pcie_gb_per_s if pair.pcie_gb_per_s else None,
        size_mib=size // MIB,
    )


def _start(python: str, steps: Steps) -> tuple[Agent, Agent]:
    return Agent(python, "source", steps.scratch), Agent(python, "target", steps.scratch)


def _open(agents: tuple[Agent, Agent], pair: Pair) -> int:
    """Contexts on both GPUs, and the size that both have room for."""
    opened = both(agents, "open", [{"gpu": gpu.id} for gpu in pair.gpus])
    share = min(it["free"] for it in opened) // 10
    size = int(min(SIZE, share) // MIB * MIB)
    if not size:
        raise NotTried(Cause.SKIPPED, f"a tenth of the free memory is {share} bytes: too little to try with")
    return size


def _see_faults(agents: tuple[Agent, Agent], size: int) -> None:
    told = [{"size": size, "seed": secrets.randbits(63)} for _ in agents]
    if not all(it["sees_faults"] for it in both(agents, "allocate", told)):
        raise NotTried(Cause.INVALID, BLIND)


def _moved(steps: Steps, operation: Operation, by: _Side, sides: tuple[_Side, _Side], size: int) -> _Moved:
    """One transfer, then several that are timed; the content is checked after the one and after the others."""
    _arrives(steps, operation, by, sides, 1)
    timed = _arrives(steps, operation, by, sides, TIMES)
    lane = ucx_log.lane(by.agent.protocols(), "write" if operation == "WRITE" else "read", size)
    return _Moved(
        backend=timed["backend"],
        gb_per_s=round(timed["transfers"] * size / timed["took_s"] / 1e9, 2),
        transport=str(lane) if lane else None,
    )


def _arrives(steps: Steps, operation: Operation, by: _Side, sides: tuple[_Side, _Side], times: int) -> dict[str, Any]:
    """Move a fresh pattern over poison, from the first GPU to the second, and let the second one check."""
    source, target = (side.agent for side in sides)
    seed = secrets.randbits(63)
    name = operation if times == 1 else f"{operation} {times} times"

    def send() -> dict[str, Any]:
        source.ask("fill", seed=seed)
        target.ask("poison")
        return by.agent.ask("transfer", operation=operation, peer=by.peer, place=by.place, times=times)

    sent = steps(name, send)
    found = steps(f"check the {name} on the second GPU", target.ask, "check", seed=seed)
    if found["wrong"]:
        steps.wrong(_told(found, by.place[1] // WORD_BYTES))
    return sent


def _told(found: dict[str, Any], words: int) -> str:
    """A mismatch in words; memory that is still poison says that nothing came."""
    if not found["poison"]:
        what = f"{found['wrong']} of {words} words are wrong"
    elif found["wrong"] == words:
        what = "NIXL said DONE, and no byte arrived"
    else:
        what = f"{found['wrong']} of {words} words never arrived"
    return f"{what}, the first at byte {found['at']}"
