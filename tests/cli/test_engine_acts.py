"""`warmspare suspend --engine` and `resume` as their user runs them, over HTTP and the stand-in driver."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from conftest import CI, Tool
from engines import Fake, Serving, a_model, used_mib
from standins import Drivers, compilers
from worlds import is_one_line

pytestmark = pytest.mark.skipif(not compilers() and not CI, reason="needs a C compiler, or the wheel ziglang")
RIGHT: Final = 8
KILLED: Final = Path(__file__).parent.parent / "runtime" / "killed.py"
Served = tuple[dict[str, str], Serving]


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    return Drivers(tmp_path_factory.mktemp("standins"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return a_model(tmp_path / "model")


def fake(drivers: Drivers, folder: Path, *plan: str, driver: tuple[str, ...] = ()) -> Fake:
    """A world with an engine in it."""
    (folder / "world").mkdir()
    return Fake(drivers, folder / "world", *plan, driver=driver)


def test_down_and_up_with_the_same_answer(tool: Tool, drivers: Drivers, tmp_path: Path, model: Path) -> None:
    world = fake(drivers, tmp_path)
    with world.serving(model, tcp=True) as serving:
        before, held = serving.complete(RIGHT), used_mib(world.whole_env, 0)
        down = tool("suspend", "--engine", serving.url, "--force", env=world.env)
        assert (down.returncode, down.stderr) == (0, ""), down
        assert "put its engine to sleep and suspended process" in down.stdout
        assert "MiB of gpu0 freed, by NVML" in down.stdout
        assert used_mib(world.whole_env, 0) < held // 10
        assert "suspended already" in tool("suspend", "--engine", serving.url, env=world.env).stdout
        up = tool("resume", str(serving.process.pid), env=world.env)
        assert (up.returncode, up.stderr) == (0, ""), up
        assert "MiB of GPU memory again and it serves, with the same token as before" in up.stdout
        assert used_mib(world.whole_env, 0) == held
        assert serving.complete(RIGHT) == before
        again = tool("resume", "--engine", serving.url, env=world.env)
        assert (again.returncode, again.stderr) == (0, "")
        assert "there is nothing to resume; its engine serves" in again.stdout


def test_where_the_driver_refuses_it_serves_on(tool: Tool, drivers: Drivers, tmp_path: Path, model: Path) -> None:
    world = fake(drivers, tmp_path, driver=("checkpoint target nth1: returns 2",))
    with world.serving(model, tcp=True) as serving:
        before = serving.complete(RIGHT)
        ran = tool("suspend", "--engine", serving.url, "--force", env=world.env)
        assert ran.returncode == 1, ran
        assert is_one_line(ran.stderr)
        assert "its engine serves on" in ran.stderr
        assert serving.complete(RIGHT) == before


def test_one_found_asleep_is_left_asleep(tool: Tool, drivers: Drivers, tmp_path: Path, model: Path) -> None:
    world = fake(drivers, tmp_path)
    with world.serving(model, tcp=True) as serving:
        assert serving.ask("POST /sleep?level=1").status == 200
        down = tool("suspend", "--engine", serving.url, "--force", env=world.env)
        assert "whose engine slept already" in down.stdout, down
        up = tool("resume", "--engine", serving.url, env=world.env)
        assert up.returncode == 0, up
        assert "it is not woken" in up.stdout
        assert serving.ask("GET /is_sleeping").json == {"is_sleeping": True}


@pytest.fixture
def served(drivers: Drivers, tmp_path: Path, model: Path) -> Iterator[Served]:
    world = fake(drivers, tmp_path)
    with world.serving(model, tcp=True) as serving:
        yield world.env, serving


@pytest.mark.parametrize(
    "lack",
    [
        ("no-dev-endpoints", "VLLM_SERVER_DEV_MODE=1"),
        ("memory-not-freed", "were freed: was it started with --enable-sleep-mode"),
    ],
)
def test_what_an_engine_lacks_is_said_and_it_serves_on(
    tool: Tool, drivers: Drivers, tmp_path: Path, model: Path, lack: tuple[str, str]
) -> None:
    plan, says = lack
    world = fake(drivers, tmp_path, plan)
    with world.serving(model, tcp=True) as serving:
        before = serving.complete(RIGHT)
        ran = tool("suspend", "--engine", serving.url, "--force", env=world.env)
        assert ran.returncode == 1, ran
        assert is_one_line(ran.stderr)
        assert says in ran.stderr
        assert serving.complete(RIGHT) == before


def test_a_wake_that_fails_is_exit_5(tool: Tool, drivers: Drivers, tmp_path: Path, model: Path) -> None:
    world = fake(drivers, tmp_path, "fail-on-wake")
    with world.serving(model, tcp=True) as serving:
        assert tool("suspend", "--engine", serving.url, "--force", env=world.env).returncode == 0
        ran = tool("resume", "--engine", serving.url, env=world.env)
        assert ran.returncode == 5, ran
        assert f"process {serving.process.pid}" in ran.stderr
        assert "restart it" in ran.stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("suspend",), 2, "either a process by PID or an engine"),
        (("resume",), 2, "either a process by PID or an engine"),
        (("suspend", "1", "--engine", "unix:/s"), 2, "either a process by PID or an engine"),
        (("suspend", "--engine", "ftp://127.0.0.1"), 2, "--engine ftp://127.0.0.1"),
        (("suspend", "--engine", "http://192.0.2.1:8000"), 1, "is not this machine"),
        (("resume", "--engine", "unix:/no/such/socket"), 1, "no process listens on /no/such/socket"),
    ],
)
def test_bad_words_are_one_line(tool: Tool, words: tuple[str, ...], code: int, says: str) -> None:
    ran = tool(*words)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert is_one_line(ran.stderr)
    assert says in ran.stderr


def test_what_is_no_vllm_is_refused(tool: Tool, tmp_path: Path) -> None:
    del tmp_path
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        ran = tool("suspend", "--engine", f"http://127.0.0.1:{port}")
        assert ran.returncode == 1
        assert is_one_line(ran.stderr)
        assert "started this very command" in ran.stderr


@pytest.mark.parametrize(
    ("point", "says"),
    [
        (("runtime.engines:drained", "after"), "its engine was woken and serves again"),
        (("runtime.engines:slept", "after"), "its engine was woken and serves again"),
        (("control.checkpointer:Checkpointer.lock", "after"), "its engine was woken and serves again"),
        (("runtime.sleeping_first:done", "before"), "is suspended: only the report of it was broken off"),
    ],
)
def test_killed_on_the_way_down_the_next_command_wakes_it(
    tool: Tool, environment: dict[str, str], served: Served, point: tuple[str, str], says: str
) -> None:
    env, serving = served
    before = serving.complete(RIGHT)
    assert killed(environment | env, *point, "suspend", "--engine", serving.url, "--force") == -signal.SIGKILL
    up = tool("resume", "--engine", serving.url, env=env)
    assert up.returncode == 0, up
    assert says in up.stderr
    assert serving.complete(RIGHT) == before


@pytest.mark.parametrize(
    "point",
    [
        ("control.checkpointer:Checkpointer.restore", "after"),
        ("runtime.engines:woken", "before"),
        ("runtime.engines:woken", "after"),
    ],
)
def test_killed_on_the_way_up_the_next_command_finishes_it(
    tool: Tool, environment: dict[str, str], served: Served, point: tuple[str, str]
) -> None:
    env, serving = served
    before = serving.complete(RIGHT)
    assert tool("suspend", "--engine", serving.url, "--force", env=env).returncode == 0
    assert killed(environment | env, *point, "resume", "--engine", serving.url) == -signal.SIGKILL
    up = tool("resume", "--engine", serving.url, env=env)
    assert up.returncode == 0, up
    assert "its engine was woken and serves again" in up.stderr
    assert "there is nothing to resume; its engine serves" in up.stdout
    assert serving.complete(RIGHT) == before


def killed(env: dict[str, str], *words: str) -> int:
    """The tool, dead at one point; how it ended."""
    command = [sys.executable, str(KILLED), *words]
    return subprocess.run(command, env=env, capture_output=True, check=False, timeout=60).returncode
