"""What speaks against an act before anything is touched. Pure functions of what was seen; each names its remedy.

A guard with `force` is a prediction from what is visible, or something that could not be told: --force goes on all
the same. The others would harm for certain, or cannot be done at all.

Source: our own runs (P2P and NCCL: the checkpoint succeeds, the restore fails); cuda-checkpoint's README; proc(5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from warmspare.control.checkpointer import State
from warmspare.control.target import Target

Mib = Mapping[str, int]
"""MiB by a GPU's UUID."""
STOPPED: Final = {"T": "is stopped", "t": "is stopped by its tracer", "Z": "has ended", "X": "has ended"}
"""What the kernel's letter of a process says against asking the driver about it. Source: proc_pid_stat(5)."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """One reason not to act, with what to do about it. `force`: --force goes on all the same."""

    why: str
    force: bool = False


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """Host memory that is left in one place: the machine, or a cgroup with a limit; `pids` are charged there."""

    name: str
    free_mib: int
    pids: tuple[int, ...]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a tree of processes when it is to be acted on; the root first.

    `cuda` are the pids that the driver knows, with their states; `untold` those that may be and why they could not
    be asked. `vram` is what each holds, None where NVML does not tell; `most_mib` what it can be at most, None where
    not even that is known. `nccl` hold shared memory of NCCL's.
    """

    pid: int
    tree: tuple[Target, ...]
    kernel_thread: bool = False
    us: tuple[int, ...] = ()
    uid: int = 0
    may_trace: bool = False
    cuda: Mapping[int, State] = {}
    untold: Mapping[int, str] = {}
    vram: Mapping[int, Mib] | None = None
    most_mib: int | None = None
    nccl: tuple[int, ...] = ()
    rooms: tuple[Room, ...] = ()

    @property
    def vram_mib(self) -> int | None:
        """What the whole tree holds."""
        return None if self.vram is None else sum(sum(held.values()) for held in self.vram.values())

    @property
    def by_gpu(self) -> dict[str, int] | None:
        """The same, by GPU."""
        if self.vram is None:
            return None
        gpus = sorted({gpu for held in self.vram.values() for gpu in held})
        return {gpu: sum(held.get(gpu, 0) for held in self.vram.values()) for gpu in gpus}


def before_any(seen: Seen) -> tuple[Refusal, ...]:
    """What speaks against any act on these processes, the first reason first."""
    if not seen.tree:
        return (Refusal(why=f"there is no process {seen.pid}; `warmspare ps` lists those that can be suspended"),)
    return tuple(why for guard in (_not_for_us, _no_cuda, _silent, _failed) if (why := guard(seen)))


def before_suspend(seen: Seen) -> tuple[Refusal, ...]:
    """What speaks against suspending them: no restore may ever bring them back, or the host cannot hold them."""
    if first := before_any(seen):
        return first
    return (*_locked(seen), *_peers(seen), *_no_room(seen))


def before_sleep(seen: Seen) -> tuple[Refusal, ...]:
    """What speaks against putting an engine to sleep, to suspend its processes after that.

    How much of its memory are weights, which go to the host, and how much is a cache, which is dropped, cannot be
    seen: that all of it may not fit is a prediction here.
    """
    if first := before_any(seen):
        return first
    if any(state != "running" for state in seen.cuda.values()):
        why = f"a part of it is suspended already; `warmspare resume {seen.pid}` brings that back first"
        return (Refusal(why=why),)
    rooms = (Refusal(why=f"{one.why}; --force tries it", force=True) for one in _no_room(seen))
    return (*_peers(seen), *rooms)


def before_wake(needed: Mib | None, free: Mib | None) -> tuple[Refusal, ...]:
    """What speaks against waking an engine: a wake that finds too little GPU memory may leave it of no use for good.

    `needed`: None if nobody told. Source: llm-d FMA#746.
    """
    if needed is None or free is None:
        what = "how much GPU memory its wake takes" if needed is None else "how much GPU memory is free"
        return (Refusal(why=f"nobody tells {what}; {_WAKE_FOR_GOOD}; --force does it", force=True),)
    return tuple(
        Refusal(why=f"{gpu} has {free.get(gpu, 0)} MiB free, and waking its engine takes {mib} MiB; {_WAKE_FOR_GOOD}")
        for gpu, mib in needed.items()
        if mib > free.get(gpu, 0)
    )


def before_resume(seen: Seen, needed: Mib | None, free: Mib | None) -> tuple[Refusal, ...]:
    """What speaks against resuming them.

    `needed` is what was freed when they were suspended, None if that is not known: what the processes hold in host
    memory (`most_mib`) is then the most that it can be.
    """
    if first := before_any(seen):
        return first
    return tuple(_no_vram(seen, needed, free))


