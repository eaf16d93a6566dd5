"""The user's own engine tried: whatever happens to the trial, it is never left asleep, nor is more done to it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from sleep_scene import (
    CYCLES,
    World,
    absent,
    at_step,
    drivers,
    host,
    interrupt,
    kill_keeper,
    outcome,
    value,
    world,
)

from engines import Serving, a_model
from leftovers import environ, until
from warmspare.control import process
from warmspare.control.vllm import EngineFailed
from warmspare.model.facts import Cause
from warmspare.trials import awaken, leftover
from warmspare.trials.api import StepEvent
from warmspare.trials.given import EngineAsk
from warmspare.trials.sleeping.cycles import SleepCycles
from warmspare.trials.sleeping.level_2 import SleepLevel2
from warmspare.trials.sleeping.oracle import SleepOracle
from warmspare.trials.sleeping.room import SleepRoom
from warmspare.trials.sleeping.start import EngineStart

__all__ = ["drivers", "world"]

SLOW = "copy-ms=300"
"""So that there is a moment in the middle of a sleep."""

BOTH_KILLED = """
import os, signal, sys
from sleep_scene import TRIAL, at_step, host, kill_keeper
from warmspare.trials.given import EngineAsk
from warmspare.trials.run import run

def end():
    kill_keeper()
    os.kill(os.getpid(), signal.SIGKILL)

run(TRIAL, at_step("sleep 2", end), host(EngineAsk(url=sys.argv[1])))
"""


@contextlib.contextmanager
def theirs(entered: World, tmp_path: Path, *, tcp: bool = False) -> Iterator[Serving]:
    """An engine that is there, and none of the trial's."""
    with entered.fake.serving(a_model(tmp_path / "theirs"), tcp=tcp, WARMSPARE_TEST="theirs") as serving:
        entered.used = entered.used_mib()
        yield serving


def at(serving: Serving) -> EngineAsk:
    return EngineAsk(url=serving.url)


def sleeps(serving: Serving) -> bool:
    return bool(serving.ask("GET /is_sleeping").json["is_sleeping"])


@pytest.mark.parametrize("tcp", [True, False])
def test_an_engine_that_is_there(world: Callable[..., World], tmp_path: Path, *, tcp: bool) -> None:
    entered = world()
    with theirs(entered, tmp_path, tcp=tcp) as serving:
        ended = entered.tried(host(at(serving), gpus=2))
        assert not sleeps(serving)
    start, cycles, oracle = value(ended, EngineStart), value(ended, SleepCycles), value(ended, SleepOracle)
    assert (start.found, start.vllm, start.model, start.cold_start_s) == (True, "0.26.0", "theirs", None)
    assert start.gpus == ("gpu0",)
    assert (cycles.outcome.kind, cycles.cycles, cycles.tokens_equal) == ("done", CYCLES, True)
    assert (cycles.mib_before, cycles.residue_mib) == (None, None)
    assert cycles.mib_freed
    assert (oracle.control, oracle.sees, oracle.sees_a_perturbed_layer) == ("sensitivity", True, None)
    assert value(ended, SleepRoom).had
    assert absent(ended, SleepLevel2).detail == "it is only done to an engine that the trial has started itself"


def test_an_oracle_without_sensitivity(world: Callable[..., World], tmp_path: Path) -> None:
    entered = world("blind")
    with theirs(entered, tmp_path) as serving:
        oracle = value(entered.tried(host(at(serving))), SleepOracle)
    assert (oracle.outcome.kind, oracle.sees) == ("done", False)


def test_one_that_frees_nothing(world: Callable[..., World], tmp_path: Path) -> None:
    entered = world("memory-not-freed")
    with theirs(entered, tmp_path) as serving:
        assert outcome(entered.tried(host(at(serving))), SleepCycles) == ("wrong", "sleep 1")
        assert not sleeps(serving)


