"""The driver's levers on a CUDA process: lock, checkpoint, restore, unlock; its state asked again after each.

Every call is made in a worker that is killed when it does not answer in time; the next call gets a new one. What a
call says is not taken for what it did: the state after it must be the one that it promises.

Source: CUDA driver API, group CUDA_CHECKPOINT (from driver 570 on).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, Self, cast

import msgspec

from warmspare.control import cuda_abi as abi
from warmspare.control.checkpoint_worker import CALLS, START
from warmspare.control.lever import LeverRefused
from warmspare.control.worker import Died, Hung, Worker

State = Literal["running", "locked", "checkpointed", "failed", "checkpointing", "restoring"]
Action = Literal["lock", "checkpoint", "restore", "unlock"]
How = Literal["refused", "hung", "died", "wrong"]
PROMISED: Final[Mapping[Action, State]] = MappingProxyType({
    "lock": "locked", "checkpoint": "checkpointed", "restore": "locked", "unlock": "running",
})  # fmt: skip
"""The state that each action must leave."""
LOOK_S: Final = 5.0
"""How long a question about a process may take; one that is stopped never answers."""
COPY_S: Final = 600.0
"""How long a checkpoint or a restore may take: 600 GiB at the slowest pace that was ever measured."""
START_S: Final = 60.0
"""How long loading the driver and cuInit may take."""
LOCK_S: Final = 10.0
"""How long a lock waits for the work of the process to end."""
BEYOND_S: Final = 5.0
"""What a call may take beyond the time-out that it was given itself."""
NEW_STATE: Final = "the driver tells a state that is not known here"
NO_PROCESS: Final = frozenset({abi.INVALID_VALUE, abi.NOT_INITIALIZED})
"""How the driver says that a process does not use CUDA. Source: cuda-checkpoint; CRIU's CUDA plugin."""


