"""An engine put to sleep and then suspended, over real HTTP and a modelled driver: done, undone, killed, refused."""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import msgspec
import pytest
from driver_model import GPUS, Driver, tools_on
from engine_model import ASLEEP_MIB, AWAKE_MIB, KEY, Flaw, Model, engine
from test_crashes import KILLED, in_a_controller

from warmspare.control.target import tree
from warmspare.control.vllm import BadUrl
from warmspare.runtime import engines, suspending, waking
from warmspare.runtime.engines import Found
from warmspare.runtime.moving import move
from warmspare.runtime.outcomes import NotActed, Recovered
from warmspare.runtime.recovery import recover
from warmspare.runtime.sleeping_first import suspend
from warmspare.runtime.suspending import Options
from warmspare.runtime.unit import Tools

PLAIN = Options(lock_s=5)
BRIEF = Options(lock_s=0.3)
ALL_AWAKE, ALL_ASLEEP = 2 * AWAKE_MIB, 2 * ASLEEP_MIB
MOST_POINTS = 60


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return Driver(tmp_path)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def tools(driver: Driver, tmp_path: Path, said: list[str]) -> Iterator[Tools]:
    with tools_on(driver, tmp_path / "state", said.append) as made:
        yield made


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(engines.KEY, raising=False)


@contextlib.contextmanager
def serving(driver: Driver, *flaws: Flaw, place: str = "0", beside: int | None = None) -> Iterator[tuple[Model, Found]]:
    """An engine with its process found; `beside` one that could take its memory, and has let go of its own."""
    if beside is not None:
        driver.set(beside, state="checkpointed")
    with engine(driver.file, driver.library, *flaws, place=place) as model:
        yield model, engines.found(model.url)


