"""The live machine, asked through the broker, with a transcript of everything it said."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

import warmspare
from warmspare.control import process
from warmspare.control.process import KILL_GRACE_S
from warmspare.host.broker import ANSWERS, Closed, Question, receive, send
from warmspare.host.nvml import OF_PAIRS
from warmspare.host.port import DEADLINE_S, Host
from warmspare.model.facts import Cause
from warmspare.model.transcript import Answer, Call, Failed, Verb

_START: Final = (
    "import sys; sys.path.append(sys.argv[3]); from warmspare.host import broker;"
    " broker.serve(int(sys.argv[1]), int(sys.argv[2]))"
)


def _about(verb: Verb, args: tuple[str, ...]) -> tuple[str, ...]:
    """What a question could hang on, the widest first: a shared library; NVML, its GPUs, a pair of them."""
    if verb == "symbol":
        return (f"library {args[0]}",)
    if verb == "experiment" and args[0] in ("cuda_library", "cuda_count"):  # both load it, one starts it too
        return ("libcuda",) if args[0] == "cuda_library" else ("libcuda", "cuInit")
    if verb != "nvml":
        return ()
    gpus = args[1 : 3 if args[0] in OF_PAIRS else 2] if args[0].startswith("nvmlDeviceGet") else ()
    pair = (f"GPUs {' and '.join(gpus)}",) if len(gpus) > 1 else ()
    return ("NVML", *(f"GPU {gpu}" for gpu in gpus), *pair)


class LiveHost(Host):
    """Asks this machine; equal questions are asked once, so that one snapshot holds one answer.

    Use it as a context manager: leaving it ends the broker and all it started.
    """

    def __init__(
        self, deadline_s: dict[Verb, float] | None = None, ahead: Iterable[tuple[Verb, tuple[str, ...]]] = ()
    ) -> None:
        """Start the broker; `deadline_s` overrides the deadline of single verbs.

        `ahead` are slow questions that are begun at once, and go on while others are asked.
        """
        super().__init__()
        self.transcript: list[Call] = []
        self._deadline_s = {**DEADLINE_S, **(deadline_s or {})}
        self._places: dict[tuple[Verb, tuple[str, ...]], int] = {}
        self._hung: dict[str, Failed] = {}
        asked, self._requests = os.pipe()
        self._replies, answered = os.pipe()
        root = str(Path(warmspare.__file__).parent.parent)
        try:
            with process.undisturbed():
                self._broker = subprocess.Popen(
                    [sys.executable, "-P", "-c", _START, str(asked), str(answered), root],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,  # what a foreign library prints must not stand in a report
                    stderr=subprocess.DEVNULL,
                    pass_fds=(asked, answered),
                    start_new_session=True,
                )
                os.close(asked)
                os.close(answered)
        except BaseException:
            if hasattr(self, "_broker"):
                self.close()
            raise
        for verb, args in ahead:
            with contextlib.suppress(BrokenPipeError):  # a broker that died is noticed by the first question
                send(self._requests, Question(verb, args, self._deadline_s[verb], ahead=True))

    def __enter__(self) -> Self:
        """Use the host."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the broker with everything it started."""
        self.close()

    def close(self) -> None:
        """End the broker; it kills what it started first, and is killed itself if it does not end."""
        for descriptor in (self._requests, self._replies):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        try:
            self._broker.wait(KILL_GRACE_S + 1)
        except subprocess.TimeoutExpired:
            self._broker.kill()

    def ask(self, verb: Verb, args: tuple[str, ...]) -> tuple[int, Answer]:
        """Put one question to the machine, once."""
        known = self._places.get((verb, args))
        if known is not None:
            return known, self.transcript[known].answer
        started = time.monotonic()
        answer = self._unless_hung(verb, args)
        took_s = round(time.monotonic() - started, 4)
        self.transcript.append(Call(verb=verb, args=args, answer=answer, took_s=took_s))
        self._places[verb, args] = len(self.transcript) - 1
        return len(self.transcript) - 1, answer

    def _unless_hung(self, verb: Verb, args: tuple[str, ...]) -> Answer:
        """Ask, unless the same thing has hung before: a GPU, or NVML as a whole, would cost a deadline a question."""
        about = _about(verb, args)
        before = next((self._hung[part] for part in about if part in self._hung), None)
        if before is not None:
            return Failed(cause=Cause.TIMEOUT, detail=f"not asked: {before.detail}")
        answer = self._put(Question(verb, args, self._deadline_s[verb]))
        if about and isinstance(answer, Failed) and answer.cause is Cause.TIMEOUT:
            self._hung[about[-1]] = msgspec.structs.replace(answer, detail=f"{' '.join(args)} gave {answer.detail}")
        return answer

    def _put(self, question: Question) -> Answer:
        try:
            send(self._requests, question)
            data = receive(self._replies, time.monotonic() + question.deadline_s + KILL_GRACE_S + 2)
        except (Closed, BrokenPipeError):
            return Failed(cause=Cause.CRASHED, detail="the broker that asks the machine has died")
        if data is None:
            self._broker.kill()
            return Failed(cause=Cause.TIMEOUT, detail="the broker that asks the machine did not answer")
        return ANSWERS.decode(data)
