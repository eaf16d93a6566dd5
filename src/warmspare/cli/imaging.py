"""The work behind `warmspare checkpoint`, `restore` and `inspect`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from warmspare.cli import acting
from warmspare.cli.errors import Failed
from warmspare.cli.output import say
from warmspare.cli.progress import Progress
from warmspare.cli.session import need_linux
from warmspare.control.criu import Criu, Options, missing_capabilities
from warmspare.control.host_memory import MIB
from warmspare.model.criu_log import REMEDIES
from warmspare.report.view import clean
from warmspare.runtime import checkpointing, fitting, hosts, restoring
from warmspare.runtime.cards import Card, Watch, cards
from warmspare.runtime.following import Unfollowed
from warmspare.runtime.guards import Refusal, standing
from warmspare.runtime.images import Image
from warmspare.runtime.manifest import Made, Manifest, NoImage
from warmspare.runtime.outcomes import NotActed
from warmspare.runtime.publishing import CannotKeep
from warmspare.runtime.recovery import recover
from warmspare.runtime.unit import Tools
from warmspare.trials.criu_roundtrip import CriuRoundtrip
from warmspare.trials.criugpu_roundtrip import CriugpuRoundtrip
from warmspare.trials.gpu_suspend import GpuSuspend

PROOFS: Final = (GpuSuspend, CriugpuRoundtrip)
CPU_PROOFS: Final = (CriuRoundtrip,)
NO_CRIU: Final = "no CRIU was found: install CRIU 4 or later, or name one with --criu PATH"


class How(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a checkpoint, CRIU's by name."""

    no_gpu: bool
    sync: bool
    force: bool
    lock_s: float
    options: dict[str, bool]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What `inspect` found."""

    path: str
    manifest: Manifest
    verified: bool | None
    restores_here: bool
    refusals: tuple[Refusal, ...]


def checkpoint(pid: int, folder: str, how: How) -> int:
    """Save, say what it took, and end.

    Raises:
        Failed: it was refused or failed, and the processes run on.
        Lost: a process is lost or stranded; the line names it.
    """
    criu = _criu(force=how.force)
    progress = Progress()
    with _failing(progress), acting.tools(progress) as tools:
        _recover(tools, pid)
        shown = () if how.no_gpu else tools.cards()
        made = hosts.here(criu, None if how.no_gpu else tools.host, shown)
        means = checkpointing.With(criu, made, Options(**how.options), how.no_gpu, how.sync, shown)
        proofs = CPU_PROOFS if how.no_gpu else PROOFS
        wanted = acting.options(proofs, tools, progress, force=how.force, lock_s=how.lock_s)
        saved = checkpointing.checkpoint(tools, pid, Path(folder), means, wanted)
    took = f"suspended in {saved.suspend_s:.2f} s, dumped in {saved.dump_s:.2f} s"
    more = f"checksums {saved.summed_s:.2f} s more"
    if how.sync:
        more = f"{more}, brought to disk in {saved.synced_s:.2f} s"
    say(f"{clean(saved.line)}\n{saved.size / MIB:.0f} MiB: {took}, {more}\n")
    return 0


def restore(folder: str, to: tuple[str, ...], *, new_pidns: bool, force: bool) -> int:
    """Restore, say what it took, and end.

    Raises:
        Failed: it was refused or failed; nothing of it runs, and the image is as it was.
        Lost: something is left that holds GPU memory or does not end; the line names it.
    """
    criu = _criu(force=force)
    progress = Progress()
    with _failing(progress), acting.tools(progress) as tools:
        _recover(tools, None)
        with Image(Path(folder)) as image:
            shown = tools.cards() if image.manifest.cuda else ()
            made = hosts.here(criu, tools.host if image.manifest.cuda else None, shown)
            on = fitting.placed(image.manifest, shown, to)
            found = fitting.against(image, made, shown, on, new_pidns=new_pidns)
            if against := standing(found, force=force):
                raise NotActed(against.why, "refused")
            restored = restoring.restore(image, restoring.With(criu, on, new_pidns), tools)
    resumed = f", GPU memory in {restored.resume_s:.2f} s" if image.manifest.cuda else ""
    took = f"restored in {restored.criu_s:.2f} s, checksums {restored.summed_s:.2f} s more{resumed}"
    say(f"{clean(restored.line)}\n{image.manifest.size / MIB:.0f} MiB: {took}\n")
    return 0


def inspect(folder: str, *, verify: bool, as_json: bool) -> int:
    """Print what the image holds, and what speaks against a restore here; 1 if anything does.

    Raises:
        Failed: it is no image, or damaged.
    """
    need_linux()
    progress = Progress()
    with _failing(progress), Image(Path(folder)) as image:
        if verify:
            restoring.verify(image, list(image.manifest.files))
        shown, made = _here(uses_cuda=bool(image.manifest.cuda))
        refusals = (*_unable(), *fitting.against(image, made, shown, {}, new_pidns=False))
        found = Seen(
            path=str(image.path.absolute()),
            manifest=image.manifest,
            verified=True if verify else None,
            restores_here=not refusals,
            refusals=refusals,
        )
    say(f"{msgspec.json.format(msgspec.json.encode(found)).decode()}\n" if as_json else _text(found))
    return 0 if found.restores_here else 1


def _text(found: Seen) -> str:
    one, made = found.manifest, found.manifest.made
    others = f" and {len(one.processes) - 1} more" if len(one.processes) > 1 else ""
    held = ", ".join(f"{mib} MiB of {uuid}" for uuid, mib in one.vram_mib.items())
    chosen = [name for name, is_set in msgspec.structs.asdict(one.options).items() if is_set]
    lines = [
        f"{found.path}: process {one.root.pid} ({one.root.name}){others}, {one.size / MIB:.0f} MiB",
        f"  made {one.made_at} by {made.tool}; proven to restore in the {one.valid_in}",
        f"  driver {made.driver or 'none'}, kernel {made.kernel}, CRIU {made.criu or 'unknown'}, {made.architecture}",
        *([f"  GPU memory: {held}"] if held else []),
        *([f"  options: {', '.join(chosen)}"] if chosen else []),
        *(["  every byte of its files is what was saved"] if found.verified else []),
        *(f"  cannot be restored now: {one.why}" for one in found.refusals),
        *(["  can be restored here"] if found.restores_here else []),
    ]
    return "".join(f"{clean(line)}\n" for line in lines)


def _recover(tools: Tools, pid: int | None) -> None:
    """Clear up what was interrupted, first."""
    for found in recover(tools):
        if pid is not None and found.concerns(pid) and found.is_harm:
            message = f"nothing was begun: {found.sentence}"
            raise NotActed(message, "lost")


def _criu(*, force: bool) -> Criu:
    """A CRIU that can work here.

    Raises:
        Failed: there is none.
    """
    need_linux()
    if unable := _unable():
        raise Failed(unable[0].why)
    criu = Criu.found()
    if criu is None:
        raise Failed(NO_CRIU)
    ended = criu.check() if not force else None
    if ended and ended.status:
        remedy = f"; {REMEDIES[ended.cause]}" if ended.cause else ""
        message = f"{criu.program} cannot work here ({ended.code}): {ended.line}{remedy}"
        raise Failed(message)
    return criu


def _unable() -> tuple[Refusal, ...]:
    """What we lack to run CRIU at all."""
    lacking = missing_capabilities()
    if lacking:
        why = (
            f"CRIU needs {' and '.join(lacking)}, which you have not: run it as root (suspend and resume need neither)"
        )
        return (Refusal(why=why),)
    return () if Criu.found() else (Refusal(why=NO_CRIU),)


def _here(*, uses_cuda: bool) -> tuple[tuple[Card, ...], Made]:
    if not uses_cuda:
        return (), hosts.here(Criu.found(), None)
    with Watch() as host:
        shown = cards(host)
        return shown, hosts.here(Criu.found(), host, shown)


@contextlib.contextmanager
def _failing(progress: Progress) -> Iterator[None]:
    """What goes wrong in here becomes one line and an exit code."""
    with acting.failing(progress):
        try:
            yield
        except (NoImage, CannotKeep, Unfollowed) as failed:
            raise Failed(str(failed)) from failed