def _not_for_us(seen: Seen) -> Refusal | None:
    root = seen.tree[0]
    if seen.kernel_thread:
        return Refusal(why=f"{_name(root)} is a thread of the kernel's")
    if any(one.pid in seen.us for one in seen.tree):
        return Refusal(why=f"{_name(root)} started this very command, or is it; name another process")
    if root.state in "ZX":
        return Refusal(why=f"{_name(root)} has ended, and waits only for its parent {root.parent}")
    others = [one for one in seen.tree if one.uid != seen.uid]
    if others and not seen.may_trace:
        one = others[0]
        who = "root without CAP_SYS_PTRACE" if seen.uid == 0 else "you"
        return Refusal(
            why=f"{_name(one)} belongs to user {one.uid}, and {who} may not act on it;"
            " run this as that user, or as root with CAP_SYS_PTRACE"
        )
    return None


def _no_cuda(seen: Seen) -> Refusal | None:
    if seen.cuda or seen.untold:
        return None
    with_children = " nor does any that it started" if len(seen.tree) > 1 else ""
    return Refusal(why=f"{_name(seen.tree[0])} does not use CUDA,{with_children or ' so there is nothing to free'}")


def _silent(seen: Seen) -> Refusal | None:
    """The driver is not called about a process that cannot answer: such a call hangs."""
    names = {one.pid: one for one in seen.tree}
    for pid, why in seen.untold.items():
        return Refusal(why=f"{_name(names[pid])} {why}")
    return None


def _failed(seen: Seen) -> Refusal | None:
    lost = [one for one in seen.tree if seen.cuda.get(one.pid) == "failed"]
    if not lost:
        return None
    rest = "; the others can be resumed once it has ended" if len(seen.cuda) > len(lost) else ""
    return Refusal(why=f"{_name(lost[0])} is lost: the driver says FAILED, and nothing brings it back{rest}")


def _locked(seen: Seen) -> Iterator[Refusal]:
    for one in seen.tree:
        if (state := seen.cuda.get(one.pid)) in ("locked", "checkpointing", "restoring"):
            yield Refusal(
                why=f"{_name(one)} is {state}, and not by a command of yours that is under way;"
                f" if nobody else is at work on it, `warmspare resume {one.pid}` brings it back"
            )


def _peers(seen: Seen) -> Iterator[Refusal]:
    """What is visible of ways in which a checkpoint succeeds and the restore then loses the process."""
    for pid, held in (seen.vram or {}).items():
        if len(held) > 1:
            yield Refusal(
                why=f"process {pid} holds memory on {len(held)} GPUs; with peer access between them, which cannot be"
                " seen, a restore may lose it; use --force if you know that it enables none",
                force=True,
            )
    if seen.nccl:
        ranks = f"{len(seen.cuda)} CUDA processes" if len(seen.cuda) > 1 else "it"
        yield Refusal(
            why=f"process {seen.nccl[0]} holds shared memory of NCCL's: after such a checkpoint of {ranks} the restore"
            " failed and the processes were lost; --force does it all the same",
            force=True,
        )


def _no_room(seen: Seen) -> Iterator[Refusal]:
    for room in seen.rooms:
        known = None if seen.vram is None else sum(sum(seen.vram.get(pid, {}).values()) for pid in room.pids)
        if known is not None and known > room.free_mib:
            yield Refusal(
                why=f"{known} MiB of GPU memory would have to fit into {room.free_mib} MiB of host memory"
                f" ({room.name}); free some, or raise the limit"
            )
        elif known is None and seen.most_mib is not None and seen.most_mib > room.free_mib:
            yield Refusal(
                why=f"nobody tells how much GPU memory it holds; it may be {seen.most_mib} MiB, and {room.name} has"
                f" {room.free_mib} MiB of host memory left; --force does it all the same",
                force=True,
            )


def _no_vram(seen: Seen, needed: Mib | None, free: Mib | None) -> Iterator[Refusal]:
    if all(state in ("running", "locked") for state in seen.cuda.values()):
        return
    if free is None:
        yield Refusal(why=f"nobody tells how much GPU memory is free; {_FOR_GOOD}; --force does it", force=True)
    elif needed is not None:
        for gpu, mib in needed.items():
            if mib > free.get(gpu, 0):
                yield Refusal(why=f"{gpu} has {free.get(gpu, 0)} MiB free, and {mib} MiB are needed; {_FOR_GOOD}")
    elif seen.most_mib is None or any(mib < seen.most_mib for mib in free.values()):
        yield Refusal(
            why=f"how much GPU memory it needs is not known, since this tool did not suspend it: up to"
            f" {'any amount' if seen.most_mib is None else f'{seen.most_mib} MiB'}; {_FOR_GOOD}; --force does it",
            force=True,
        )


_FOR_GOOD: Final = "a restore with too little may strand it for good"
_WAKE_FOR_GOOD: Final = "a wake with too little may leave it unable ever to wake"


def standing(refusals: Sequence[Refusal], *, force: bool) -> Refusal | None:
    """The first reason that stands, with --force or without."""
    return next((one for one in refusals if not (force and one.force)), None)


def _name(one: Target) -> str:
    return f"process {one.pid} ({one.name})"
