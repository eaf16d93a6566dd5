"""A tree of processes from disk: restored stopped, its image's checksums compared, and only then let run.

CRIU restores into a nursery that ends everything, as long as nothing of it has run, when anything goes wrong or we are
killed; so until then there is nothing to write down. From then on it is an operation like a resume.
"""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from warmspare.control.checkpointer import Checkpointer, CheckpointFailed
from warmspare.control.criu import Criu
from warmspare.control.target import Target, is_same, target
from warmspare.runtime import frozen
from warmspare.runtime.aftermath import FAILURES, done, ended
from warmspare.runtime.checkpointing import refused, said
from warmspare.runtime.cradle import Cradle, NoNursery, pid_inside
from warmspare.runtime.following import Follower, Unfollowed, compare
from warmspare.runtime.images import Image
from warmspare.runtime.journal import Entry, Journal
from warmspare.runtime.manifest import NoImage
from warmspare.runtime.operations import Busy, JournalFailed, Operation
from warmspare.runtime.outcomes import NotActed, Recovered, called
from warmspare.runtime.stopping import AskedToStop, Stop, stoppable
from warmspare.runtime.unit import EACH_ITS_OWN, Tools, Unit, bring_back, noted_in, state_of, summed, written
from warmspare.runtime.wreck import given_up

RESTORE_S: Final = 3600.0
SMALL: Final = 16 * 2**20
"""Files up to this are read before CRIU is started, which then finds nothing in them that was not saved."""
IMAGE, GPUS = "image", "gpus"
"""The details of an operation: the image, and which GPU takes which one's place."""
STOPS: Final = (NoImage, NoNursery, Unfollowed, AskedToStop, JournalFailed, OSError)
"""All that can break off a restore before anything of it has run."""


class With(NamedTuple):
    """What a restore is made with. `on`: by UUID which GPU takes which one's place."""

    criu: Criu
    on: Mapping[str, str] = EACH_ITS_OWN
    new_pidns: bool = False


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """A tree that runs again. `pid` is its root as seen from here."""

    pid: int
    processes: int
    criu_s: float
    summed_s: float
    resume_s: float
    line: str


def restore(image: Image, means: With, tools: Tools) -> Restored:
    """Restore the tree of an image that was found to fit this machine.

    Raises:
        NotActed: it was not, and what became of what was restored; the image is as it was.
    """
    with stoppable(tools.say) as stop:
        try:
            verify_small(image)
            if not means.new_pidns:
                free_pids(image)
            act = _Act(image, means, tools, stop)
            return act.carried_out()
        except STOPS as failed:
            message = f"not restored: {said(failed)}; nothing of {image.path} was run"
            raise NotActed(message, "failed") from failed


def verify_small(image: Image) -> None:
    """Compare the checksums of the small files.

    Raises:
        NoImage, Unfollowed: they are not what was saved, or cannot be read.
    """
    verify(image, [name for name, file in image.manifest.files.items() if file.size <= SMALL])


def verify(image: Image, names: list[str]) -> None:
    """Compare the checksums of these files.

    Raises:
        NoImage, Unfollowed: they are not what was saved, or cannot be read.
    """
    with Follower(image.folder, "read") as follower:
        follower.read(names)
        compare(image.manifest.files, follower.sums().files)


def free_pids(image: Image) -> None:
    """Make sure that every number is free which the processes had.

    Raises:
        NoImage: one is not; who has it is said.
    """
    for number in image.threads():
        if Path(f"/proc/{number}").exists():
            one = target(number)
            whose = (
                f"{one.name}, {'a zombie of ' + str(one.parent) if one.state == 'Z' else 'alive'}"
                if one
                else "a thread"
            )
            message = f"process number {number} is taken ({whose}): end it, or use --new-pidns"
            raise NoImage(message)


