"""A process with GPU memory, dumped and restored by CRIU with its own CUDA plugin, which finds our cuda-checkpoint."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from conftest import PLUGIN
from leftovers import until
from warmspare.control.process import SET_CHILD_SUBREAPER
from warmspare.runtime import shim

SCENE: Final = Path(__file__).with_name("shim_scenes.py")
TRACED: Final = '#!/bin/sh\nprintf "%s\\n" "$*" >>"{trace}"\nexec "{program}" "$@"\n'
SHOWN: Final = "mount -t tmpfs none /proc/driver && mkdir -p /proc/driver/nvidia/gpus && echo ready && exec cat"
"""The folder by which the plugin enables itself, shown to those in one mount namespace.

Source: is_cuda_device_available, plugins/cuda/cuda_plugin.c of CRIU 4.1.1."""
CRIU_S: Final = 60.0


class Cycle:
    """One process and its images; `enter` is the command that goes before each that is to see a GPU."""

    def __init__(self, folder: Path, env: Mapping[str, str], enter: tuple[str, ...] = ()) -> None:
        """Lay everything out under `folder`."""
        self.gently = False
        self.images, self._diary, self._trace = folder / "images", folder / "diary", folder / "trace"
        self.program = folder / "shim" / "cuda-checkpoint"
        shim.install(self.program.parent)
        traced = folder / "bin" / "cuda-checkpoint"
        for made in (self.images, traced.parent):
            made.mkdir()
        traced.write_text(TRACED.format(trace=self._trace, program=self.program))
        traced.chmod(0o755)
        self.env = {**os.environ, **env, "PATH": f"{traced.parent}:{os.environ['PATH']}"}
        self._enter, self._out = enter, folder / "out"
        self._begun: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Start the process, and wait for its first turn."""
        # Its streams are opened where it runs: CRIU knows no file of another mount namespace.
        opened = ("sh", "-c", 'exec "$@" </dev/null >"$0" 2>&1', str(self._out))
        command = [*self._enter, *opened, sys.executable, str(SCENE), str(self._diary)]
        self._begun = subprocess.Popen(command, env=self.env, start_new_session=True)
        assert until(lambda: self.turns() == ["turn 0 right"]), self._out.read_text()

    @property
    def pid(self) -> int:
        """Its number, before and after."""
        assert self._begun
        return self._begun.pid

    def turns(self) -> list[str]:
        """What the process has found in its GPU memory so far."""
        return self._diary.read_text().splitlines() if self._diary.exists() else []

    def turn(self) -> str:
        """Have the process look at its GPU memory, and what it found."""
        before = self.turns()
        os.kill(self.pid, signal.SIGUSR1)
        assert until(lambda: len(self.turns()) > len(before))
        return self.turns()[-1]

    def criu(self, action: str, *arguments: str) -> tuple[int, str]:
        """Run CRIU with its plugin: the exit status and the log."""
        program = str(PLUGIN / "program" / "criu")
        options = ("-L", str(PLUGIN), "-D", str(self.images), "-o", f"{action}.log", "-v4", "--no-default-config")
        command = [*self._enter, program, action, *options, *arguments]
        with (self.images / f"{action}.out").open("wb") as out:  # a restored process would keep a pipe open
            ran = subprocess.run(command, env=self.env, stdin=-3, stdout=out, stderr=out, timeout=CRIU_S, check=False)
        return ran.returncode, (self.images / f"{action}.log").read_text(errors="replace")

    def dump(self, *arguments: str) -> tuple[int, str]:
        """Dump the process; it ends with that, unless it is told otherwise or it fails."""
        return self.criu("dump", "--tree", str(self.pid), *arguments)

    def restore(self) -> tuple[int, str]:
        """Restore the process, once what is left of it is cleared away."""
        assert self._begun
        self._begun.wait(CRIU_S)
        return self.criu("restore", "--restore-detached")

    def called(self) -> list[str]:
        """What CRIU's plugin has called since this was asked last, with names for the numbers."""
        text = self._trace.read_text() if self._trace.exists() else ""
        self._trace.unlink(missing_ok=True)
        return [
            " ".join("PID" if word == str(self.pid) else word for word in line.split()) for line in text.splitlines()
        ]

    def ask(self, *words: str) -> str:
        """What the program says of the process, without being traced."""
        command = [str(self.program), *words, "--pid", str(self.pid)]
        ran = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=CRIU_S, check=False)
        assert ran.returncode == 0, ran.stderr
        return str(ran.stdout).strip()

    def end(self) -> None:
        """End the process, `gently` one that a real driver has restored: checkpointed first, so that it holds no GPU.

        Source: NVIDIA/cuda-checkpoint#53: else some drivers hang the host.
        """
        if self._begun is None:
            return
        if is_first := self._begun.poll() is None:
            self._end()
            self._begun.wait(CRIU_S)
        with contextlib.suppress(ChildProcessError):  # there is none that was restored
            if not is_first and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                self._end()
            os.waitpid(self.pid, 0)

    def _end(self) -> None:
        if self.gently:
            self.ask("--toggle")
        os.kill(self.pid, signal.SIGKILL)


@contextlib.contextmanager
def gpu_is_shown() -> Iterator[tuple[str, ...]]:
    """A mount namespace in which the plugin enables itself: how to enter it."""
    command = ["unshare", "--mount", "sh", "-c", SHOWN]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "ready\n"
        yield ("nsenter", f"--mount=/proc/{holder.pid}/ns/mnt")


@contextlib.contextmanager
def orphans_are_ours() -> Iterator[None]:
    """A process that CRIU has restored becomes a child of this one."""
    libc = ctypes.CDLL(None)
    assert libc.prctl(SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0) == 0
    try:
        yield
    finally:
        libc.prctl(SET_CHILD_SUBREAPER, ctypes.c_ulong(0), 0, 0, 0)
