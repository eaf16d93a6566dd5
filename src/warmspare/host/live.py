"""The live machine, asked through the broker, with a transcript of everything it said."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import warmspare
from warmspare.control import process
from warmspare.control.process import KILL_GRACE_S
from warmspare.host.broker import ANSWERS, Closed, Question, receive, send
from warmspare.host.port import DEADLINE_S, Host
from warmspare.model.facts import Cause
from warmspare.model.transcript import Answer, Call, Failed, Verb

_START: Final = (
    "import sys; sys.path.append(sys.argv[3]); from warmspare.host import broker;"
    " broker.serve(int(sys.argv[1]), int(sys.argv[2]))"
)


class LiveHost(Host):
    """Asks this machine; equal questions are asked once, so that one snapshot holds one answer.

    Use it as a context manager: leaving it ends the broker and all it started.
    """

    def __init__(self, deadline_s: dict[Verb, float] | None = None) -> None:
        """Start the broker; `deadline_s` overrides the deadline of single verbs."""
        super().__init__()
        self.transcript: list[Call] = []
        self._deadline_s = {**DEADLINE_S, **(deadline_s or {})}
        self._places: dict[tuple[Verb, tuple[str, ...]], int] = {}
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
        answer = self._put(Question(verb, args, self._deadline_s[verb]))
        took_s = round(time.monotonic() - started, 4)
        self.transcript.append(Call(verb=verb, args=args, answer=answer, took_s=took_s))
        self._places[verb, args] = len(self.transcript) - 1
        return len(self.transcript) - 1, answer

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
