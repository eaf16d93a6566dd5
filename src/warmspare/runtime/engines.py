"""A vLLM engine put to sleep and woken: drained first, and believed only once it answers.

It is drained at level 0, which touches no memory: a sleep at level 1 that waits for requests in flight cannot be taken
back. Woken while it still waits, it would serve on and then lose its memory under the next request.

Source: vLLM 0.26.0, v1/engine/core.py (sleep, pause_scheduler, wake_up, resume_scheduler); our notes.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, NamedTuple

import msgspec

from warmspare.control import listening
from warmspare.control.vllm import BadUrl, Engine, EngineFailed, NotVllm, Tcp
from warmspare.runtime.outcomes import NotActed
from warmspare.runtime.stopping import Stop

KEY: Final = "VLLM_API_KEY"
"""The environment's name for an engine's API key, vLLM's own. Source: vllm/envs.py."""
PROMPT: Final = (1, 2, 3, 4, 5, 6, 7, 8)
"""Tokens that every vocabulary has."""
DRAINS_FROM: Final = (0, 17)
"""The first version that lets requests in flight end. Source: vLLM pull request 34528."""
SLEEP_S: Final = 600.0
"""How long a sleep or a wake may take: 600 GiB of weights at 1 GiB/s."""
ANSWER_S: Final = 120.0
"""How long the one token may take that shows that it serves."""
LOOK_S: Final = 0.05
SOON_S: Final = 2.0
"""How long is waited without a word."""
AGAIN_S: Final = 60.0
"""How long an engine may refuse to go on while ranks of it still wait for one another."""
NOT_FOUND: Final = 404
DENIED: Final = frozenset({401, 403})
BROKEN: Final = 500


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """That it serves. `tokens` is None where it refused to answer us, `why` then says so; `took_s` in seconds."""

    tokens: tuple[int, ...] | None
    took_s: float
    why: str = ""


class Woken(msgspec.Struct, frozen=True, kw_only=True):
    """A wake that came to an answer."""

    wake_s: float
    answer: Answer


class NotServing(Exception):
    """A wake was tried, and the engine does not serve; the message says why and what to do."""


def at(url: str) -> Engine:
    """The engine at this address, with the key of the environment.

    Raises:
        BadUrl: the address is none.
    """
    return Engine.at(url, os.environ.get(KEY) or None)


def again(url: str, pid: int) -> Engine:
    """The engine at an address that was good once, if its server is still who listens there.

    Raises:
        NotServing: it is another's by now, or it cannot be asked with the key that the environment has.
    """
    try:
        now = found(url)
    except (BadUrl, NotActed) as bad:
        message = f"its engine cannot be asked: {bad}"
        raise NotServing(message) from bad
    if now.pid != pid:
        message = f"its engine cannot be asked: {url} is process {now.pid}'s now, another server"
        raise NotServing(message)
    return now.engine


class Found(NamedTuple):
    """A server of this machine: how its user named it, how to talk to it, and the root of its processes."""

    url: str
    engine: Engine
    pid: int


def found(url: str) -> Found:
    """The server at this address.

    Raises:
        BadUrl: the address is none.
        NotActed: it is another machine's, or nobody can be named.
    """
    engine = at(url)
    address = engine.address
    try:
        if isinstance(address, Tcp):
            pid = listening.on_port(address.host, address.port)
        else:
            pid = listening.on_socket(str(address.path))
    except listening.NotFound as none:
        raise NotActed(str(none), "refused") from none
    return Found(url, engine, pid)


def is_asleep(engine: Engine, *, force: bool) -> bool:
    """Whether it sleeps or is paused; it is made sure that it can be asked to sleep, and that we may ask it.

    Raises:
        NotActed: it is no vLLM, has no such endpoints, wants a key, does not answer or contradicts itself.
    """
    try:
        version = engine.version()
        engine.models()
        sleeping, told = engine.is_sleeping(), engine.sleep_state()
    except NotVllm as failed:
        why = f"this is no vLLM engine: {failed}"
        raise NotActed(why, "refused") from failed
    except EngineFailed as failed:
        raise NotActed(_refusal(failed), "refused") from failed
    if _is_before(version, DRAINS_FROM) and not force:
        why = f"vLLM {version} does not let requests in flight end before it sleeps, and may crash; --force does it"
        raise NotActed(why, "refused")
    if told and "+" in told:
        why = f"a part of the engine sleeps and a part does not ({told}); wake it first"
        raise NotActed(why, "refused")
    if told not in (None, "awake") and not sleeping:
        why = f"the engine says that it is awake, and its metrics say {told}; wake it first"
        raise NotActed(why, "refused")
    return sleeping


