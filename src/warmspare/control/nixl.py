"""NIXL as a lever: an agent in a process of its own, under the engine's Python, told what to do over a pipe."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import warmspare
from warmspare.control.lever import LeverRefused

_START: Final = (
    "import sys; name, answers, root = sys.argv[1:]; sys.path[:] = filter(None, sys.path);"
    # Ours comes last and goes again: what an engine would not find must not be found here either.
    " sys.path.append(root); from warmspare.control import nixl_agent; sys.path.remove(root);"
    " nixl_agent.serve(name, sys.stdin, open(int(answers), 'w'))"
)
_TAIL: Final = 4096
_LOG_LIMIT: Final = 4 * 2**20


class AgentDied(Exception):
    """An agent's process ended in the middle of an order."""


class Agent:
    """An agent's process. What it and NIXL print goes to files in `folder`, which is also its working directory."""

    def __init__(self, python: str, name: str, folder: Path) -> None:
        """Start it under `python`, with the environment as it is and UCX told to name its protocols.

        Raises:
            OSError: that Python cannot be run.
        """
        self.name = name
        self._printed, self._log = folder / f"{name}.out", folder / f"{name}.ucx"
        root = str(Path(warmspare.__file__).parent.parent)
        answers, told = os.pipe()
        try:
            with self._printed.open("wb") as printed:
                self._process = subprocess.Popen(
                    [python, "-c", _START, name, str(told), root],
                    stdin=subprocess.PIPE,
                    stdout=printed,
                    stderr=printed,
                    pass_fds=(told,),
                    cwd=folder,
                    env={**os.environ, "UCX_PROTO_INFO": "y", "UCX_LOG_FILE": self._log.name},
                    text=True,
                )
        finally:
            os.close(told)
            self._answers = os.fdopen(answers, encoding="utf-8")

    def tell(self, do: str, **what: object) -> None:
        """Give an order: a public method of `nixl_agent.Agent`, and its arguments."""
        try:
            print(json.dumps({"do": do, **what}), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            self._died()

    def hear(self) -> dict[str, Any]:
        """The answer to the order before.

        Raises:
            LeverRefused: NIXL raised, or CUDA refused; the code is the exception's name, or the CUresult.
            AgentDied: the process ended instead.
        """
        line = self._answers.readline()
        if not line:
            self._died()
        answer: dict[str, Any] = json.loads(line)
        if "refused" in answer:
            raise LeverRefused(answer["refused"], f"{self.name}: {answer['detail']}")
        return answer

    def ask(self, do: str, **what: object) -> dict[str, Any]:
        """Give an order and wait for its answer."""
        self.tell(do, **what)
        return self.hear()

    def protocols(self) -> str:
        """What UCX has logged of the protocols it chose; empty if it logged nothing."""
        try:
            with self._log.open("rb") as file:
                return file.read(_LOG_LIMIT).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def end(self) -> int:
        """Give no more orders, and wait until the process is gone: its exit status."""
        self._answers.close()
        self._process.communicate()
        return self._process.returncode

    def _died(self) -> None:
        status = self._process.wait()
        how = f"signal {-status}" if status < 0 else f"status {status}"
        lines = self._printed.read_bytes()[-_TAIL:].decode("utf-8", "replace").split("\n")
        message = f"{self.name} ended with {how}: {next(filter(None, map(str.strip, reversed(lines))), 'no word')}"
        raise AgentDied(message)


def both(agents: Sequence[Agent], do: str, whats: Sequence[Mapping[str, object]] = ({}, {})) -> list[dict[str, Any]]:
    """Give two agents an order at once, and wait for both answers."""
    for agent, what in zip(agents, whats, strict=True):
        agent.tell(do, **what)
    return [agent.hear() for agent in agents]