class Asked(NamedTuple):
    """A call, and the process that it is about."""

    action: str
    pid: int


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A call that did what it promised: `state` was asked again after it."""

    action: Action
    pid: int
    took_s: float
    state: State


class CheckpointFailed(LeverRefused):
    """A call that did not: the driver refused it, or never answered, or died of it, or only said that it was done.

    `result` and `name` are the raw CUresult, None and "" where there is none. `state` was asked after it; None: it
    could not be told. `action` is also "state" or another question.
    """

    def __init__(self, asked: Asked, how: How, code: str, detail: str, result: int | None = None) -> None:
        """Carry which call about which process, and how it failed."""
        super().__init__(code, detail)
        (self.action, self.pid), self.how, self.result = asked, how, result
        self.state: State | None = None


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    result: int | None
    took_s: float
    value: Any = None
    call: str = ""
    name: str = ""


class Checkpointer:
    """All of the calls, in one worker. A context manager; nothing is started before the first call."""

    def __init__(self) -> None:
        """`started_s` and `initialised_s` say what the last worker's start and its cuInit took, in seconds."""
        self.started_s: float | None = None
        self.initialised_s: float | None = None
        self._worker: Worker | None = None

    def __enter__(self) -> Self:
        """Ready; the worker comes with the first call."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the worker."""
        self.close()

    def lacking(self) -> tuple[str, ...]:
        """Which of the calls this driver's library has not.

        Raises:
            CheckpointFailed: there is no library, or loading it does not end.
        """
        return tuple(self._asked(0, "calls", START_S).value)

    def initialise(self) -> None:
        """Call cuInit in the worker, which a restore needs; it does so itself otherwise.

        Raises:
            CheckpointFailed: cuInit refuses, hangs or dies.
        """
        if self.initialised_s is None:
            self.initialised_s = self._asked(0, "initialise", START_S).took_s

    def state(self, pid: int, deadline_s: float = LOOK_S) -> State:
        """The state of a CUDA process.

        Raises:
            CheckpointFailed: it is none, or does not answer: a stopped one never does.
        """
        number = self._asked(pid, "state", deadline_s).value
        if number >= len(abi.PROCESS_STATES):
            raise CheckpointFailed(Asked("state", pid), "wrong", f"state {number}", NEW_STATE)
        return abi.PROCESS_STATES[number]

    def state_or_none(self, pid: int) -> State | None:
        """The same; None if it cannot be told."""
        try:
            return self.state(pid)
        except CheckpointFailed:
            return None

    def restore_thread(self, pid: int, deadline_s: float = LOOK_S) -> int | None:
        """The thread of a CUDA process that restores it; None if it is no CUDA process.

        Raises:
            CheckpointFailed: it does not answer, or is not there.
        """
        try:
            return cast("int", self._asked(pid, "restore thread", deadline_s).value)
        except CheckpointFailed as failed:
            if failed.how == "refused" and failed.result in NO_PROCESS:
                return None
            raise

    def lock(self, pid: int, timeout_s: float = LOCK_S) -> Done:
        """Let it start no more work, once what is under way has ended.

        Raises:
            CheckpointFailed: with 600 NOT_READY its work did not end in time, and it runs on.
        """
        return self._did("lock", pid, timeout_s + BEYOND_S, timeout_ms=max(1, int(timeout_s * 1000)))

    def checkpoint(self, pid: int, deadline_s: float = COPY_S) -> Done:
        """Move the GPU memory of a locked process into its own host memory, and let go of the GPU.

        Raises:
            CheckpointFailed: with 801 NOT_SUPPORTED it holds what cannot be moved, and stays locked.
        """
        return self._did("checkpoint", pid, deadline_s)

    def restore(self, pid: int, deadline_s: float = COPY_S, gpus: Mapping[str, str] = MappingProxyType({})) -> Done:
        """Give it its GPU memory back, and leave it locked.

        `gpus` says by UUID which GPU to use in place of which, for every GPU that the driver shows; empty: each its
        own.

        Raises:
            CheckpointFailed: too little memory is free, say; after that no restore of it may ever succeed.
        """
        self.initialise()
        return self._did("restore", pid, deadline_s, gpus=dict(gpus))

    def unlock(self, pid: int, deadline_s: float = 30.0) -> Done:
        """Let it run on.

        Raises:
            CheckpointFailed: it is not locked.
        """
        return self._did("unlock", pid, deadline_s)

    def claim(self, gpu: str, size: int, free: int) -> None:
        """Hold `size` bytes of a GPU, by its UUID, of which `free` are free; `release` lets go of all that is held.

        Raises:
            CheckpointFailed: it has no longer so much.
        """
        self.initialise()
        self._asked(0, "claim", START_S, gpu=gpu, bytes=size, free_bytes=free)

    def release(self) -> None:
        """Let go of what was claimed.

        Raises:
            CheckpointFailed: the driver does not let go.
        """
        self._asked(0, "release", START_S)

    def close(self) -> None:
        """End the worker, and what it holds with it."""
        worker, self._worker = self._worker, None
        self.initialised_s = None
        if worker is not None:
            worker.close()

    def _did(self, action: Action, pid: int, deadline_s: float, **more: object) -> Done:
        try:
            took_s = self._asked(pid, action, deadline_s, **more).took_s
            state = self.state(pid)
        except CheckpointFailed as failed:
            failed.state = failed.state or self.state_or_none(pid)
            raise
        if state != PROMISED[action]:
            said = f"the driver said that it was done, and the process is {state}"
            failure = CheckpointFailed(Asked(action, pid), "wrong", state, said, abi.SUCCESS)
            failure.state = state
            raise failure
        return Done(action=action, pid=pid, took_s=took_s, state=state)

    def _asked(self, pid: int, what: str, deadline_s: float, **more: object) -> _Answer:
        asked, call = Asked(what, pid), CALLS.get(what, what)
        request = msgspec.json.encode({"what": what, "pid": pid, **more})
        try:
            answer = msgspec.json.decode(self._begun().ask(request, deadline_s), type=_Answer)
        except Hung:
            self.close()
            raise CheckpointFailed(asked, "hung", "hung", f"{call} did not answer within {deadline_s:g} s") from None
        except Died as died:
            self.close()
            raise CheckpointFailed(asked, "died", died.code, f"{call} ended the process that called it") from None
        if answer.result != abi.SUCCESS:
            code = answer.name if answer.result is None else f"{answer.result} {answer.name}"
            raise CheckpointFailed(asked, "refused", code, answer.call, answer.result)
        return answer

    def _begun(self) -> Worker:
        if self._worker is None:
            begun = time.monotonic()
            self._worker = Worker(START)
            self._asked(0, "calls", START_S)
            self.started_s = time.monotonic() - begun
        return self._worker
