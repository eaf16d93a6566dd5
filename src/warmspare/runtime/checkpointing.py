"""A tree of processes to disk: suspended, dumped, its image published, and only then ended.

Until the image has its name nothing is given up: whatever fails before, the processes go on. From then on they are
ended, also by the next command if this one is killed in between.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from warmspare.control import process, together
from warmspare.control.checkpointer import State
from warmspare.control.criu import Criu, Ended, Options, log_of
from warmspare.control.host_memory import MIB
from warmspare.control.target import Target, has_libcuda, is_same, tree
from warmspare.model.criu_log import REMEDIES
from warmspare.runtime import frozen
from warmspare.runtime.aftermath import FAILURES, done, ended, judged, ran_again, words
from warmspare.runtime.cards import Card
from warmspare.runtime.following import Follower, Sums, Unfollowed
from warmspare.runtime.guards import Seen
from warmspare.runtime.journal import Entry
from warmspare.runtime.looking import look
from warmspare.runtime.manifest import Made, Manifest
from warmspare.runtime.manifest import Process as Member
from warmspare.runtime.obstacles import before
from warmspare.runtime.operations import Operation
from warmspare.runtime.outcomes import NotActed, called
from warmspare.runtime.publishing import CannotKeep, Hidden
from warmspare.runtime.stopping import Stop, stoppable
from warmspare.runtime.suspending import Options as Acting
from warmspare.runtime.suspending import begun, cuda_of, refuse
from warmspare.runtime.unit import Tools, Unit, noted, summed

DUMP_S: Final = 3600.0
"""How long CRIU may take. It cannot be broken off without harm, so this is only when we stop waiting."""
PLACE, CRIU, TREE = "place", "criu", "tree"
"""The details of an operation: the folder in the making, the CRIU at work, and the tree as it was dumped."""


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """An image that was made. `summed_s` is what the checksums took beyond CRIU's own time, `synced_s` the disk."""

    path: Path
    size: int
    processes: int
    suspend_s: float
    dump_s: float
    summed_s: float
    synced_s: float
    line: str


class With(NamedTuple):
    """What a checkpoint is made with. `no_gpu`: nothing in the tree uses CUDA, and the driver is not asked.

    `synced`: the image is brought to disk before the processes are ended. `shown` are the GPUs as they are now.
    """

    criu: Criu
    made: Made
    options: Options = Options()
    no_gpu: bool = False
    synced: bool = False
    shown: tuple[Card, ...] = ()


class Broken(Exception):
    """It cannot be gone on with; the message is one line. The processes are as CRIU leaves them."""


class StillAtWork(Exception):
    """CRIU has not come to an end, and cannot be broken off."""


STOPS: Final = (Broken, CannotKeep, Unfollowed, OSError, *FAILURES)
"""All that can break off a checkpoint before its image is published."""


def checkpoint(tools: Tools, pid: int, to: Path, means: With, acting: Acting) -> Saved:
    """Make an image of a process with all that it started, and end them.

    Raises:
        NotActed: a guard refused, or it failed, and what became of them.
        CannotKeep, JournalFailed: nothing was done.
    """
    seen = look(pid, tools.levers, means.shown)
    refuse(before(seen, means.options, no_gpu=means.no_gpu), acting)
    acting.proven(tuple(seen.by_gpu or ()))
    already = noted(tools.journal, [one for one in cuda_of(seen) if seen.cuda[one.pid] == "checkpointed"])
    vram = None if seen.vram is None else {**seen.vram, **(already or {})}
    with Hidden(to) as hidden:
        held = sum((summed(seen.vram) or {}).values()) * MIB
        memory = frozen.in_memory(seen.tree)
        hidden.need(memory + held, f"{memory >> 20} MiB of memory and {held >> 20} MiB of GPU memory")
        place = msgspec.json.encode(hidden.place).decode()
        with stoppable(tools.say) as stop, begun(tools, "checkpoint", seen, vram, **{PLACE: place}) as entry:
            seen = msgspec.structs.replace(seen, vram=vram)
            return _Act(seen, means, tools, entry, stop).carried_out(hidden, acting)


