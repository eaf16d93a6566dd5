"""Options of commands that may try an LLM engine, and what they mean together."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from warmspare.trials.given import EngineAsk

C = TypeVar("C", bound=Callable[..., Any])
PYTHON: Final = "WARMSPARE_PYTHON"
SAID: Final = "warmspare.engine"
TRACK: Final = "sleep-mode"
DEEP: Final = 2
"""The level that drops the weights."""


class WithFlags(click.Command):
    """A command after whose `--` the flags of an engine stand."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the flags off before the rest is understood."""
        if "--" in args:
            at = args.index("--")
            _said(ctx)["flags"] = tuple(args[at + 1 :])
            args = args[:at]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Say so in the usage line."""
        return [*super().collect_usage_pieces(ctx), "[-- VLLM_FLAGS...]"]


def engine(command: C) -> C:
    """Which engine Sleep Mode is tried on."""
    for option in reversed(
        (
            _option("--vllm", _set_python, metavar="PYTHON", help="The Python that vLLM is installed in."),
            _option(
                "--model",
                _check_model,
                metavar="MODEL",
                help="Try Sleep Mode with this model of yours, not only with a made one.",
            ),
            _option("--engine", _check_url, metavar="URL", help="Try Sleep Mode on the vLLM server that is there."),
            _option("--yes-sleep-it", is_flag=True, help="Let that server sleep: it serves nobody meanwhile."),
            _option("--level", type=click.IntRange(1, 2), help="The sleep level that you mean to use (1)."),
        )
    ):
        command = option(command)
    return command


def asked_engine(tracks: tuple[str, ...], extent: str | None) -> EngineAsk:
    """The engine that the options mean.

    Raises:
        click.UsageError: they contradict each other, or no track was asked for that would try it.
    """
    from warmspare.trials.given import EngineAsk  # noqa: PLC0415 # --help must not pay for it

    said = _said(click.get_current_context())
    url, model, flags = said.get("engine"), said.get("model"), said.get("flags")
    named = {"--engine": url, "--model": model, "--level": said.get("level"), "flags of vLLM": flags}
    first = next((name for name, value in named.items() if value is not None), None)
    if first and TRACK not in tracks and not (extent == "full" and not tracks):
        message = f"{first}: only the track {TRACK} tries an engine; name it"
        raise click.UsageError(message)
    if url is not None and (model is not None or flags is not None):
        message = "--engine: that server has its own model and flags"
        raise click.UsageError(message)
    if url is not None and said.get("level") == DEEP:
        message = "--level 2: a server that is there is only put to sleep at level 1"
        raise click.UsageError(message)
    if url is not None and not said.get("yes_sleep_it"):
        message = (
            "--engine puts that server to sleep some times, and it serves nobody meanwhile; --yes-sleep-it lets it"
        )
        raise click.UsageError(message)
    if said.get("yes_sleep_it") and url is None:
        message = "--yes-sleep-it: --engine URL names the server"
        raise click.UsageError(message)
    if model is not None and os.path.exists(model):  # noqa: PTH110 # nor does Path add anything here
        model = os.path.abspath(model)  # noqa: PTH100 # the engine has another working folder
    return EngineAsk(model=model, flags=flags, level=said.get("level") or 1, url=url)


def _option(name: str, then: Callable[[str], None] | None = None, **about: Any) -> Callable[[C], C]:  # noqa: ANN401 # click's own
    def remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:  # noqa: ANN401 # click's own
        if value is not None and then:
            then(value)
        _said(context)[str(parameter.name)] = value

    return click.option(name, expose_value=False, callback=remember, **about)


def _said(context: click.Context) -> dict[str, Any]:
    said: dict[str, Any] = context.meta.setdefault(SAID, {})
    return said


def _check_url(value: str) -> None:
    from warmspare.control.vllm_address import BadUrl, address_at  # noqa: PLC0415 # --help must not pay for it

    try:
        address_at(value)
    except BadUrl as error:
        raise click.BadParameter(str(error), param_hint="'--engine'") from error


def _check_model(value: str) -> None:
    if not value:
        message = "it takes a folder, or a name that vLLM can fetch"
        raise click.BadParameter(message, param_hint="'--model'")


def _set_python(value: str) -> None:
    """Every child of ours finds the engine's Python by this variable."""
    if not (os.path.isfile(value) and os.access(value, os.X_OK)):  # noqa: PTH113 # nor does Path add anything here
        message = f"{value or 'an empty path'} is not a program that can be run"
        raise click.BadParameter(message, param_hint="'--vllm'")
    os.environ[PYTHON] = os.path.abspath(value)  # noqa: PTH100 # not resolved: a virtual environment's is a link