class _Act:
    """One restore under way."""

    def __init__(self, image: Image, means: With, tools: Tools, stop: Stop) -> None:
        self._image, self._means, self._tools, self._stop = image, means, tools, stop
        self._criu_s = self._summed_s = 0.0

    def carried_out(self) -> Restored:
        """Restore, compare, let go, resume."""
        image, means = self._image, self._means
        self._tools.say(f"CRIU reads {image.manifest.size >> 20} MiB")
        with Follower(image.folder, "read") as follower:
            follower.read(name for name, file in image.manifest.files.items() if file.size > SMALL)
            with Cradle(image.folder, means.criu, image.manifest.options, new_pidns=means.new_pidns) as cradle:
                begun_at = time.monotonic()
                with _starting_cuda(self._tools.levers if image.manifest.cuda else None):
                    how = cradle.wait(RESTORE_S)
                self._criu_s = time.monotonic() - begun_at
                if how.status:
                    raise NoNursery(refused(how, "could not restore it"))
                compare(image.manifest.files, follower.sums().files)
                self._summed_s = time.monotonic() - begun_at - self._criu_s
                targets = cradle.restored()
                self._check(targets)
                self._stop.check()
                with self._begun(targets) as entry:
                    cradle.let_go()
                    return self._resumed(targets, entry)

    def _check(self, targets: tuple[Target, ...]) -> None:
        """What is there must be what was to come, and none of it may run."""
        there = {pid_inside(one.pid) or one.pid for one in targets if frozen.is_still(one)}
        wanted = {one.pid for one in self._image.manifest.processes}
        if there != wanted:
            found = f"{len(there & wanted)} of the {len(wanted)} processes of the manifest are there and stopped"
            message = f"CRIU said that it was restored, and {found}"
            raise NoNursery(message)

    def _begun(self, targets: tuple[Target, ...]) -> Entry:
        journal: Journal = self._tools.journal
        try:
            return journal.begin(
                "restore",
                targets,
                self._cuda(targets),
                **{IMAGE: str(self._image.path), GPUS: json.dumps(dict(self._means.on))},
                **written(self._vram(targets)),
            )
        except Busy as busy:
            message = f"another warmspare is at work on these processes: {busy}"
            raise NoNursery(message) from busy

    def _cuda(self, targets: tuple[Target, ...]) -> tuple[int, ...]:
        wanted = set(self._image.manifest.cuda)
        return tuple(one.pid for one in targets if (pid_inside(one.pid) or one.pid) in wanted)

    def _vram(self, targets: tuple[Target, ...]) -> dict[int, dict[str, int]]:
        """What each held when it was saved, under the numbers that they have now."""
        held = {one.pid: one.vram_mib for one in self._image.manifest.processes if one.cuda}
        return {pid: held[pid_inside(pid) or pid] for pid in self._cuda(targets)}

    def _resumed(self, targets: tuple[Target, ...], entry: Entry) -> Restored:
        cuda = self._cuda(targets)
        unit = Unit(self._tools, entry, [one for one in targets if one.pid in cuda])
        resume_s = 0.0
        try:
            for one in targets:
                frozen.send(one, signal.SIGCONT)
            with unit.held():
                if cuda:
                    resume_s = bring_back(unit, cuda, self._image.manifest.vram_mib, self._means.on).all_s
        except (NotActed, OSError, *FAILURES) as failed:
            raise ended(entry, unit, given_up(unit, targets, said(failed), self._tools), self._stop) from failed
        root = targets[0]
        where = f" as {pid_inside(root.pid)} of its own pid namespace" if self._means.new_pidns else ""
        line = f"{called(root)} runs again{where}, restored from {self._image.path}"
        return Restored(
            pid=root.pid,
            processes=len(targets),
            criu_s=self._criu_s,
            summed_s=self._summed_s,
            resume_s=resume_s,
            line=done(entry, self._tools, line, self._stop),
        )


@contextlib.contextmanager
def _starting_cuda(levers: Checkpointer | None) -> Iterator[None]:
    """Have the driver started meanwhile, which a restore needs: cuInit takes up to a second with several GPUs."""

    def start() -> None:
        with contextlib.suppress(CheckpointFailed):  # the restore itself will tell it
            if levers is not None:
                levers.initialise()

    with contextlib.suppress(CheckpointFailed):
        if levers is not None:
            levers.lacking()  # so that the worker is started by the thread that stays: it ends with that
    starting = threading.Thread(target=start)
    starting.start()
    try:
        yield
    finally:
        starting.join()


def finish(operation: Operation, entry: Entry, tools: Tools) -> Recovered:
    """Go on with a restore whose controller was killed: what it restored either runs or is gone."""
    path, targets = operation.detail.get(IMAGE, "?"), operation.targets
    there = [] if operation.rebooted else [one for one in targets if is_same(one)]
    if not there:
        sentence = f"{called(targets[0])} was not restored: it was interrupted before it ran; the image {path} is whole"
        return Recovered(operation=operation, outcome="failed", sentence=sentence)
    unit = Unit(tools, entry, [one for one in there if one.pid in operation.cuda])
    for one in there:
        frozen.send(one, signal.SIGCONT)
    if unit.pids:
        try:
            on = json.loads(operation.detail.get(GPUS, "{}"))
            waiting = [pid for pid in unit.pids if state_of(tools.levers, pid) == "checkpointed"]
            bring_back(unit, unit.pids, summed(noted_in(operation, waiting)), on)
        except (NotActed, *FAILURES) as failed:
            unit.turn_back()  # it may have run for long since: nobody but its user ends it
            again = f"`warmspare resume {targets[0].pid}` tries again; the image {path} is whole"
            sentence = f"{called(targets[0])} was restored, and is not resumed: {said(failed)}; {again}"
            return Recovered(operation=operation, outcome="stranded", sentence=sentence)
    sentence = f"{called(targets[0])} runs again: its restore from {path} was finished"
    return Recovered(operation=operation, outcome="done", sentence=sentence)
