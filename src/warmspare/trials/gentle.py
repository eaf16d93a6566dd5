"""How a process that the driver has restored is ended: suspended again first, so that it holds nothing of a GPU.

On one driver the end of a restored process hung the whole machine. So such a process is not tied to its parent's life:
its trial writes it down before the first restore, durably and in its scratch folder, and whoever clears the trial away
suspends it before it is killed. One that cannot be suspended is left alive, with its folder, and named; the next run
tries again. While it is checkpointed, or was never restored, a plain kill is safe.

Source: NVIDIA/cuda-checkpoint#53.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from warmspare.control import aside, process
from warmspare.control.checkpointer import Action, Checkpointer, CheckpointFailed, State
from warmspare.host import nvml
from warmspare.model.restored import ENDED
from warmspare.model.transcript import Gave
from warmspare.probes import driver

RECORD: Final = "restored"
"""The file in a trial's scratch folder that has the pids, one a line."""
LIMIT_S: Final = 30.0
"""How long all of this may take."""
LOCK_S: Final = 3.0
"""How long the work under way may take to end: our own programs run short kernels."""
SOON_S: Final = 3.0
"""How long NVML may go on to list a process that was suspended."""
AGAIN_S: Final = 0.1
"""How soon a state that will change by itself is asked for again."""
VERSION_FILE: Final = Path("/proc/driver/nvidia/version")
VERSION: Final = re.compile(rf"\s({driver.VERSION})\s")
BY_HAND: Final = "pid {pid}, which the driver restored: end it by `warmspare suspend {pid} && kill -9 {pid}`"
LOST: Final = "pid {pid}, which the driver failed to restore: only `kill -9 {pid}` ends it, and on one driver the"
LOST_TOO: Final = " end of restored processes hung the machine"


def register(folder: Path, pid: int) -> None:
    """Write a process down before the driver restores it: on the disk when this returns."""
    record = os.open(folder / RECORD, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.write(record, f"{pid}\n".encode("ascii"))
        os.fsync(record)
        os.fsync(directory)
    finally:
        os.close(record)
        os.close(directory)


def is_registered(folder: Path, pid: int) -> bool:
    """Whether it is written down there."""
    return pid in _recorded(folder)


def alive(folders: Iterable[Path], token: str) -> frozenset[int]:
    """Those written down in a trial's folders that still live. A pid alone is not trusted: it must carry the token."""
    found = {pid for folder in folders for pid in _recorded(folder)}
    return frozenset(pid for pid in found if pid != os.getpid() and process.is_tagged(pid, token))


def settle(pids: Collection[int]) -> dict[int, State | None]:
    """Suspend them, so that they can be killed; those that must be left alive instead, with their states.

    All are locked before the first is checkpointed: they may wait for each other. What the driver says of a call is
    not enough: the state after it must be that of a process which holds nothing of a GPU, and NVML may no longer
    list it, where it lists anybody.
    """
    if not pids:
        return {}
    ends = time.monotonic() + LIMIT_S
    with Checkpointer() as levers:
        states = {pid: _resting_state(levers, pid, ends - LIMIT_S / 2) for pid in pids}
        for pid in pids:
            if states[pid] == "running":
                states[pid] = _after(levers, "lock", pid, ends)
        for pid in pids:
            if states[pid] == "locked":
                states[pid] = _after(levers, "checkpoint", pid, ends)
    if _version() in ENDED:
        return {}
    holding = _holding([pid for pid in pids if states[pid] == "checkpointed"], min(ends, time.monotonic() + SOON_S))
    return {pid: state for pid, state in states.items() if state != "checkpointed" or pid in holding}


def _holding(pids: Collection[int], soon: float) -> frozenset[int]:
    """Those that NVML lists on a GPU still; it may be told of their going a little later. It may hang: asked aside."""
    listed: list[int] = list(pids)
    while listed and (left := soon - time.monotonic()) > 0:
        told: list[int] = []
        take = msgspec.json.Decoder(list[int])
        if aside.follow(lambda tell: tell(_listed()), lambda line: told.extend(take.decode(line)), left):  # noqa: B023 # done within this turn
            return frozenset()  # NVML does not answer, so it says nothing against what the driver says
        if not (listed := [pid for pid in pids if pid in told]):
            break
        time.sleep(AGAIN_S)
    return frozenset(listed)


def _listed() -> list[int]:
    """Every process that NVML lists on any GPU; none where it lists nobody."""
    answer = nvml.ask("nvmlDeviceGetCount")
    count = answer.value if isinstance(answer, Gave) and isinstance(answer.value, int) else 0
    return sorted({pid for index in range(count) for pid in nvml.compute_pids(index) or ()})


def by_hand(left: Mapping[int, State | None]) -> list[str]:
    """What to say of those that are left alive."""
    lost = f"{LOST}{LOST_TOO}"
    return [(lost if left[pid] == "failed" else BY_HAND).format(pid=pid) for pid in sorted(left)]


def _recorded(folder: Path) -> set[int]:
    """The pids of the record; a last line that was not written out does not count: nothing was restored after it."""
    try:
        lines = (folder / RECORD).read_text(encoding="ascii", errors="replace").split("\n")[:-1]
    except OSError:
        return set()
    return {int(line) for line in lines if line.isdigit()}


def _resting_state(levers: Checkpointer, pid: int, ends: float) -> State | None:
    """Its state once a copy under way has ended: a restore goes on when the process that asked for it is killed."""
    while True:
        if (left := ends - time.monotonic()) <= 0:
            return None
        try:
            state = levers.state(pid, min(left, LOCK_S))
        except CheckpointFailed:
            return None
        if state not in ("restoring", "checkpointing"):
            return state
        time.sleep(AGAIN_S)


def _after(levers: Checkpointer, action: Action, pid: int, ends: float) -> State | None:
    """The state after a lock or a checkpoint; None where there is no time left for it, or it failed and is not told."""
    left = ends - time.monotonic()
    if left <= LOCK_S:
        return None
    try:
        done = levers.lock(pid, LOCK_S) if action == "lock" else levers.checkpoint(pid, left - LOCK_S)
    except CheckpointFailed as failed:
        return failed.state
    return done.state


def _version() -> str | None:
    """The version of the kernel's driver; None where it is not told."""
    try:
        found = VERSION.search(VERSION_FILE.read_text(encoding="ascii", errors="replace"))
    except OSError:
        return None
    return found[1] if found else None
