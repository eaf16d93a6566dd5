"""Processes of checkpoint_scenes.py as a test has them: one to be suspended, and one that asks the driver for it."""

from __future__ import annotations

import contextlib
import json
import select
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self

import checkpoint_scenes as scenes

from scenes import began, played

PATIENCE_S: Final = 20.0
A_WHILE_S: Final = 0.3
"""How long something is watched that must not happen."""
LOOK_S: Final = 0.005
WRONG_STATE, NO_SYSTEM, NO_CUDA, LATE, NOT_ALLOWED, NO_SUPPORT = 401, 304, 3, 600, 800, 801
RUNNING, LOCKED, CHECKPOINTED, FAILED = range(4)
STEPS: Final = ("Lock", "Checkpoint", "Restore", "Unlock")
LEAVES: Final = {"Lock": LOCKED, "Checkpoint": CHECKPOINTED, "Restore": LOCKED, "Unlock": RUNNING}
BEFORE: Final = {step: STEPS[:n] for n, step in enumerate(STEPS)}
"""The steps that each comes after."""
RIGHT: Final = [0, 0, 0]
"""What a target says whose every word is right."""


class Player:
    """A scene that goes on, and is killed in the end."""

    def __init__(self, env: dict[str, str], scene: Callable[..., None], *arguments: str) -> None:
        """Begin it, and wait until it is ready."""
        self.process = began(env, scene, *arguments)
        self.pid = self.process.pid
        assert self.hear() == "ready"

    def __enter__(self) -> Self:
        """It is ready."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it."""
        self.process.kill()
        self.process.communicate()

    def tell(self, line: str) -> None:
        """Let it begin with something."""
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def hear(self) -> Any:  # noqa: ANN401
        """What it says of that."""
        assert self.answers(PATIENCE_S), "no answer"
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, f"it ended: {self.process.wait(PATIENCE_S)}"
        return json.loads(line)

    def answers(self, seconds: float = A_WHILE_S) -> bool:
        """Whether it says something in time, or ends."""
        assert self.process.stdout
        return bool(select.select([self.process.stdout], [], [], seconds)[0])

    def __call__(self, line: str) -> Any:  # noqa: ANN401
        """What it says of a line."""
        self.tell(line)
        return self.hear()


class Asker(Player):
    """Asks the driver about another process."""

    def __init__(self, env: dict[str, str], of: int, *, initialised: bool = True) -> None:
        """Begin one that asks about the process `of`."""
        super().__init__(env, scenes.asker, "initialised" if initialised else "bare")
        self.of = of

    def begin(self, action: str, more: object = None) -> None:
        """Ask, and do not wait for the answer."""
        self.tell(json.dumps([action, self.of, more]))

    def put(self, action: str, more: object = None) -> None:
        """Ask, and wait until the question is put to the process: it does not answer."""
        self.begin(action, more)
        deadline = time.monotonic() + PATIENCE_S
        while not _is_asked(self.of):
            assert time.monotonic() < deadline
            time.sleep(LOOK_S)

    def do(self, action: str, more: object = None) -> Any:  # noqa: ANN401
        """The result of a call."""
        self.begin(action, more)
        return self.hear()

    def all(self, *actions: str) -> list[Any]:
        """The results of several."""
        return [self.do(action) for action in actions]

    @property
    def state(self) -> int:
        """What the driver tells of it."""
        code, state = self.do("GetState")
        assert code == 0
        return int(state)


def _is_asked(pid: int) -> bool:
    """Whether a question waits on the page of a process: it was asked more often than it answered."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    _, _, offset, _, _, path = next(line.split(maxsplit=5) for line in lines if line.endswith("/processes"))
    with Path(path).open("rb") as file:
        file.seek(int(offset, 16))
        asked, answered = struct.unpack("=II", file.read(8))
    return bool(asked != answered)


@contextlib.contextmanager
def one(
    env: dict[str, str], scene: Callable[..., None] = scenes.target, *arguments: str
) -> Iterator[tuple[Player, Asker]]:
    """A process to be suspended, and one that asks."""
    with Player(env, scene, *arguments) as target, Asker(env, target.pid) as asker:
        yield target, asker


def used(env: dict[str, str], gpu: int = 0) -> tuple[int, list[list[int]]]:
    """Bytes in use of a GPU and the processes that NVML lists, except an asker's."""
    bytes_used, listed = played(env, scenes.users)[gpu]
    return bytes_used, listed
