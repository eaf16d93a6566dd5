"""A driver that is not there: the worker's side of `Checkpointer`, over a file that all controllers share.

It answers the lines that the real worker answers. The processes are real ones, which have a file called libcuda.so.1
mapped. What a call does is done and written before it answers, so a controller can be killed on either side of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, cast

from warmspare.control.checkpointer import Checkpointer
from warmspare.control.cuda_abi import PROCESS_STATES
from warmspare.control.worker import Died, Hung, Worker
from warmspare.runtime.cards import Card
from warmspare.runtime.journal import Journal
from warmspare.runtime.unit import Tools

GPUS: Final = ("GPU-00000000-0000-0000-0000-000000000000", "GPU-11111111-1111-1111-1111-111111111111")
TOTAL_MIB: Final = 1000
Flaw = Literal["", "managed", "peers", "killed", "silent", "busy", "restore hangs"]
TREE: Final = """
import mmap, os, sys, time
size, library = int(sys.argv[1]), open(sys.argv[2])
mapped = mmap.mmap(library.fileno(), 0, prot=mmap.PROT_READ)
pids = [os.getpid()]
for _ in range(size - 1):
    pid = os.fork()
    if pid == 0:
        while os.getppid() == pids[0]:
            time.sleep(60)
        os._exit(0)
    pids.append(pid)
print(*pids, flush=True)
sys.stdin.read()
for pid in pids[1:]:
    os.kill(pid, 9)
