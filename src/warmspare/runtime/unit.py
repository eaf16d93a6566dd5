"""A tree of processes acted on as one: every driver call journalled before it is made, and what is left judged."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from warmspare.control import process, together
from warmspare.control.checkpointer import Action, Checkpointer, CheckpointFailed, Done, State
from warmspare.control.host_memory import MIB
from warmspare.control.target import Target, is_same, target
from warmspare.control.together import Limits, Tell, Took
from warmspare.host.port import Host
from warmspare.runtime import cards as gpus
from warmspare.runtime.cards import Card
from warmspare.runtime.guards import Mib
from warmspare.runtime.journal import Entry, Journal
from warmspare.runtime.looking import still
from warmspare.runtime.operations import JournalFailed, Operation
from warmspare.runtime.outcomes import NotActed, called
from warmspare.runtime.stopping import AskedToStop, Stop

VRAM: Final = "vram"
"""The detail of an operation that says how many MiB each process held on which GPU: {pid: {uuid: MiB}}."""
RAN_AFTER: Final = {
    ("suspend", "undone"), ("checkpoint", "undone"), ("resume", "done"), ("move", "done"), ("restore", "done"),
}  # fmt: skip
"""Operations after which a process ran: one that is suspended now was suspended by somebody else."""
EACH_ITS_OWN: Final[Mapping[str, str]] = MappingProxyType({})


class Tools(NamedTuple):
    """What an act works with. `say` shows a line while it works; `shown` shows each driver call.

    `host` is asked what an image rests on; the tests of single acts have none.
    """

    journal: Journal
    levers: Checkpointer
    cards: Callable[[], tuple[Card, ...]]
    say: Callable[[str], None]
    shown: Tell
    host: Host | None = None


class Gone(Exception):
    """A process ended, or its number has become another's; the message says which."""

    def __init__(self, one: Target) -> None:
        """Name it."""
        super().__init__(f"{called(one)} has ended")


