"""The CUDA processes of this machine, and what is visible of their chance to survive a suspend.

What is visible never shows that one survives: only a full cycle does. So the chance is `likely lost` or `unknown`.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from warmspare.control.checkpointer import Checkpointer, CheckpointFailed, State
from warmspare.control.target import Target, has_libcuda, target
from warmspare.runtime import cards as gpus
from warmspare.runtime.cards import Card
from warmspare.runtime.looking import ENDED, has_nccl_memory, may_trace, still

Chance = Literal["likely lost", "unknown"]
NOTHING = "nothing that can be seen from outside speaks against it"


class CudaProcess(msgspec.Struct, frozen=True, kw_only=True):
    """One process. `state` is the driver's, None where it cannot be asked (`silent` says why).

    `vram_mib` is by GPU as our reports name them, None where NVML does not tell.
    """

    pid: int
    name: str
    user: str
    state: State | None
    silent: str
    vram_mib: dict[str, int] | None
    chance: Chance
    why: str


def processes(levers: Checkpointer, shown: Sequence[Card], without: int | None = None) -> tuple[CudaProcess, ...]:
    """All that this user may see, by pid; `without` this one and what it started: our own ask the driver, too."""
    listed = {pid for card in shown for pid in card.held or {}}
    candidates = [one for one in map(target, _pids()) if one and (one.pid in listed or has_libcuda(one.pid))]
    found = {one.pid: one for one in candidates if without not in {one.pid, *_above(one.pid)}}
    asked = {pid: _asked(one, levers) for pid, one in found.items() if one.state not in ENDED}
    cuda = {pid: told for pid, told in asked.items() if told is not None}
    held = gpus.vram(shown, [pid for pid, (state, _) in cuda.items() if state != "checkpointed"])
    names = {card.uuid: card.subject for card in shown}
    return tuple(
        _process(found[pid], cuda[pid], _named(held, pid, cuda[pid][0], names), _family(pid, found, cuda))
        for pid in sorted(cuda)
    )


def chance(vram: Mapping[str, int] | None, family: int, *, nccl: bool) -> tuple[Chance, str]:
    """What is visible of a process's chance, and why; `family`: CUDA processes above and below it, itself included."""
    if nccl:
        return "likely lost", "it holds shared memory of NCCL's: no such restore has succeeded"
    if vram is not None and len(vram) > 1:
        on = " and ".join(sorted(vram))
        return "likely lost", f"it holds memory on {on}; with peer access between them a restore may lose it"
    if family > 1:
        return "unknown", f"{family} CUDA processes belong together; what they share cannot be seen"
    if vram is None:
        return "unknown", "NVML does not tell on which GPUs it is"
    return "unknown", NOTHING


def _asked(one: Target, levers: Checkpointer) -> tuple[State | None, str] | None:
    """Its state, or why that cannot be told; None if it does not use CUDA."""
    if one.uid != os.geteuid() and not may_trace():
        return None, "belongs to another user"
    if why := still(one):
        return None, why
    try:
        return (levers.state(one.pid), "") if levers.restore_thread(one.pid) is not None else None
    except CheckpointFailed as failed:
        return None, str(failed)


def _process(one: Target, told: tuple[State | None, str], vram: dict[str, int] | None, family: int) -> CudaProcess:
    expected, why = chance(vram, family, nccl=has_nccl_memory(one.pid))
    return CudaProcess(
        pid=one.pid,
        name=one.name,
        user=_user(one.uid),
        state=told[0],
        silent=told[1],
        vram_mib=vram,
        chance=expected,
        why=why,
    )


def _named(
    held: Mapping[int, Mapping[str, int]] | None, pid: int, state: State | None, names: Mapping[str, str]
) -> dict[str, int] | None:
    if state == "checkpointed":
        return {}
    return None if held is None else {names[gpu]: mib for gpu, mib in held.get(pid, {}).items()}


def _family(pid: int, found: Mapping[int, Target], cuda: Mapping[int, object]) -> int:
    """How many CUDA processes stand in one line of descent with this one."""
    above = _above(pid)
    return 1 + sum(other in above or pid in _above(other) for other in cuda if other != pid and other in found)


def _above(pid: int) -> set[int]:
    above: set[int] = set()
    one = target(pid)
    while one is not None and one.parent and one.parent not in above:
        above.add(one.parent)
        one = target(one.parent)
    return above


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 # names, not paths


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
