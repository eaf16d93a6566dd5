"""A look at a tree of processes before anything is done to it: all that the guards weigh.

Nothing here touches the processes. The driver is not asked about one that is stopped or traced: such a question hangs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from warmspare.control.checkpointer import Checkpointer, CheckpointFailed, State
from warmspare.control.target import Target, has_libcuda, target, tree
from warmspare.runtime import cards as gpus
from warmspare.runtime.cards import Card
from warmspare.runtime.guards import Seen
from warmspare.runtime.memory_room import rooms

NCCL: Final = "/dev/shm/nccl-"  # noqa: S108 # where NCCL's processes meet; nothing is made there
KERNEL_THREAD: Final = 0x00200000
"""PF_KTHREAD. Source: include/linux/sched.h; proc_pid_stat(5), field 9."""
SYS_PTRACE: Final = 19
"""CAP_SYS_PTRACE. Source: capability.h."""
ENDED: Final = "ZX"


def look(pid: int, levers: Checkpointer, shown: Sequence[Card]) -> Seen:
    """The process, all that it started, and what the driver, NVML and the kernel say of them."""
    found = tree(pid)
    us, may = os.geteuid(), may_trace()
    states: dict[int, State] = {}
    untold: dict[int, str] = {}
    for one in found:
        if one.state in ENDED or (one.uid != us and not may) or has_libcuda(one.pid) is False:
            continue
        if why := still(one):
            untold[one.pid] = why
            continue
        try:
            if levers.restore_thread(one.pid) is not None:
                states[one.pid] = levers.state(one.pid)
        except CheckpointFailed as failed:
            lacks = failed.how == "refused" and failed.result is None
            need = "; it takes an NVIDIA driver from 570 on" if lacks else ""
            untold[one.pid] = f"cannot be asked about: {failed}{need}"
    held = gpus.vram(shown, [pid for pid in states if states[pid] in ("running", "locked")])
    return Seen(
        pid=pid,
        tree=found,
        kernel_thread=is_kernel_thread(pid),
        us=(os.getpid(),),
        uid=us,
        may_trace=may,
        cuda=states,
        untold=untold,
        vram=held,
        most_mib=_most_mib(states, shown),
        nccl=tuple(pid for pid in states if has_nccl_memory(pid)),
        rooms=rooms(states),
    )


def still(one: Target) -> str | None:
    """Why the driver must not be called about a process: it cannot answer, and the call would hang; None if it may."""
    if one.tracer:
        tracer = target(one.tracer)
        by = f"process {one.tracer} ({tracer.name})" if tracer else f"process {one.tracer}"
        return f"is traced by {by}, and the driver's calls on it may hang; end that first"
    if one.state in "Tt":
        return f"is stopped, and the driver's calls on it would hang; continue it first: kill -CONT {one.pid}"
    return None


def is_kernel_thread(pid: int) -> bool:
    """Whether it is no program at all."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()
    except OSError:
        return False
    return bool(int(fields[6]) & KERNEL_THREAD)


def may_trace() -> bool:
    """Whether we may act on other users' processes."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    told = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return bool(told and int(told[1], 16) >> SYS_PTRACE & 1)


def has_nccl_memory(pid: int) -> bool:
    """Whether it has shared memory of NCCL's mapped or open; what may not be seen counts as none."""
    try:
        if NCCL.encode() in Path(f"/proc/{pid}/maps").read_bytes():
            return True
        return any(str(link.readlink()).startswith(NCCL) for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def _most_mib(states: dict[int, State], shown: Sequence[Card]) -> int | None:
    """The most GPU memory that they can hold, or will need: what is in use, or what they hold in host memory."""
    suspended = [pid for pid in states if states[pid] == "checkpointed"]
    if not suspended:
        return gpus.in_use_mib(shown)
    return sum(_resident_mib(pid) for pid in suspended)


def _resident_mib(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return sum(int(kib) for kib in re.findall(r"^(?:VmRSS|VmSwap):\s*(\d+) kB$", status, re.MULTILINE)) // 1024
