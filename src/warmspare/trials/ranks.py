"""The trial's side of a process that drives NCCL (collective.py): started, asked step by step, ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, Self

import msgspec

import warmspare
from warmspare.control import process
from warmspare.model.facts import Cause, Outcome
from warmspare.trials.api import LeverFailed, NotTried, Steps
from warmspare.trials.collective import Answer

_START: Final = (
    "import sys; told, root = sys.argv[1:]; sys.path.append(root);"
    " from warmspare.trials import collective; collective.serve(int(told))"
)

MARGIN_S: Final = 5.0
"""What must be left of the trial's deadline when the last answer is given up: to say what was seen before it."""


class RanksProcess:
    """Its environment is ours whole, and only added to. Each answer must come within the trial's patience."""

    def __init__(self, steps: Steps, added: dict[str, str]) -> None:
        """Start it."""
        self._steps = steps
        self._answers, told = os.pipe()
        self._rest = b""
        root = str(Path(warmspare.__file__).parent.parent)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, str(told), root],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=(told,),
            env={**os.environ, **added},
        )
        os.close(told)

    def __enter__(self) -> Self:
        """As a context, it is ended whatever happens."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it: its memory and its communicators go with it."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        os.close(self._answers)

    def prepare(self, step: str, do: str, *arguments: object) -> Any:  # noqa: ANN401 # JSON, as its method gives it
        """Order something that comes before the first lever."""
        return self._steps.prepare(step, self._ask, do, arguments)

    def lever(self, step: str, do: str, *arguments: object) -> Any:  # noqa: ANN401 # likewise
        """Order a lever to be pulled.

        Raises:
            LeverFailed: it did not end as it should; also where the process died or gave no answer in time.
        """
        return self._steps(step, self._ask, do, arguments)

    def _ask(self, do: str, arguments: tuple[object, ...]) -> Any:  # noqa: ANN401 # likewise
        order = {"do": do, "arguments": arguments}
        try:
            os.write(self._process.stdin.fileno() if self._process.stdin else -1, msgspec.json.encode(order) + b"\n")
        except BrokenPipeError:
            self._died()
        answer = self._answer()
        match answer.kind:
            case "done":
                return answer.result
            case "refused":
                self._failed("refused", answer.code, answer.detail)
            case "wrong":
                self._failed("wrong", None, answer.detail)
        raise NotTried(Cause(answer.code), answer.detail)

    def _answer(self) -> Answer:
        left_s = self._steps.left_s - MARGIN_S
        deadline = time.monotonic() + min(self._steps.patience_s, left_s)
        while b"\n" not in self._rest:
            if not process.ready([self._answers], deadline - time.monotonic()):
                if left_s < self._steps.patience_s:
                    raise NotTried(Cause.TIMEOUT, f"no time was left for {self._steps.current}")
                self._failed("hung", None, f"no answer within {self._steps.patience_s:g} s")
            data = os.read(self._answers, 65_536)
            if not data:
                self._died()
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return msgspec.json.decode(line, type=Answer)

    def _died(self) -> NoReturn:
        status = self._process.wait()
        self._failed(
            "died", f"signal {-status}" if status < 0 else f"exit {status}", "the process that drives NCCL ended"
        )

    def _failed(self, kind: Literal["refused", "wrong", "hung", "died"], code: str | None, detail: str) -> NoReturn:
        """An outcome inside a lever; before it, the instrument's own failure."""
        if self._steps.in_lever:
            raise LeverFailed(Outcome(kind=kind, step=self._steps.current, code=code, detail=detail[:300]))
        cause = {"hung": Cause.TIMEOUT, "refused": Cause.DENIED}.get(kind, Cause.CRASHED)
        raise NotTried(cause, f"{self._steps.current}: {' '.join(filter(None, (code, detail)))}"[:300])
