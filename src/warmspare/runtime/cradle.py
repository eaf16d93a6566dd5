"""The nursery as its caller sees it: CRIU restores in it, and what it restored is let go or ended."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, Self

import msgspec

from warmspare.control import process
from warmspare.control.criu import PIDFILE, Criu, Ended, Options, ended, environment
from warmspare.control.target import Target, tree
from warmspare.runtime import nursery
from warmspare.runtime.outcomes import NotActed

PLACEHOLDER: Final = "{images}"
READ: Final = 65_536


class NoNursery(Exception):
    """It could not do what it was started for; the message is one line. Nothing of the image runs."""


class _Told(msgspec.Struct, frozen=True):
    init: int | None = None
    status: int | None = None


class Cradle:
    """One restore. A context manager: what was not let go when it is left is ended."""

    def __init__(self, images: int, criu: Criu, options: Options, *, new_pidns: bool) -> None:
        """Begin to restore from the open folder `images`."""
        self._new, self._rest, self._init = new_pidns, b"", 0
        self._work = Path(tempfile.mkdtemp(prefix="warmspare-restore-"))
        in_our_session = options.shell_job  # what it restores is to have our terminal
        where = "new" if new_pidns else "here"
        with contextlib.ExitStack() as stack, process.undisturbed():
            stack.callback(shutil.rmtree, self._work, ignore_errors=True)
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", nursery.__file__, str(images), where, str(self._work)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(),
                pass_fds=(images,),
                start_new_session=not in_our_session,
            )
            stack.pop_all()
        plan = {
            "command": criu.to_restore(PLACEHOLDER, self._work, options),
            "out": str(self._work / "restore.out"),
            "terminal": in_our_session,
        }
        with contextlib.suppress(BrokenPipeError):  # what it died of is told by `wait`
            os.write(self._input, msgspec.json.encode(plan) + b"\n")

    def __enter__(self) -> Self:
        """CRIU is at work."""
        return self

    def __exit__(self, *_: object) -> None:
        """Have it end what it still holds, wait until it has, and clear away."""
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(process.KILL_GRACE_S)
        if self._init and not self._is_let_go:  # it is no child of ours
            with process.holding(self._init) as descriptor:
                process.ready([descriptor] if descriptor is not None else [], process.KILL_GRACE_S)
        shutil.rmtree(self._work, ignore_errors=True)
        if self._process.poll() is None and not self._is_let_go:
            pid = self._process.pid
            message = f"what was restored does not end, nor does process {pid}, which holds it: kill -9 {pid}"
            raise NotActed(message, "stranded")

    _is_let_go = False

    def wait(self, deadline_s: float) -> Ended:
        """How CRIU ended.

        Raises:
            NoNursery: it did not end in time, or died; leaving the cradle ends what there is.
        """
        while (told := self._told(deadline_s)).status is None:
            self._init = told.init or 0
        return ended(told.status, self._work, "restore")

    def restored(self) -> tuple[Target, ...]:
        """The tree that was restored, as seen from outside; the root first."""
        text = (self._work / PIDFILE).read_text(encoding="ascii")
        root = int(text)
        if not self._new:
            return tree(root)
        found = next((one.pid for one in tree(self._init) if pid_inside(one.pid) == root), None)
        return tree(found) if found else ()

    def let_go(self) -> None:
        """It holds them no longer. In a new namespace it stays as their first process.

        Raises:
            NoNursery: it has died, and with it all that it held.
        """
        try:
            os.write(self._input, nursery.GO)
        except BrokenPipeError:
            raise NoNursery(self._died()) from None
        self._is_let_go = True

    @property
    def _input(self) -> int:
        return self._process.stdin.fileno() if self._process.stdin else -1

    def _told(self, deadline_s: float) -> _Told:
        source = self._process.stdout.fileno() if self._process.stdout else -1
        while b"\n" not in self._rest:
            if not process.ready([source], deadline_s):
                message = f"CRIU did not end within {deadline_s:g} s, and was ended"
                raise NoNursery(message)
            data = os.read(source, READ)
            if not data:
                raise NoNursery(self._died())
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return msgspec.json.decode(line, type=_Told)

    def _died(self) -> str:
        lines = self._process.stderr.read().decode("utf-8", "replace").splitlines() if self._process.stderr else []
        return f"the process that holds what is restored died: {lines[-1] if lines else 'it said nothing'}"


def pid_inside(pid: int) -> int | None:
    """What a process is called in its own, innermost pid namespace. Source: proc_pid_status(5), NSpid."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^NSpid:\s(.*)$", status, re.MULTILINE):
            return int(found[1].split()[-1])
    return None
