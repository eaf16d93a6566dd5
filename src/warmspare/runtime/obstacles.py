"""What speaks against a checkpoint beforehand; also what CRIU would refuse only in the middle of it.

Source: criu/pstree.c, criu/tty.c; our own runs with CRIU 4.1.1 and 4.2.1 (an io_uring is refused without saying so).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from warmspare.control.criu import Options
from warmspare.control.target import Target
from warmspare.model.criu_log import REMEDIES, Cause
from warmspare.runtime.guards import Refusal, Seen, before_any, before_suspend
from warmspare.runtime.outcomes import called

IO_URING: Final = "anon_inode:[io_uring]"
TERMINALS: Final = ("/dev/pts/", "/dev/tty", "/dev/console")
MASTERS: Final = frozenset({"/dev/ptmx", "/dev/pts/ptmx"})
"""The other end of a terminal; one that is in the tree too is taken along. Source: pty(7)."""
SESSION: Final = 3
"""The place of the session's number behind the name. Source: proc_pid_stat(5), field 6."""


def before(seen: Seen, options: Options, *, no_gpu: bool) -> tuple[Refusal, ...]:
    """What speaks against it: all that speaks against a suspend, and what CRIU would refuse only in the middle."""
    if not seen.tree or not (no_gpu or seen.cuda or seen.untold):
        how = "; --no-gpu checkpoints it without the driver" if seen.tree else ""
        found = before_any(seen)
        return (Refusal(why=f"{found[0].why}{how}"),) if found else ()
    if no_gpu and (seen.cuda or seen.untold):
        user = next(one for one in seen.tree if one.pid in (seen.cuda or seen.untold))
        return (Refusal(why=f"{called(user)} uses CUDA: leave --no-gpu away"),)
    # The guards ask for a CUDA process among them; here there may be none.
    asked = msgspec.structs.replace(seen, cuda={seen.pid: "running"}) if no_gpu else seen
    return (*before_suspend(asked), *(Refusal(why=why) for why in obstacles(seen.tree, options)))


def obstacles(tree: Sequence[Target], options: Options) -> tuple[str, ...]:
    """Each as one line with what to do; what may not be seen is left to CRIU."""
    return tuple(_found(tree, options))


def _found(tree: Sequence[Target], options: Options) -> Iterator[str]:
    pids = {one.pid for one in tree}
    files = {one.pid: tuple(_open_files(one.pid)) for one in tree}
    may_have_terminals = options.shell_job or any(path in MASTERS for opened in files.values() for _, path in opened)
    for one in tree:
        name = f"process {one.pid} ({one.name})"
        session = _session(one.pid)
        if session is not None and session not in pids and not options.shell_job:
            yield _line(f"{name} is in session {session}", "session")
        for number, path in files[one.pid]:
            if path == IO_URING:
                yield _line(f"{name} has an io_uring open (descriptor {number})", "io_uring")
            elif path.startswith(TERMINALS) and path not in MASTERS and not may_have_terminals:
                yield _line(f"{name} has the terminal {path} open (descriptor {number})", "terminal")


def _line(what: str, cause: Cause) -> str:
    return f"{what}: {REMEDIES[cause]}"


def _session(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()[SESSION])
    return None


def _open_files(pid: int) -> Iterator[tuple[str, str]]:
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                yield link.name, str(link.readlink())