class Unit:
    """The CUDA processes of one operation, held so that no other can take their place.

    Called as `together.Tell`. Until something fails, it goes no further where we are asked to stop, a process has
    gone or nothing can be journalled; after that the way back is free, and `problem` keeps what went wrong on it.
    `touched`: a call was begun.
    """

    def __init__(self, tools: Tools, entry: Entry, members: Sequence[Target], stop: Stop | None = None) -> None:
        """Use `held`."""
        self.tools, self.members, self.problem, self.touched = tools, tuple(members), "", False
        self._entry, self._stop, self._way_back = entry, stop or Stop(), False
        self._held: dict[int, int | None] = {}

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold them by descriptors, and make sure once more that they are those that were looked at.

        Raises:
            Gone: one is not.
        """
        with contextlib.ExitStack() as stack:
            self._held = {one.pid: stack.enter_context(process.holding(one.pid)) for one in self.members}
            for one in self.members:
                if not is_same(one):
                    raise Gone(one)
            yield

    @property
    def pids(self) -> tuple[int, ...]:
        """All of them."""
        return tuple(one.pid for one in self.members)

    def __call__(self, action: Action, pid: int, end: Done | CheckpointFailed | None) -> None:
        """Journal a call before it is made, and how it ended."""
        try:
            if end is None and not self._way_back:
                self._stop.check()
                self._check(pid)
            self._entry.tell(action, pid, end)
            self.touched = True
        except (AskedToStop, Gone):
            self._way_back = True
            raise
        except JournalFailed as failed:
            if not self._way_back:
                self._way_back = True
                raise
            self.problem = str(failed)  # bringing the processes back comes before writing it down
        if isinstance(end, CheckpointFailed):
            self._way_back = True
        self.tools.shown(action, pid, end)

    def turn_back(self) -> None:
        """From here on nothing stops it."""
        self._way_back = True

    def left(self, wanted: Mapping[int, State]) -> dict[int, str]:
        """Those that are not in the state that they should be in, and what is the matter: `gone`, or a state."""
        found: dict[int, str] = {}
        for one in self.members:
            state = state_of(self.tools.levers, one.pid)
            if not is_same(one):
                found[one.pid] = "gone"
            elif state != wanted.get(one.pid, state) or state is None:
                found[one.pid] = state or "silent"
        return found

    def _check(self, pid: int) -> None:
        descriptor = self._held.get(pid)
        member = next(one for one in self.members if one.pid == pid)
        if not is_same(member) or (descriptor is not None and process.ready([descriptor], 0)):
            raise Gone(member)


def bring_back(
    unit: Unit,
    pids: Sequence[int],
    needed: Mib | None,
    on: Mapping[str, str] = EACH_ITS_OWN,
    limits: Limits | None = None,
) -> Took:
    """Restore and unlock them. What they need is claimed first and let go of just before the first restore.

    That narrows the race for GPU memory and cannot close it: in between, another process may take it.

    Raises:
        NotActed: what they need cannot be claimed; they are as they were.
        together.NotDone, AskedToStop, Gone, JournalFailed: as it went on.
    """
    levers = unit.tools.levers
    claimed = _claim(unit.tools, {on.get(gpu, gpu): mib for gpu, mib in (needed or {}).items()})

    def tell(action: Action, pid: int, end: Done | CheckpointFailed | None) -> None:
        unit(action, pid, end)
        if claimed and action == "restore" and end is None:
            claimed.clear()
            levers.release()

    try:
        return together.resume(levers, pids, tell, limits, on)
    finally:
        if claimed:  # nothing was restored
            with contextlib.suppress(CheckpointFailed):
                levers.release()


def _claim(tools: Tools, needed: Mib) -> list[str]:
    shown = gpus.free(tools.cards()) or {}
    wanted = {gpu: mib for gpu, mib in needed.items() if mib and gpu in shown}
    claimed: list[str] = []
    for gpu, mib in wanted.items():
        try:
            tools.levers.claim(gpu, mib * MIB, shown[gpu] * MIB)
        except CheckpointFailed as failed:
            with contextlib.suppress(CheckpointFailed):
                tools.levers.release()
            why = f"{mib} MiB of {gpu} cannot be had ({failed}); free some and try again"
            raise NotActed(why, "failed") from failed
        claimed.append(gpu)
    return claimed


def written(vram: Mapping[int, Mib] | None) -> dict[str, str]:
    """What the journal keeps of it; nothing where it is not known."""
    return {} if vram is None else {VRAM: json.dumps({str(pid): dict(held) for pid, held in vram.items()})}


def noted(journal: Journal, members: Iterable[Target]) -> dict[int, Mib] | None:
    """What each of these held when it was suspended, by the journal; None if one was not suspended by this tool.

    Raises:
        JournalFailed: it cannot be read.
    """
    found: dict[int, Mib] = {}
    for one in members:
        past = journal.last_of(one)
        if past is None or (past.action, past.outcome) in RAN_AFTER:
            return None
        note = json.loads(past.detail.get(VRAM, "{}"))
        if str(one.pid) not in note:
            return None
        found[one.pid] = note[str(one.pid)]
    return found


def noted_in(operation: Operation, pids: Iterable[int]) -> dict[int, Mib] | None:
    """What each of these held by the operation's own note; None if that does not tell."""
    vram, wanted = json.loads(operation.detail.get(VRAM, "{}")), tuple(pids)
    return {pid: vram[str(pid)] for pid in wanted} if all(str(pid) in vram for pid in wanted) else None


def has_room(needed: Mib | None, free: Mib | None) -> bool:
    """Whether it is known that what is needed is free."""
    return needed is not None and free is not None and all(mib <= free.get(gpu, 0) for gpu, mib in needed.items())


def summed(vram: Mapping[int, Mib] | None) -> dict[str, int] | None:
    """What all of them hold, by GPU."""
    if vram is None:
        return None
    needed: dict[str, int] = {}
    for held in vram.values():
        for gpu, mib in held.items():
            needed[gpu] = needed.get(gpu, 0) + mib
    return needed


def state_of(levers: Checkpointer, pid: int) -> State | None:
    """The driver's state of a process; None where it cannot be asked: it is stopped, or does not answer."""
    one = target(pid)
    return None if one is None or still(one) else levers.state_or_none(pid)