def answer(engine: Engine, within_s: float = ANSWER_S) -> Answer:
    """One token of it.

    Raises:
        EngineFailed: it does not serve.
    """
    begun = time.monotonic()
    try:
        tokens = engine.complete(PROMPT, 1, within_s).tokens
    except EngineFailed as failed:
        if failed.status not in DENIED:
            raise
        return Answer(tokens=None, took_s=time.monotonic() - begun, why=_refusal(failed))
    return Answer(tokens=tokens, took_s=time.monotonic() - begun)


def drained(engine: Engine, within_s: float, stop: Stop, say: Callable[[str], None]) -> None:
    """Let the requests in flight end; later ones wait until it is woken. `woken` undoes it, also in the middle.

    Raises:
        NotActed: they did not end in time, or it refused.
        AskedToStop: we were.
    """
    call = _aside(lambda: engine.sleep(0, "wait", within_s))
    begun, silent = time.monotonic(), True
    while True:
        stop.check()
        if silent and time.monotonic() - begun > SOON_S:
            silent = False
            say(f"waiting up to {within_s:g} s for the engine's requests in flight to end")
        try:
            call.result(LOOK_S)
        except TimeoutError:
            continue
        except EngineFailed as failed:
            if failed.how == "hung":
                why = f"requests in flight did not end within {within_s:g} s; give them longer with --timeout"
                raise NotActed(why, "undone") from failed
            raise NotActed(str(failed), "undone") from failed
        return


def slept(engine: Engine) -> float:
    """Put it to sleep at level 1, once it is drained; the seconds that it took.

    Raises:
        NotActed: it refused, or does not say that it sleeps.
    """
    begun = time.monotonic()
    try:
        engine.sleep(1, "wait", SLEEP_S)
        sleeping = engine.is_sleeping()
    except EngineFailed as failed:
        why = f"it did not go to sleep: {failed}"
        raise NotActed(why, "undone") from failed
    if not sleeping:
        why = "it was asked to sleep, and says that it does not"
        raise NotActed(why, "undone")
    return time.monotonic() - begun


def sleeps(engine: Engine) -> bool:
    """Whether it sleeps or is paused: only then does a wake take memory.

    Raises:
        NotServing: it does not answer.
    """
    try:
        return engine.is_sleeping()
    except EngineFailed as failed:
        message = f"its engine does not answer ({failed}), so it was not woken; see that its server listens there"
        raise NotServing(message) from failed


def woken(engine: Engine) -> Woken:
    """Wake it, which ends a drain as well, and see that it serves.

    Raises:
        NotServing: it does not.
    """
    begun = time.monotonic()
    try:
        _wake(engine, begun + AGAIN_S)
        wake_s = time.monotonic() - begun
        if engine.is_sleeping():
            message = f"its engine was woken and says that it sleeps; {_restart()}"
            raise NotServing(message)
        return Woken(wake_s=wake_s, answer=answer(engine))
    except EngineFailed as failed:
        message = f"its engine does not serve ({failed}); {_restart()}"
        raise NotServing(message) from failed


def _wake(engine: Engine, until: float) -> None:
    """Ranks that still wait for one another refuse to go on: that alone is asked again."""
    waited = threading.Event()
    while True:
        try:
            engine.wake(within_s=SLEEP_S)
        except EngineFailed as failed:
            paused = failed.status == BROKEN and engine.sleep_state() == "awake"
            if not paused or time.monotonic() > until:
                raise
            waited.wait(1)
        else:
            return


def _aside(call: Callable[[], object]) -> Future[None]:
    """Make a call beside us, so that we can be asked to stop meanwhile; it may be left behind."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 # whatever it is, it is raised where the result is asked for
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=run, daemon=True).start()
    return future


def _refusal(failed: EngineFailed) -> str:
    if failed.status in DENIED:
        return f"the engine wants an API key ({failed}): set {KEY}"
    if failed.status == NOT_FOUND:
        return (
            f"the engine has no endpoints for sleep ({failed}): start it with --enable-sleep-mode, and with"
            " VLLM_SERVER_DEV_MODE=1 in its environment, where only this machine can reach it"
        )
    return f"the engine does not answer as it should: {failed}"


def _restart() -> str:
    return "restart it: before vLLM 0.28 a wake that failed never succeeds, and /health does not show it"


def _is_before(version: str, first: tuple[int, int]) -> bool:
    """A version that cannot be read is taken for a new one: a build of its own from the source."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) < first
