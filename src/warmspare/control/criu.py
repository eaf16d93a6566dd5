"""CRIU as a lever: dump a process tree to a folder, restore it, and say why it refused."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Final

import msgspec

from warmspare.control import process
from warmspare.control.process import find_program
from warmspare.model.criu_log import Cause, explain

LOG_LIMIT: Final = 4 * 2**20
CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_CHECKPOINT_RESTORE = 19, 21, 40
"""Source: linux/capability.h."""
PIDFILE: Final = "restored.pid"
ASKED_S: Final = 20.0
"""How long CRIU may take to say its version."""
CHECKED_S: Final = 60.0
NETWORK_LOCK: Final = ("--network-lock", "nftables")
"""Its other way runs a program `iptables`, which many machines no longer have. Source: criu/netfilter.c."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How one run of CRIU ended: its status (negative: a signal), the cause by its log, and the line for it."""

    status: int
    cause: Cause | None
    line: str

    @property
    def code(self) -> str:
        """The cause, or the bare exit status."""
        return self.cause or (f"signal {-self.status}" if self.status < 0 else f"status {self.status}")


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What CRIU is to take on that it refuses by itself; a restore needs what its dump was given.

    Each has a price, so none is set unasked: a connection's other end may be gone by the restore, a lock may have
    become another's, a link is left in the user's folder. Source: criu(8).
    """

    tcp_established: bool = False
    tcp_close: bool = False
    shell_job: bool = False
    ext_unix_sk: bool = False
    file_locks: bool = False
    link_remap: bool = False

    @property
    def arguments(self) -> tuple[str, ...]:
        """The same in CRIU's words."""
        chosen = (name for name, is_set in msgspec.structs.asdict(self).items() if is_set)
        lock = NETWORK_LOCK if self.tcp_established else ()
        return (*(f"--{name.replace('_', '-')}" for name in chosen), *lock)


class Running:
    """A CRIU at work, in a session of its own: a Ctrl-C must not end it while it is inside other processes.

    Nor is one that dumps ever killed: its code may run in the processes, and they would go on in it.
    """

    def __init__(self, started: subprocess.Popen[bytes], work: Path, action: str) -> None:
        """Know where it writes its log."""
        self._process, self._work, self._action = started, work, action

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def has_ended(self) -> bool:
        """Whether it has."""
        return self._process.poll() is not None

    def to_the_end(self) -> Ended:
        """How it ended, whatever time that takes."""
        return ended(self._process.wait(), self._work, self._action)

    def wait(self, deadline_s: float) -> Ended | None:
        """How it ended; None: it is at work after `deadline_s` still."""
        try:
            status = self._process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            return None
        return ended(status, self._work, self._action)


class Criu:
    """One CRIU program, given the environment as it is but for its own configuration."""

    def __init__(self, program: str) -> None:
        """Use `program`, an absolute path."""
        self.program = program

    @classmethod
    def found(cls) -> Criu | None:
        """The CRIU of WARMSPARE_CRIU, PATH or the usual folders."""
        program = find_program("criu", os.environ)
        return cls(program) if program else None

    def version(self) -> str | None:
        """What it calls itself, such as `4.1.1`; None if it does not say."""
        said = self._asked(ASKED_S, "--version")
        found = re.match(r"Version: (\d{1,4}(?:\.\d{1,4}){1,3})\s", said.stdout) if said else None
        return found[1] if found else None

    def check(self) -> Ended:
        """Whether it can work on this kernel with what we may do, as far as it can tell beforehand."""
        said = self._asked(CHECKED_S, "check", *_unprivileged())
        if said is None:
            return Ended(status=1, cause=None, line=f"criu check did not answer within {CHECKED_S:g} s")
        cause, line = explain(said.stdout + said.stderr) if said.returncode else (None, "")
        return Ended(status=said.returncode, cause=cause, line=line)

    def dump(self, pid: int, images: Path) -> Ended:
        """Dump the tree under `pid` into `images` and end it; the caller checks that it is gone."""
        return self._begin(images, images, "dump", "--tree", str(pid)).to_the_end()

    def restore(self, images: Path) -> Ended:
        """Restore the tree from `images`, detached; it becomes the child of the nearest subreaper."""
        return self._begin(images, images, "restore", "--restore-detached", "--pidfile", PIDFILE).to_the_end()

    def dumping(self, pid: int, images: Path, options: Options) -> Running:
        """Begin to dump the tree under `pid` into `images`, with the log; it is left stopped."""
        return self._begin(images, images, "dump", "--tree", str(pid), "--leave-stopped", *options.arguments)

    def to_restore(self, images: str, work: Path, options: Options) -> list[str]:
        """The command that restores the tree from `images`, stopped; log and PIDFILE go to `work`."""
        args = ("--restore-detached", "--leave-stopped", "--pidfile", PIDFILE)
        return self._command(images, work, "restore", *args, *options.arguments)

    def _begin(self, images: Path, work: Path, action: str, *args: str) -> Running:
        # Its streams go to files: a restored process that held our pipe would keep it open.
        with process.undisturbed(), (work / f"{action}.out").open("wb") as out:
            started = subprocess.Popen(
                self._command(str(images), work, action, *args),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=work,
                env=environment(),
                start_new_session=True,
            )
        return Running(started, work, action)

    def _command(self, images: str, work: Path, action: str, *args: str) -> list[str]:
        command = [self.program, action, *args, "--images-dir", images, "--work-dir", str(work)]
        return [*command, "--log-file", f"{action}.log", "-v4", "--no-default-config", *_unprivileged()]

    def _asked(self, deadline_s: float, *args: str) -> subprocess.CompletedProcess[str] | None:
        try:
            return subprocess.run(
                [self.program, *args, "--no-default-config"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                env=environment(),
                timeout=deadline_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None


def missing_capabilities() -> tuple[str, ...]:
    """What we lack of what CRIU needs, in the kernel's names; empty where it can work.

    Source: criu(8), NON-ROOT; capabilities(7).
    """
    may = _effective()
    images = not any(may >> bit & 1 for bit in (CAP_SYS_ADMIN, CAP_CHECKPOINT_RESTORE))
    lacking = ["CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN"] if images else []
    return (*lacking, *(["CAP_SYS_PTRACE"] if not may >> CAP_SYS_PTRACE & 1 else []))


def ended(status: int, work: Path, action: str) -> Ended:
    """How a run ended whose log lies in `work`."""
    if status == 0:
        return Ended(status=0, cause=None, line="")
    cause, line = explain(_tail(work / f"{action}.log") + _tail(work / f"{action}.out"))
    if cause is None and os.statvfs(work).f_bfree == 0:  # the log itself was cut short
        cause = "disk_full"
    return Ended(status=status, cause=cause, line=line)


def log_of(work: Path, action: str) -> str:
    """What a run wrote into its log in `work`, of a long one the end; empty if there is none."""
    return _tail(work / f"{action}.log")


def environment() -> dict[str, str]:
    """Ours, but for the user's configuration of CRIU, which must not steer us: `leave-running`, say, or a script."""
    return {name: value for name, value in os.environ.items() if name != "CRIU_CONFIG_FILE"}


def _unprivileged() -> tuple[str, ...]:
    """CRIU must be told to do without CAP_SYS_ADMIN: a container's root has none either."""
    return () if _effective() >> CAP_SYS_ADMIN & 1 else ("--unprivileged",)


def _effective() -> int:
    """Our effective capabilities, as a mask. Source: proc_pid_status(5); linux/capability.h."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return int(effective[1], 16) if effective else 0


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_LIMIT))
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