"""


class Driver:
    """The file, and what a test may do to it."""

    def __init__(self, folder: Path) -> None:
        """Begin with no process."""
        self.file = folder / "driver"
        self.library = folder / "libcuda.so.1"
        self.library.write_bytes(b"no library" * 1000)
        self.file.write_text("{}")

    @contextlib.contextmanager
    def states(self) -> Iterator[dict[str, dict[str, Any]]]:
        """What is known of each process, by pid; written back."""
        with self.file.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            known = json.load(file)
            yield known
            file.seek(0)
            file.truncate()
            json.dump(known, file)

    def add(self, pid: int, mib: int, flaw: Flaw = "", gpu: int = 0) -> None:
        """A process that uses CUDA."""
        with self.states() as known:
            known[str(pid)] = {"state": "running", "vram": {GPUS[gpu]: mib}, "flaw": flaw, "stranded": False}

    def state(self, pid: int) -> str:
        """What the driver would say."""
        with self.states() as known:
            return str(known[str(pid)]["state"])

    def on(self, pid: int) -> dict[str, int]:
        """Where its memory is, or was."""
        with self.states() as known:
            return dict(known[str(pid)]["vram"])

    def set(self, pid: int, **values: object) -> None:
        """Change what is known of a process."""
        with self.states() as known:
            known[str(pid)].update(values)

    def free(self) -> dict[str, int]:
        """Free MiB of each GPU."""
        with self.states() as known:
            return _free(known)

    def cards(self) -> tuple[Card, ...]:
        """What NVML would say."""
        free = self.free()
        with self.states() as known:
            held = {
                gpu: {
                    int(pid): one["vram"][gpu]
                    for pid, one in known.items()
                    if gpu in one["vram"] and one["state"] in ("running", "locked")
                }
                for gpu in GPUS
            }
        return tuple(
            Card(
                uuid=gpu,
                subject=f"gpu{n}",
                index=n,
                pci=f"0000:0{n}:00.0",
                name="H200",
                total_mib=TOTAL_MIB,
                free_mib=free[gpu],
                held=held[gpu],
            )
            for n, gpu in enumerate(GPUS)
        )

    @contextlib.contextmanager
    def tree(self, size: int, mib: int = 100, flaws: tuple[Flaw, ...] = ()) -> Iterator[tuple[int, ...]]:
        """Real processes, a root and its children, that this driver knows; their pids, the root's first."""
        command = [sys.executable, "-I", "-S", "-c", TREE, str(size), str(self.library)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as root:
            assert root.stdout
            pids = tuple(map(int, root.stdout.readline().split()))
            try:
                for place, pid in enumerate(pids):
                    self.add(pid, mib, flaws[place] if place < len(flaws) else "")
                yield pids
            finally:
                for pid in (*pids[1:], pids[0]):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
                        os.kill(pid, signal.SIGKILL)


class Levers(Checkpointer):
    """The real levers, whose worker is this model. `watched` is called before and after everything it does."""

    def __init__(self, driver: Driver, watched: Callable[[str], None] = lambda _point: None) -> None:
        """Nothing is started."""
        super().__init__()
        self._driver, self._watched = driver, watched

    def _begun(self) -> Worker:
        if self._worker is None:
            self._worker = cast("Worker", _Model(self._driver, self._watched))
            self.started_s = 0.0
        return self._worker


@contextlib.contextmanager
def tools_on(
    driver: Driver, folder: Path, say: Callable[[str], None], watched: Callable[[str], None] = lambda _point: None
) -> Iterator[Tools]:
    """What an act works with, on this driver and a journal in this folder."""
    with Journal.opened(folder) as journal, Levers(driver, watched) as levers:
        yield Tools(journal, levers, driver.cards, say, lambda *_: None)


class _Model:
    def __init__(self, driver: Driver, watched: Callable[[str], None]) -> None:
        self._driver, self._watched = driver, watched

    def ask(self, request: bytes, deadline_s: float) -> bytes:
        """Its answer to one line."""
        asked = json.loads(request)
        acts = asked["what"] in ("lock", "checkpoint", "restore", "unlock")
        if acts:
            self._watched(f"before {asked['what']}")
        with self._driver.states() as known:
            result, value = _answer(known, asked)
        if acts:
            self._watched(f"after {asked['what']}")
        if result == "hang":
            raise Hung
        if result == "die":
            raise Died(-signal.SIGSEGV)
        del deadline_s
        told = {"result": result, "took_s": 0.001, "value": value, "call": asked["what"], "name": f"RESULT_{result}"}
        return json.dumps(told).encode()

    def close(self) -> None:
        """There is nothing to end."""


def _free(known: dict[str, dict[str, Any]]) -> dict[str, int]:
    held = [one["vram"] for pid, one in known.items() if one["state"] in ("running", "locked") and _lives(int(pid))]
    return {gpu: TOTAL_MIB - sum(vram.get(gpu, 0) for vram in held) for gpu in GPUS}


def _lives(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def _answer(known: dict[str, dict[str, Any]], asked: dict[str, Any]) -> tuple[int | str, object]:  # noqa: PLR0911 # one answer a question
    what, pid = asked["what"], asked["pid"]
    match what:
        case "calls":
            return 0, []
        case "initialise" | "release":
            return 0, None
        case "claim":
            return (2 if _free(known)[asked["gpu"]] * 2**20 < asked["bytes"] else 0), None
    if str(pid) not in known or not _lives(pid):
        return 1, None
    one = known[str(pid)]
    if what == "restore thread":
        return 0, pid
    if what == "state":
        return ("hang" if one["flaw"] == "silent" else 0), PROCESS_STATES.index(one["state"])
    return _acted(known, one, asked), None


def _acted(known: dict[str, dict[str, Any]], one: dict[str, Any], asked: dict[str, Any]) -> int | str:  # noqa: PLR0911 # one answer a flaw
    takes = {"lock": "running", "checkpoint": "locked", "restore": "checkpointed", "unlock": "locked"}
    gives = {"lock": "locked", "checkpoint": "checkpointed", "restore": "locked", "unlock": "running"}
    match asked["what"], one["flaw"]:
        case _ if one["state"] != takes[asked["what"]]:
            return 401
        case "lock", "busy":
            return 600
        case "checkpoint", "managed":
            return 801
        case "checkpoint", "killed":
            os.kill(asked["pid"], signal.SIGKILL)
            return 999
        case "restore", "peers":
            one["state"] = "failed"
            return 1
        case "restore", "restore hangs":
            return "hang"
        case "restore", _:
            vram = {asked["gpus"].get(gpu, gpu): mib for gpu, mib in one["vram"].items()}
            if one["stranded"]:
                return 304
            if any(mib > _free(known)[gpu] for gpu, mib in vram.items()):
                one["stranded"] = True
                return 2
            one["vram"] = vram
    one["state"] = gives[asked["what"]]
    return 0
