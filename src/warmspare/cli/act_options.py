"""Options and arguments of commands that act on processes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

C = TypeVar("C", bound=Callable[..., Any])
PID_TYPE = click.IntRange(1, 2**22)
"""A process's number; the kernel's largest is 2^22. Source: proc_sys_kernel(5), pid_max."""
PID = click.argument("pid", type=PID_TYPE)


def whom(command: C) -> C:
    """A process, or an engine by its address: exactly one of them."""
    text = "A vLLM server of this machine: http://127.0.0.1:8000, or unix:/run/vllm.sock; its API key is VLLM_API_KEY."
    with_engine = click.option("--engine", metavar="URL", help=text)(command)
    return click.argument("pid", type=PID_TYPE, required=False)(with_engine)


class _Seconds(click.FloatRange):
    """A range that "nan" is not in, though no comparison says so."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 # click's own
        """The number."""
        if math.isnan(number := super().convert(value, param, ctx)):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return number


def force(command: C) -> C:
    """Go on against what only speaks against it."""
    text = "Go on without a proof, and against what is predicted or cannot be told."
    return click.option("--force", is_flag=True, help=text)(command)


def lock_timeout(command: C) -> C:
    """How long running work may take."""
    text = "How long the process's running GPU work, or an engine's requests in flight, may take to end."
    return click.option(
        "--timeout", metavar="SECONDS", type=_Seconds(0.001, 3600), default=10.0, show_default=True, help=text
    )(command)