def test_one_that_is_asleep_is_left_so(world: Callable[..., World], tmp_path: Path) -> None:
    entered = world()
    with theirs(entered, tmp_path) as serving:
        serving.ask("POST /sleep?level=1")
        entered.used = entered.used_mib()
        found = absent(entered.tried(host(at(serving))), EngineStart)
        assert sleeps(serving)
    assert (found.cause, found.detail) == (Cause.SKIPPED, f"the engine at {serving.url} is asleep, and is left so")


@pytest.mark.parametrize(
    ("word", "cause", "said"),
    [
        ("not-vllm", Cause.INVALID, "no vLLM answers there"),
        ("no-dev-endpoints", Cause.INVALID, "VLLM_SERVER_DEV_MODE=1"),
        ("api-key=secret", Cause.DENIED, "it asks for an API key: set VLLM_API_KEY"),
        ("hang-http", Cause.TIMEOUT, "no answer within 5 s"),
        ("redirects", Cause.INVALID, "it points elsewhere"),
    ],
)
def test_one_that_cannot_be_tried(
    world: Callable[..., World], tmp_path: Path, word: str, cause: Cause, said: str
) -> None:
    entered = world(word)
    with entered.fake.serving(a_model(tmp_path / "theirs"), ready=False, WARMSPARE_TEST="theirs") as serving:
        assert until(lambda: (_listens if word == "hang-http" else _answers)(serving))
        entered.used = entered.used_mib()
        ended = entered.run(host(at(serving)))
        found = absent(ended, EngineStart)
    assert (found.cause, said in found.detail) == (cause, True), found
    assert absent(ended, SleepCycles) == found