class _Act:
    """One checkpoint under way."""

    def __init__(self, seen: Seen, means: With, tools: Tools, entry: Entry, stop: Stop) -> None:
        self._seen, self._means, self._tools, self._entry, self._stop = seen, means, tools, entry, stop
        self._tree = seen.tree
        self._unit = Unit(tools, entry, cuda_of(seen), stop)
        self._suspend_s = self._dump_s = self._summed_s = 0.0

    def carried_out(self, hidden: Hidden, acting: Acting) -> Saved:
        """Save, publish, end."""
        if not is_same(self._tree[0]):
            gone = NotActed(f"nothing was done: {called(self._tree[0])} has ended", "refused")
            raise ended(self._entry, self._unit, gone, self._stop)
        try:
            with self._unit.held():
                self._suspend(hidden, acting)
                sums = self._dump(hidden)
                self._entry.note(**{TREE: msgspec.json.encode(self._tree).decode()})
                self._stop.check()
                manifest = self._manifest(sums)
                hidden.publish(manifest, synced=self._means.synced)
        except StillAtWork as failed:  # without an outcome: the next command finds out
            hidden.leave()
            message = f"{failed}; when it has ended, `warmspare resume {self._seen.pid}` clears up"
            raise NotActed(message, "stranded") from failed
        except STOPS as failed:
            raise ended(self._entry, self._unit, self._undone(said(failed), hidden), self._stop) from failed
        path = hidden.place.path
        if left := frozen.end(self._tree):
            harm = NotActed(f"the image {path} is whole, and {called(left[0])} does not end: kill -9 it", "stranded")
            raise ended(self._entry, self._unit, harm, self._stop)
        whom = called(self._tree[0])
        line = f"{whom} is saved to {path}, and has ended; `warmspare restore {path}` brings it back"
        return Saved(
            path=path,
            size=manifest.size,
            processes=len(manifest.processes),
            suspend_s=self._suspend_s,
            dump_s=self._dump_s,
            summed_s=self._summed_s,
            synced_s=sums.synced_s,
            line=done(self._entry, self._tools, line, self._stop),
        )

    def _suspend(self, hidden: Hidden, acting: Acting) -> None:
        if self._unit.pids:
            self._entry.stage("suspending")
            took = together.suspend(self._tools.levers, self._unit.pids, self._unit, acting.limits)
            self._suspend_s = took.all_s
        memory = frozen.in_memory(self._tree)  # with what was GPU memory
        hidden.need(memory, f"{memory >> 20} MiB of memory")
        self._stop.check()

    def _dump(self, hidden: Hidden) -> Sums:
        self._entry.stage("dumping")
        self._tools.say(f"CRIU writes {frozen.in_memory(self._tree) >> 20} MiB")
        with Follower(hidden.folder, "sync" if self._means.synced else "write") as follower:
            self._check_root()
            begun_at = time.monotonic()
            running = self._means.criu.dumping(self._seen.pid, hidden.path, self._means.options)
            try:
                self._entry.note(**{CRIU: f"{running.pid}:{(process.started(running.pid) or (0, 0))[1]}"})
            finally:  # whatever is amiss with the journal: nothing can be undone while CRIU is at work
                how = running.wait(DUMP_S)
            if how is None:
                message = f"CRIU, process {running.pid}, has not ended after {DUMP_S:g} s, and must not be killed"
                raise StillAtWork(message)
            self._dump_s = time.monotonic() - begun_at
            if how.status:
                raise Broken(refused(how, "could not dump it"))
            self._look_again()
            self._entry.stage("dumped")
            sums = follower.sums()
            self._summed_s = max(0.0, time.monotonic() - begun_at - self._dump_s - sums.synced_s)
            return sums

    def _check_root(self) -> None:
        """CRIU knows it by its number alone, which may have become another's."""
        if not is_same(self._seen.tree[0]):
            message = f"{called(self._seen.tree[0])} has ended"
            raise Broken(message)

    def _look_again(self) -> None:
        """All are stopped now, so this is who was dumped; a new one must be none that the driver is asked for."""
        before = {one.pid for one in self._tree}
        self._tree = tuple(frozen.settled(lambda: tree(self._seen.pid))) or self._tree
        self._check_root()
        if running := [one for one in self._tree if not frozen.is_still(one)]:
            message = f"CRIU said that all were dumped, and {called(running[0])} is not stopped"
            raise Broken(message)
        for one in self._tree:
            if one.pid not in before and has_libcuda(one.pid) is not False:
                message = f"{called(one)} was started meanwhile, and may use CUDA; try again"
                raise Broken(message)

    def _manifest(self, sums: Sums) -> Manifest:
        vram: Mapping[int, Mapping[str, int]] = self._seen.vram or {}
        members = tuple(
            Member(
                pid=one.pid,
                parent=one.parent,
                name=one.name,
                uid=one.uid,
                cuda=one.pid in self._seen.cuda,
                vram_mib=dict(vram.get(one.pid, {})),
            )
            for one in self._tree
        )
        return Manifest(
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            made=self._means.made,
            processes=members,
            options=self._means.options,
            files=sums.files,
        )

    def _undone(self, why: str, hidden: Hidden) -> NotActed:
        if hidden.is_published:  # it may not have reached the disk: whether to rely on it is the user's to say
            path, pid = hidden.place.path, self._tree[0].pid
            told = f"{called(self._tree[0])} is stopped: `kill -CONT {pid}` and `warmspare resume {pid}` bring it back"
            return NotActed(f"{path}: {why}; {told}", "stranded")
        return undone(self._unit, self._tree, self._seen.cuda, Why(why, log_of(hidden.path, "dump")))


class Why(NamedTuple):
    """What broke a checkpoint off, CRIU's log of the dump if there is one, and the operation if it was cut short."""

    words: str
    log: str
    broken_off: Operation | None = None


def undone(unit: Unit, targets: tuple[Target, ...], found: Mapping[int, State], because: Why) -> NotActed:
    """Let them all go on as they were `found`; what became of them."""
    why = because.words
    problem = frozen.go_on(targets, because.log)
    ran_again(unit, tuple(pid for pid in unit.pids if found.get(pid) == "running"), because.broken_off)
    end, left = judged(unit, found)
    if not is_same(targets[0]):
        return NotActed(f"not checkpointed: {why}; {called(targets[0])} has ended", "lost")
    if end or problem:
        return NotActed(f"not checkpointed: {why}; {'; '.join(filter(None, (left, problem)))}", end or "stranded")
    return NotActed(f"not checkpointed, {called(targets[0])} runs on: {why}", "undone")


def refused(how: Ended, what: str) -> str:
    """What CRIU did not do, why by its own words, and what can be done about it."""
    remedy = f"; {REMEDIES[how.cause]}" if how.cause else ""
    return f"CRIU {what} ({how.code}): {how.line}{remedy}"


def said(failed: Exception) -> str:
    """One line of what broke it off."""
    if isinstance(failed, FAILURES):
        return words(failed)
    if isinstance(failed, OSError):
        return f"{failed.filename or 'a call'}: {failed.strerror}"
    return str(failed)