def post(url: str, path: str) -> None:
    """A request beside the tool."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request("POST", path)
    assert connection.getresponse().status == 200
    connection.close()


def is_awake(model: Model, found: Found) -> bool:
    """Whether all of it runs, holds its memory and answers."""
    return model.states == {"running"} and model.mib == ALL_AWAKE and answers(found)


def answers(found: Found) -> bool:
    """Whether it says what it said."""
    return found.engine.complete(engines.PROMPT, 1, 10).tokens == (sum(engines.PROMPT),)


def is_down(model: Model) -> bool:
    """Whether all of it is suspended, and was asleep then."""
    return model.states == {"checkpointed"} and model.mib == ALL_ASLEEP


def test_down_and_up_with_the_same_answer(driver: Driver, tools: Tools) -> None:
    with serving(driver) as (model, found):
        assert found.pid == model.pid
        line = suspend(tools, found, PLAIN)
        assert is_down(model)
        assert f"process {model.pid}" in line
        assert f"{ALL_AWAKE} MiB of gpu0 freed, by NVML" in line
        assert "suspended already" in suspend(tools, found, PLAIN)
        line = waking.resume(tools, model.pid, PLAIN)
        assert is_awake(model, found)
        assert "it serves, with the same token as before" in line
        assert f"`warmspare suspend --engine {model.url}`" in line
        assert "nothing to resume" in waking.resume(tools, model.pid, PLAIN)


@pytest.mark.parametrize("by", ["url", "root", "rank"])
def test_however_it_is_named_all_of_it_is_resumed(driver: Driver, tools: Tools, by: str) -> None:
    with serving(driver) as (model, found):
        suspend(tools, found, PLAIN)
        if by == "rank":
            waking.resume(tools, model.ranks[1], PLAIN)
        else:
            waking.resume(tools, model.pid, PLAIN, found if by == "url" else None)
        assert is_awake(model, found)


def test_an_engine_on_a_unix_socket(driver: Driver, tools: Tools, tmp_path: Path) -> None:
    with serving(driver, place=str(tmp_path / "s")) as (model, found):
        assert (found.url, found.pid) == (f"unix:{tmp_path / 's'}", model.pid)
        suspend(tools, found, PLAIN)
        assert is_down(model)
        waking.resume(tools, model.pid, PLAIN)
        assert is_awake(model, found)


def test_another_server_at_its_address_is_not_woken_in_its_place(driver: Driver, tools: Tools, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serving(driver, place=str(path)) as (model, found):
        suspend(tools, found, PLAIN)
        path.rename(tmp_path / "aside")
        with engine(driver.file, driver.library, place=str(path)) as other:
            engines.at(other.url).sleep(1, "wait", 10)
            with pytest.raises(NotActed, match="cannot be asked") as refused:
                waking.resume(tools, model.pid, PLAIN)
            assert refused.value.end == "refused"
            assert is_down(model)
            assert other.mib == ALL_ASLEEP
            assert engines.at(other.url).is_sleeping()
        (tmp_path / "aside").rename(path)
        waking.resume(tools, model.pid, PLAIN)
        assert is_awake(model, found)


def test_one_found_asleep_is_suspended_and_left_asleep(driver: Driver, tools: Tools) -> None:
    with serving(driver) as (model, found):
        post(model.url, "/sleep?level=1")
        line = suspend(tools, found, PLAIN)
        assert "slept already" in line
        assert is_down(model)
        line = waking.resume(tools, model.pid, PLAIN, found)
        assert "it is not woken" in line
        assert model.states == {"running"}
        assert model.mib == ALL_ASLEEP
        assert found.engine.is_sleeping()


def test_one_suspended_awake_is_not_said_to_sleep(driver: Driver, tools: Tools) -> None:
    with serving(driver) as (model, found):
        suspending.suspend(tools, model.pid, PLAIN)
        assert "its engine serves" in waking.resume(tools, model.pid, PLAIN, found)
        assert is_awake(model, found)


def test_requests_in_flight_are_let_end(driver: Driver, tools: Tools, said: list[str]) -> None:
    with serving(driver) as (model, found):
        post(model.url, "/test/hold")
        with once_paused(found, lambda: post(model.url, "/test/let_go")):
            suspend(tools, found, PLAIN)
        assert is_down(model)
        assert not said


def test_requests_that_do_not_end_in_time_are_not_broken_off(driver: Driver, tools: Tools) -> None:
    with serving(driver) as (model, found):
        post(model.url, "/test/hold")
        with pytest.raises(NotActed, match=r"runs and its engine serves on: requests in flight.*--timeout") as told:
            suspend(tools, found, BRIEF)
        assert told.value.end == "undone"
        assert is_awake(model, found)
        post(model.url, "/test/let_go")
        assert is_awake(model, found)  # and did not fall asleep now that the last one has ended
        suspend(tools, found, PLAIN)
        assert is_down(model)


def test_asked_to_stop_while_it_drains_it_serves_on(driver: Driver, tools: Tools, said: list[str]) -> None:
    heard: list[int] = []
    with serving(driver) as (model, found):
        post(model.url, "/test/hold")
        before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
        try:
            with (
                once_paused(found, lambda: os.kill(os.getpid(), signal.SIGTERM)),
                pytest.raises(NotActed, match="stopped by SIGTERM") as told,
            ):
                suspend(tools, found, Options(lock_s=60))
        finally:
            signal.signal(signal.SIGTERM, before)
        assert heard == [signal.SIGTERM]
        assert str(told.value) in said
        assert is_awake(model, found)
    assert not tools.journal.interrupted()


@pytest.mark.parametrize(("flaw", "says"), [("managed", "managed memory"), ("busy", "--timeout")])
def test_where_the_driver_refuses_the_engine_is_woken_again(driver: Driver, tools: Tools, flaw: str, says: str) -> None:
    with serving(driver) as (model, found):
        driver.set(model.ranks[1], flaw=flaw)
        with pytest.raises(NotActed, match="its engine serves on") as told:
            suspend(tools, found, PLAIN)
        assert says in str(told.value)
        assert told.value.end == "undone"
        assert is_awake(model, found)
        assert "nothing to resume" in waking.resume(tools, model.pid, PLAIN)


def test_a_rank_that_the_driver_loses_is_named_and_the_engine_not_woken(driver: Driver, tools: Tools) -> None:
    with serving(driver) as (model, found):
        driver.set(model.ranks[1], flaw="killed")
        with pytest.raises(NotActed, match=f"process {model.ranks[1]} .*its engine is left asleep") as told:
            suspend(tools, found, PLAIN)
        assert told.value.end == "lost"


@pytest.mark.parametrize(
    ("flaw", "says"),
    [
        ("frees nothing", "by NVML 0 of 600 MiB were freed: was it started with --enable-sleep-mode"),
        ("sleep fails", "did not go to sleep.*HTTP 500"),
    ],
)
def test_a_sleep_that_is_none_is_undone(driver: Driver, tools: Tools, flaw: Flaw, says: str) -> None:
    with serving(driver, flaw) as (model, found):
        with pytest.raises(NotActed, match=says) as told:
            suspend(tools, found, PLAIN)
        assert told.value.end == "undone"
        assert is_awake(model, found)


@pytest.mark.parametrize(
    ("flaw", "says"),
    [
        ("not vllm", "no vLLM engine"),
        ("no endpoints", "VLLM_SERVER_DEV_MODE=1"),
        ("key", f"wants an API key.*set {engines.KEY}"),
        ("old", "0.16.0 does not let requests in flight end"),
        ("mixed", "a part of the engine sleeps"),
    ],
)
def test_what_speaks_against_it_is_told_and_nothing_touched(
    driver: Driver, tools: Tools, flaw: Flaw, says: str
) -> None:
    with serving(driver, flaw) as (model, found):
        with pytest.raises(NotActed, match=says) as told:
            suspend(tools, found, PLAIN)
        assert told.value.end == "refused"
        assert (model.states, model.mib) == ({"running"}, ALL_AWAKE)
        assert all(tools.journal.last_of(one) is None for one in tree(model.pid))


def test_an_old_one_is_put_to_sleep_with_force(driver: Driver, tools: Tools) -> None:
    with serving(driver, "old") as (model, found):
        suspend(tools, found, Options(force=True, lock_s=5))
        assert is_down(model)


def test_a_key_is_taken_from_the_environment(driver: Driver, tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(engines.KEY, KEY)
    with serving(driver, "key") as (model, found):
        suspend(tools, found, PLAIN)
        monkeypatch.delenv(engines.KEY)
        line = waking.resume(tools, model.pid, PLAIN)
        assert f"set {engines.KEY}" in line
        assert (model.states, model.mib) == ({"running"}, ALL_AWAKE)


def test_a_key_that_cannot_be_sent_is_told_before_anything_is_touched(
    driver: Driver, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(driver) as (model, found):
        suspend(tools, found, PLAIN)
        monkeypatch.setenv(engines.KEY, "a\nkey")
        with pytest.raises(NotActed, match="the API key") as told:
            waking.resume(tools, model.pid, PLAIN)
        assert told.value.end == "refused"
        assert is_down(model)


def test_a_wake_that_fails_strands_it_and_says_what_to_do(driver: Driver, tools: Tools) -> None:
    with serving(driver, "wake fails") as (model, found):
        suspend(tools, found, PLAIN)
        with pytest.raises(NotActed, match=r"stranded: its engine does not serve .*HTTP 500.*restart it") as told:
            waking.resume(tools, model.pid, PLAIN)
        assert told.value.end == "stranded"
        assert model.states == {"running"}
        assert [one.pid for one in tools.journal.stranded()] == [model.pid]


def test_one_that_is_owed_a_wake_is_not_said_to_be_left_asleep(driver: Driver, tools: Tools) -> None:
    with serving(driver, "wake fails") as (model, found):
        suspend(tools, found, PLAIN)
        with pytest.raises(NotActed):
            waking.resume(tools, model.pid, PLAIN)
        line = suspend(tools, found, PLAIN)
        assert is_down(model)
        assert "slept already" in line
        assert line.endswith("brings it back and wakes it")


def test_an_answer_that_changed_is_said(driver: Driver, tools: Tools) -> None:
    with serving(driver, "garbage") as (model, found):
        suspend(tools, found, PLAIN)
        assert "but answers (43,) where it answered (36,) before: restart" in waking.resume(tools, model.pid, PLAIN)


def test_without_room_for_the_wake_nothing_is_begun(driver: Driver, tools: Tools) -> None:
    with driver.tree(1, mib=500) as (other,), serving(driver, beside=other) as (model, found):
        suspend(tools, found, PLAIN)
        driver.set(other, state="running")
        with pytest.raises(NotActed, match=f"500 MiB free, and waking its engine takes {ALL_AWAKE} MiB") as told:
            waking.resume(tools, model.pid, PLAIN)
        assert told.value.end == "refused"
        assert is_down(model)
        driver.set(other, state="checkpointed")
        waking.resume(tools, model.pid, PLAIN)
        assert is_awake(model, found)


def test_without_room_after_the_driver_it_is_suspended_again(driver: Driver, tools: Tools) -> None:
    with driver.tree(1, mib=500) as (other,), serving(driver, beside=other) as (model, found):
        suspend(tools, found, PLAIN)

        def shown(action: str, pid: int, end: object) -> None:
            if (action, pid) == ("unlock", model.ranks[1]) and end is not None:
                driver.set(other, state="running")

        with pytest.raises(NotActed, match=r"not resumed, all are as they were: .* MiB free") as told:
            waking.resume(tools._replace(shown=shown), model.pid, PLAIN)
        assert told.value.end == "undone"
        assert is_down(model)
        driver.set(other, state="checkpointed")
        waking.resume(tools, model.pid, PLAIN)
        assert is_awake(model, found)


def test_where_nvml_tells_no_process_the_room_is_known_by_what_became_free(driver: Driver, tools: Tools) -> None:
    blind = tools._replace(cards=lambda: tuple(msgspec.structs.replace(card, held=None) for card in driver.cards()))
    with driver.tree(1, mib=500) as (other,), serving(driver, beside=other) as (model, found):
        suspend(blind, found, PLAIN)
        assert is_down(model)
        driver.set(other, state="running")
        with pytest.raises(NotActed, match=f"waking its engine takes {ALL_AWAKE} MiB"):
            waking.resume(blind, model.pid, Options(force=True))
        driver.set(other, state="checkpointed")
        waking.resume(blind, model.pid, Options(force=True))
        assert is_awake(model, found)


def test_a_part_that_is_suspended_already_speaks_against_it(driver: Driver, tools: Tools) -> None:
    with serving(driver) as (model, found):
        suspending.suspend(tools, model.ranks[0], PLAIN)
        with pytest.raises(NotActed, match=f"a part of it is suspended.*`warmspare resume {model.pid}`"):
            suspend(tools, found, PLAIN)
        waking.resume(tools, model.pid, PLAIN)
        assert is_awake(model, found)


def test_one_that_is_owed_a_wake_is_not_moved(driver: Driver, tools: Tools) -> None:
    with serving(driver) as (model, found):
        suspend(tools, found, PLAIN)
        with pytest.raises(NotActed, match="was put to sleep first"):
            move(tools, model.pid, GPUS[1], PLAIN)
        waking.resume(tools, model.pid, PLAIN)
        assert is_awake(model, found)


@pytest.mark.parametrize("url", ["http://192.0.2.1:8000", "http://[2001:db8::1]:8000"])
def test_another_machines_engine_is_refused(url: str) -> None:
    with pytest.raises(NotActed, match="is not this machine") as told:
        engines.found(url)
    assert told.value.end == "refused"


def test_where_nobody_listens_that_is_told() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(NotActed, match="no process listens"):
            engines.found(f"http://127.0.0.1:{bound.getsockname()[1]}")


@pytest.mark.parametrize("url", ["", "8000", "ftp://127.0.0.1:8000", "http://", "unix:"])
def test_what_is_no_address_is_told(url: str) -> None:
    with pytest.raises(BadUrl):
        engines.found(url)


def test_killed_at_every_point_of_a_suspend_it_serves_or_is_down(driver: Driver, tmp_path: Path) -> None:
    ends = killed_everywhere(driver, tmp_path, [], lambda tools, found: suspend(tools, found, PLAIN))
    assert {"serves", "is down"} == set(ends)


def test_killed_at_every_point_of_a_resume_it_is_finished_or_is_down(driver: Driver, tmp_path: Path) -> None:
    ends = killed_everywhere(
        driver,
        tmp_path,
        [lambda tools, found: suspend(tools, found, PLAIN)],
        lambda tools, found: waking.resume(tools, found.pid, PLAIN, found),
    )
    assert {"serves", "is down"} == set(ends)


class Do(Protocol):
    """What is done with an engine."""

    def __call__(self, tools: Tools, found: Found) -> str:
        """The line to say."""


def killed_everywhere(driver: Driver, folder: Path, before: list[Do], do: Do) -> list[str]:
    """Kill the one who does it before and after all that it writes and calls; how each engine is cleared up."""
    ends: list[str] = []
    for point in range(MOST_POINTS):
        state = folder / f"state-{point}"
        with serving(driver) as (model, found):
            with tools_on(driver, state, lambda _: None) as tools:
                for one in before:
                    one(tools, found)
            ended = in_a_controller(driver, state, functools.partial(do, found=found), point)
            said: list[str] = []
            with tools_on(driver, state, said.append) as tools:
                told = recover(tools)
                assert not tools.journal.interrupted()
            ends.append(how(model, found, told, said))
            with tools_on(driver, state, said.append) as tools:
                waking.resume(tools, model.pid, PLAIN, found)
            assert is_awake(model, found), said
        if ended != KILLED:
            return ends
    pytest.fail("it never came to its end")


def how(model: Model, found: Found, told: tuple[Recovered, ...], said: list[str]) -> str:
    """How an engine is after a kill: nothing in between is right."""
    assert not any(one.is_harm for one in told), said
    if is_down(model):
        return "is down"
    assert is_awake(model, found), said
    return "serves"


def test_killed_before_it_slept_and_its_memory_taken_it_is_named(driver: Driver, tmp_path: Path) -> None:
    with driver.tree(1, mib=500) as (other,), serving(driver, beside=other) as (model, found):
        post(model.url, "/test/hold")
        child = os.fork()
        if child == 0:
            with tools_on(driver, tmp_path / "state", lambda _: None) as tools:
                suspend(tools, found, Options(lock_s=60))
            os._exit(1)
        paused(found)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with tools_on(driver, tmp_path / "state", lambda _: None) as tools:
            (told,) = recover(tools)
        assert "its engine was woken and serves again" in told.sentence
        assert is_awake(model, found)


def test_killed_once_it_slept_and_its_memory_taken_it_is_named(driver: Driver, tmp_path: Path) -> None:
    with driver.tree(1, mib=500) as (other,), serving(driver, beside=other) as (model, found):
        child = os.fork()
        if child == 0:
            with tools_on(driver, tmp_path / "state", lambda _: None, _dies) as tools:
                suspend(tools, found, PLAIN)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        driver.set(other, state="running")
        said: list[str] = []
        with tools_on(driver, tmp_path / "state", said.append) as tools:
            (told,) = recover(tools)
            assert told.outcome == "stranded"
            assert f"`warmspare resume {model.pid}` tries again" in told.sentence
            assert model.mib == ALL_ASLEEP
            driver.set(other, state="checkpointed")
            waking.resume(tools, model.pid, PLAIN)
        assert is_awake(model, found)


def _dies(point: str) -> None:
    if point == "before lock":
        os.kill(os.getpid(), signal.SIGKILL)


def paused(found: Found) -> None:
    """Wait until it has been asked to sleep."""
    deadline = time.monotonic() + 20
    while not found.engine.is_sleeping():
        assert time.monotonic() < deadline


@contextlib.contextmanager
def once_paused(found: Found, act: Callable[[], None]) -> Iterator[None]:
    """Beside what is done, act when it has been asked to sleep."""

    def acts() -> None:
        paused(found)
        act()

    beside = threading.Thread(target=acts)
    beside.start()
    yield
    beside.join()