def test_one_with_a_key_that_is_known(
    world: Callable[..., World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered = world("api-key=secret")
    with theirs(entered, tmp_path) as serving:
        monkeypatch.setenv(awaken.KEY, "secret")
        assert outcome(entered.tried(host(at(serving))), SleepCycles) == ("done", None)


@pytest.mark.parametrize(
    ("url", "cause", "said"),
    [
        ("http://192.0.2.1:8000", Cause.SKIPPED, "is not on this machine"),
        ("https://127.0.0.1:8000", Cause.INVALID, "it takes http://HOST:PORT or unix:/PATH"),
        ("unix:/nowhere/s", Cause.INVALID, "ENOENT"),
    ],
)
def test_an_address_where_none_is(world: Callable[..., World], url: str, cause: Cause, said: str) -> None:
    found = absent(world().tried(host(EngineAsk(url=url))), EngineStart)
    assert (found.cause, said in found.detail) == (cause, True), found


@pytest.mark.parametrize("begun", [True, False])
def test_it_is_awake_after_ctrl_c(world: Callable[..., World], tmp_path: Path, *, begun: bool) -> None:
    entered = world(SLOW)
    with theirs(entered, tmp_path) as serving:
        with pytest.raises(KeyboardInterrupt):
            entered.run(host(at(serving)), interrupt("sleep 2", begun=begun))
        assert not sleeps(serving)
        entered.assert_nothing_left()


def test_it_is_awake_when_the_keeper_is_killed(world: Callable[..., World], tmp_path: Path) -> None:
    entered = world(SLOW)
    with theirs(entered, tmp_path) as serving:
        entered.run(host(at(serving)), at_step("sleep 2", kill_keeper, begun=False))
        assert not sleeps(serving)
        entered.assert_nothing_left()


def test_it_is_awake_when_the_trial_itself_is_killed(world: Callable[..., World], tmp_path: Path) -> None:
    entered = world(SLOW)
    with theirs(entered, tmp_path) as serving:
        ended = entered.run(host(at(serving)), at_step("sleep 2", _kill_body, begun=False))
        assert outcome(ended, SleepCycles)[0] == "died"
        assert not sleeps(serving)
        entered.assert_nothing_left()


def test_it_is_awake_when_tool_and_keeper_are_killed_at_once(world: Callable[..., World], tmp_path: Path) -> None:
    entered = world(SLOW)
    with theirs(entered, tmp_path) as serving:
        path = os.pathsep.join((str(Path(__file__).parent.parent), os.environ["PYTHONPATH"]))
        ended = subprocess.run(
            [sys.executable, "-c", BOTH_KILLED, serving.url], env={**os.environ, "PYTHONPATH": path}, check=False
        )
        assert ended.returncode == -signal.SIGKILL
        assert until(lambda: not entered.corner.processes())
        assert not sleeps(serving)


def test_a_later_run_wakes_what_was_left_asleep(world: Callable[..., World], tmp_path: Path) -> None:
    entered = world()
    with theirs(entered, tmp_path) as serving:
        folder = entered.corner.scratch / f"{leftover.PREFIX}0123456789abcdef-x"
        folder.mkdir()
        (folder / awaken.FILE).write_text(serving.url)
        serving.ask("POST /sleep?level=1")
        os.utime(folder, (0, 0))
        assert leftover.sweep_stale() == []
        assert not sleeps(serving)
    assert not folder.exists()


def test_one_that_denies_its_sleep_is_woken_all_the_same(world: Callable[..., World], tmp_path: Path) -> None:
    entered = world("is-sleeping-lies")
    with theirs(entered, tmp_path) as serving:
        serving.ask("POST /sleep?level=1")
        assert not sleeps(serving)
        asleep = entered.used_mib()
        awaken.waken(serving.url)
        assert entered.used_mib() == entered.used > asleep


def test_one_that_stays_asleep_is_not_waited_for_without_end() -> None:
    with _server(post=200, is_sleeping=True) as url, pytest.raises(EngineFailed, match="told to wake"):
        awaken.waken(url, within_s=0.5)


@pytest.mark.parametrize("ends", ["Ctrl-C", "kill -9 of the keeper"])
def test_one_that_is_long_in_falling_asleep_is_waited_for(
    world: Callable[..., World], tmp_path: Path, ends: str
) -> None:
    entered = world("copy-ms=9000")
    steps: list[str] = []

    def end(event: StepEvent) -> None:
        steps.append(event.name)
        (interrupt("sleep 1") if ends == "Ctrl-C" else at_step("sleep 1", kill_keeper))(event)

    with theirs(entered, tmp_path) as serving:
        with pytest.raises(KeyboardInterrupt) if ends == "Ctrl-C" else contextlib.nullcontext():
            assert entered.run(host(at(serving)), end).left == ()
        assert not sleeps(serving)
        entered.assert_nothing_left()
    assert steps[-1] == awaken.WAKING.name


def test_one_that_does_not_wake_is_named(tmp_path: Path) -> None:
    (tmp_path / awaken.FILE).write_text("http://127.0.0.1:1")
    assert awaken.settle([tmp_path]) == []  # it is gone, and does not sleep
    with _server() as url:
        (tmp_path / awaken.FILE).write_text(url)
        (left,) = awaken.settle([tmp_path], within_s=0.5)
    assert left.startswith(f"the engine at {url}, which may be asleep")


@contextlib.contextmanager
def _server(post: int = 500, *, is_sleeping: bool | None = None) -> Iterator[str]:
    """A server that answers every POST with this status, and every GET with this word; None: it refuses."""

    class Says(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say(200 if is_sleeping is not None else 500)

        def do_POST(self) -> None:
            self._say(post)

        def _say(self, status: int) -> None:
            body = json.dumps({"is_sleeping": is_sleeping}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Says) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _answers(serving: Serving) -> bool:
    with contextlib.suppress(OSError):
        return bool(serving.ask("GET /health", within_s=1.0))
    return False


def _listens(serving: Serving) -> bool:
    """For one that never answers: it would be found all the same."""
    with contextlib.suppress(OSError), contextlib.closing(serving.connection(1.0)) as wire:
        wire.connect()
        return True
    return False


def _kill_body() -> None:
    """The keeper's own child that has no other program than it."""
    (keeper,) = (
        pid
        for pid in process.children(os.getpid())
        if any(entry.startswith(f"{process.TAG}=".encode()) for entry in environ(pid))
    )
    (body,) = process.children(keeper)
    os.kill(body, signal.SIGKILL)
