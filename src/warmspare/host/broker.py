"""The broker: a child process that asks the machine on our behalf, so that no answer can hang or crash us.

It forks a worker for the questions, kills it with everything it started when a deadline passes, and
forks another. An experiment or a foreign library gets a worker of its own. When the tool's end of the
pipe closes, for whatever reason, the broker ends all it started and itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import time
from typing import Any, Final

import msgspec

from warmspare.control import process
from warmspare.host import verbs
from warmspare.model.facts import Cause
from warmspare.model.transcript import Answer, Failed, Verb


class Question(msgspec.Struct, frozen=True):
    """One request to the broker."""

    verb: Verb
    args: tuple[str, ...]
    deadline_s: float
    ahead: bool = False
    """Only begin with it: the same question will come again, and is owed its answer then."""


REAP_S: Final = 1.0
"""How long a killed worker is waited for before all of /proc is searched for what it left."""
TAINTING: Final = frozenset({"symbol", "experiment"})
_LENGTH: Final = struct.Struct("<I")
ANSWERS: Final[msgspec.json.Decoder[Answer]] = msgspec.json.Decoder(Answer)


class Closed(Exception):
    """The other end of the pipe is gone."""


def send(descriptor: int, message: Any) -> None:  # noqa: ANN401 # any msgspec value
    """Write one length-prefixed message."""
    _put(descriptor, msgspec.json.encode(message))


def _put(descriptor: int, data: bytes) -> None:
    view = memoryview(_LENGTH.pack(len(data)) + data)
    while view:
        view = view[os.write(descriptor, view) :]


def receive(descriptor: int, deadline: float | None = None) -> bytes | None:
    """Read one message; None when the monotonic `deadline` passes first.

    Raises:
        Closed: the other end is gone.
    """
    head = _exactly(descriptor, _LENGTH.size, deadline)
    return None if head is None else _exactly(descriptor, _LENGTH.unpack(head)[0], deadline)


def _exactly(descriptor: int, size: int, deadline: float | None) -> bytes | None:
    data = b""
    while len(data) < size:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not process.ready([descriptor], left):
            return None
        chunk = os.read(descriptor, size - len(data))
        if not chunk:
            raise Closed
        data += chunk
    return data


class Worker:
    """A forked process that answers questions until it is killed."""

    def __init__(self, alive: set[int]) -> None:
        """Fork it, in a process group of its own; the end of one spares the others that are `alive`."""
        self._ended, self._alive = False, alive
        self._deadline = 0.0
        asked, self.ask = os.pipe()
        self.answers, answered = os.pipe()
        broker = os.getpid()
        self.pid: int = os.fork()
        if self.pid == 0:
            process.die_with_parent(broker)
            os.setpgid(0, 0)
            os.close(self.ask)
            os.close(self.answers)
            _work(asked, answered)
        os.close(asked)
        os.close(answered)
        alive.add(self.pid)

    def begin(self, question: Question) -> None:
        """Put the question; its deadline runs from now."""
        self._deadline = time.monotonic() + question.deadline_s
        with contextlib.suppress(BrokenPipeError):  # it has died: seen when the answer is waited for
            send(self.ask, question)

    def answer(self, question: Question, lifeline: int) -> Answer:
        """The answer to the question that was begun, or the reason why there is none.

        Raises:
            Closed: the tool is gone.
        """
        deadline = self._deadline
        left_s = max(0.0, deadline - time.monotonic())
        ready, ended = process.first([self.answers, lifeline], self.pid, left_s)
        if lifeline in ready:  # nothing is sent while we owe an answer: this is the end of the pipe
            raise Closed
        if ended and not ready:
            return self._died(question, deadline)  # what it started may still hold its end of the pipe
        try:
            data = receive(self.answers, deadline)
        except Closed:
            return self._died(question, deadline)
        if data is None:
            return self._hung(question)
        try:
            return ANSWERS.decode(data)
        except msgspec.DecodeError as error:
            return Failed(cause=Cause.INVALID, detail=f"the answer to {question.verb} was none: {error}"[:300])

    def _hung(self, question: Question) -> Failed:
        left = self.end()
        stuck = f"; pid {left[0]} did not die of SIGKILL and was left" if left else ""
        return Failed(cause=Cause.TIMEOUT, detail=f"no answer within {question.deadline_s:g} s; killed{stuck}")

    def _died(self, question: Question, deadline: float) -> Failed:
        """How it ended; a foreign library may also have closed our pipe and gone on."""
        if not process.first((), self.pid, max(0.0, deadline - time.monotonic()))[1]:
            return self._hung(question)
        status = os.waitpid(self.pid, 0)[1]
        code = os.waitstatus_to_exitcode(status)
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        self.end()
        return Failed(cause=Cause.CRASHED, detail=f"the child asking {question.verb} died: {how}", code=how)

    def end(self) -> list[int]:
        """Kill the worker and all it started; returns pids that would not die."""
        if not self._ended:
            self._ended = True
            os.close(self.ask)
            os.close(self.answers)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            process.first((), self.pid, REAP_S)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
            self._alive.discard(self.pid)
        return process.end_descendants(frozenset(self._alive))


def _work(asked: int, answered: int) -> None:
    try:
        while data := receive(asked):
            question = msgspec.json.decode(data, type=Question)
            try:
                answer = msgspec.json.encode(verbs.do(question.verb, question.args))
            except Exception as error:  # noqa: BLE001 # an instrument's bug is an answer with its name
                detail = ascii(f"{type(error).__name__}: {error}"[:300])[1:-1]
                answer = msgspec.json.encode(Failed(cause=Cause.CRASHED, detail=detail))
            _put(answered, answer)
    except (Closed, BrokenPipeError):
        pass
    finally:
        os._exit(0)


class _Workers:
    """The broker's workers: one that is kept, and one for each question begun ahead or asked aside."""

    def __init__(self, lifeline: int) -> None:
        self._lifeline, self._alive = lifeline, set[int]()
        self._kept: Worker | None = None
        self._ahead: dict[tuple[str, ...], Worker] = {}

    def begin(self, question: Question) -> None:
        worker = self._ahead[question.verb, *question.args] = Worker(self._alive)
        worker.begin(question)

    def answer(self, question: Question) -> Answer:
        if question.verb in TAINTING or (question.verb, *question.args) in self._ahead:
            return self._aside(question)
        # It lives on, since it has NVML loaded, which may take seconds.
        worker = self._kept = self._kept or Worker(self._alive)
        worker.begin(question)
        answer = worker.answer(question, self._lifeline)
        if isinstance(answer, Failed) and answer.cause in (Cause.TIMEOUT, Cause.CRASHED):
            worker.end()
            self._kept = None
        return answer

    def _aside(self, question: Question) -> Answer:
        worker = self._ahead.pop((question.verb, *question.args), None)
        if worker is None:
            worker = Worker(self._alive)
            worker.begin(question)
        try:
            return worker.answer(question, self._lifeline)
        finally:
            worker.end()


def serve(requests: int, replies: int) -> None:
    """Answer questions until the pipe closes, then end every process started here."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process.disturbable()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # children are ours to reap, whatever we were started with
    process.become_subreaper()
    workers = _Workers(requests)
    try:
        while data := receive(requests):
            question = msgspec.json.decode(data, type=Question)
            if question.ahead:
                workers.begin(question)
            else:
                send(replies, workers.answer(question))
    except (Closed, BrokenPipeError):
        pass
    finally:
        process.end_descendants()
