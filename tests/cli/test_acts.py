"""`warmspare ps`, `suspend`, `resume` and `move` as their user runs them, over the stand-in driver."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import CI, Tool
from standins import Drivers, compilers, gpu_ids
from worlds import NOBODY, as_nobody, in_world, is_one_line, reachable

sys.path.append(str(Path(__file__).parent.parent / "control"))
import checkpoint_scenes as scenes  # beside its own tests
from checkpoint_players import Player

pytestmark = pytest.mark.skipif(not compilers() and not CI, reason="needs a C compiler, or the wheel ziglang")
GPU0, GPU1, *_ = gpu_ids()
World = Callable[..., dict[str, str]]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    return Drivers(tmp_path_factory.mktemp("standins"))


@pytest.fixture
def world(drivers: Drivers, tmp_path: Path) -> World:
    return lambda *plan, **more: drivers.world(tmp_path.name, *plan, **more)


def listed(tool: Tool, env: dict[str, str]) -> dict[str, Any]:
    """What ps shows."""
    return json.loads(tool("ps", "--json", env=env).stdout)  # type: ignore[no-any-return]


def state(tool: Tool, env: dict[str, str], pid: int) -> str:
    """The driver's state of a process, as ps shows it."""
    return next(str(one["state"]) for one in listed(tool, env)["processes"] if one["pid"] == pid)


def test_a_cycle_and_a_move_keep_every_byte(tool: Tool, world: World) -> None:
    env = world()
    with Player(env, scenes.target) as target:
        pid = str(target.pid)
        down = tool("suspend", pid, "--force", env=env)
        assert (down.returncode, down.stderr) == (0, "")
        assert "freed, by NVML" in down.stdout
        assert f"`warmspare resume {pid}`" in down.stdout
        assert state(tool, env, target.pid) == "checkpointed"
        assert "suspended already" in tool("suspend", pid, env=env).stdout
        up = tool("resume", pid, env=env)
        assert (up.returncode, up.stderr) == (0, "")
        assert target("check") == [0, 0, 0]
        moved = tool("move", pid, "--to", GPU1, "--force", env=env)
        assert (moved.returncode, moved.stderr) == (0, "")
        assert "from gpu0 to gpu1" in moved.stdout
        assert target("check") == [0, 0, 0]
        (one,) = [one for one in listed(tool, env)["processes"] if one["pid"] == target.pid]
        assert (one["state"], one["chance"], list(one["vram_mib"])) == ("running", "unknown", ["gpu1"])


def test_without_a_proof_the_trial_is_run_first_and_its_proof_kept(tool: Tool, world: World) -> None:
    env = world()
    with Player(env, scenes.target) as target:
        first = tool("suspend", str(target.pid), env=env, timeout=110)
        assert first.returncode == 0, first.stderr
        assert "trying gpu_suspend" in first.stderr
        assert tool("resume", str(target.pid), env=env).returncode == 0
        again = tool("suspend", str(target.pid), env=env)
        assert (again.returncode, again.stderr) == (0, "")


def test_where_the_trial_fails_nothing_is_touched(tool: Tool, world: World) -> None:
    env = world("restore target *: returns 801")
    with Player(env, scenes.target) as target:
        ran = tool("suspend", str(target.pid), env=env, timeout=110)
        assert ran.returncode == 1
        assert "this machine was seen to fail at it on gpu0 (gpu_suspend: refused at restore" in ran.stderr
        assert "--force does it all the same" in ran.stderr
        assert target("check") == [0, 0, 0]
        assert state(tool, env, target.pid) == "running"


@pytest.mark.parametrize(
    ("plan", "code", "says"),
    [
        ("checkpoint target nth1: returns 2", 1, "the host has too little memory"),
        ("checkpoint target nth1: crashes", 5, "has ended"),
        ("cuCheckpointProcessCheckpoint nth1: crashes", 1, "died"),
    ],
)
def test_a_suspend_that_fails_says_what_became_of_it(tool: Tool, world: World, plan: str, code: int, says: str) -> None:
    env = world(plan)
    with Player(env, scenes.target) as target:
        ran = tool("suspend", str(target.pid), "--force", env=env)
        assert ran.returncode == code, ran.stderr
        assert is_one_line(ran.stderr)
        assert says in ran.stderr
        if code == 1:
            assert target("check") == [0, 0, 0]
        else:
            assert f"process {target.pid}" in ran.stderr


def test_a_lost_process_is_named_with_exit_5(tool: Tool, world: World) -> None:
    env = world()
    with Player(env, scenes.peers, "enabled", "memory") as target:
        predicted = tool("suspend", str(target.pid), env=env)
        assert predicted.returncode == 1
        assert "holds memory on 2 GPUs" in predicted.stderr
        assert tool("suspend", str(target.pid), "--force", env=env).returncode == 0
        lost = tool("resume", str(target.pid), env=env)
        assert lost.returncode == 5
        assert f"process {target.pid} " in lost.stderr
        assert any(word in lost.stderr for word in ("is lost", "is stranded"))


def test_a_controller_killed_in_the_restore_is_cleared_up_after(
    tool: Tool, world: World, environment: dict[str, str]
) -> None:
    env = world("cuCheckpointProcessRestore done nth1: hangs")
    with Player(env, scenes.target) as target:
        pid = str(target.pid)
        assert tool("suspend", pid, "--force", env=env).returncode == 0
        command = [sys.executable, "-m", "warmspare", "resume", pid]
        with subprocess.Popen(command, env={**environment, **env}, stderr=subprocess.DEVNULL) as controller:
            while state(tool, env, target.pid) == "checkpointed":
                assert controller.poll() is None
            controller.kill()
        (left,) = listed(tool, env)["operations"]
        assert (left["kind"], left["action"], left["command"]) == ("interrupted", "resume", f"warmspare resume {pid}")
        after = tool("resume", pid, env=env)
        assert after.returncode == 0
        assert "runs: its resume was finished" in after.stderr
        assert "there is nothing to resume" in after.stdout
        assert target("check") == [0, 0, 0]
        assert not listed(tool, env)["operations"]


def test_ctrl_c_undoes_it_and_says_so(tool: Tool, world: World, environment: dict[str, str]) -> None:
    env = world()
    with Player(env, scenes.target) as target:
        target("hold")  # a lock waits for the work that is under way
        command = [sys.executable, "-m", "warmspare", "suspend", str(target.pid), "--force", "--timeout", "30"]
        with subprocess.Popen(command, env={**environment, **env}, stderr=subprocess.PIPE, text=True) as controller:
            while not any(one["kind"] == "under way" for one in listed(tool, env)["operations"]):
                assert controller.poll() is None
            controller.send_signal(signal.SIGINT)
            assert controller.stderr
            assert "stopping once the driver has answered" in controller.stderr.readline()
            target("let_go")
            said = controller.communicate(timeout=60)[1]
        assert controller.returncode == 128 + signal.SIGINT, said
        assert "runs on: stopped by SIGINT" in said
        assert target("check") == [0, 0, 0]
        assert not listed(tool, env)["operations"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("suspend",), 2),
        (("suspend", "x"), 2),
        (("suspend", "0"), 2),
        (("suspend", "-1"), 2),
        (("resume", "4194305"), 2),
        (("suspend", "1", "--timeout", "0"), 2),
        (("suspend", "1", "--timeout", "nan"), 2),
        (("move", "1"), 2),
        (("suspend", "4194304"), 1),
        (("resume", "4194304"), 1),
        (("move", "4194304", "--to", "gpu0"), 1),
        (("suspend", str(os.getpid())), 1),
        (("ps", "x"), 2),
    ],
)
def test_bad_words_are_one_line_and_the_designed_code(tool: Tool, words: tuple[str, ...], code: int) -> None:
    ran = tool(*words)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert is_one_line(ran.stderr)


def test_a_journal_that_is_not_ours_alone_is_refused(tool: Tool, environment: dict[str, str]) -> None:
    folder = Path(environment["WARMSPARE_STATE_DIR"])
    folder.mkdir()
    folder.chmod(0o777)
    ran = tool("suspend", "4194304")
    assert ran.returncode == 1
    assert "not a folder of ours alone" in ran.stderr
    assert tool("ps").returncode == 0


def test_ps_without_a_driver_shows_none(tool: Tool) -> None:
    assert tool("ps").stdout.splitlines()[0]
    assert tool("ps", "--json").returncode == 0


@pytest.mark.root
def test_an_ordinary_user_suspends_his_own_and_no_others(world: World, environment: dict[str, str]) -> None:
    env = world()
    ours = Path(env["LD_LIBRARY_PATH"].split(os.pathsep)[0])
    with tempfile.TemporaryDirectory() as everybodys:
        folder = Path(everybodys)
        folder.chmod(0o755)
        shutil.copytree(ours, folder / "world")
        for name in ("world", "state"):
            (folder / name).mkdir(mode=0o700, exist_ok=True)
            os.chown(folder / name, NOBODY, NOBODY)
        (folder / "state").chmod(0o700)
        (folder / "world").chmod(0o777)
        suspends_his_own(folder, {**environment, "LD_LIBRARY_PATH": str(folder / "world")})


def suspends_his_own(folder: Path, env: dict[str, str]) -> None:
    """A user without privileges, in a world of his own."""
    mine = {**env, "WARMSPARE_STATE_DIR": str(folder / "state"), "HOME": str(folder / "state")}
    tests = os.pathsep.join((str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")))
    script = f"""
{sys.executable} {scenes.__file__} target < {folder}/in > {folder}/out & pid=$!
exec 3> {folder}/in
read -r ready < {folder}/out
{sys.executable} -m warmspare suspend --force $pid && {sys.executable} -m warmspare resume $pid; code=$?
kill -9 $pid
exit $code
"""
    os.mkfifo(folder / "in")
    os.mkfifo(folder / "out")
    for pipe in ("in", "out"):
        os.chown(folder / pipe, NOBODY, NOBODY)
    ran = in_world(reachable(), *as_nobody("sh", "-c", script), env={**mine, "PYTHONPATH": tests})
    assert ran.returncode == 0, ran.stderr
    assert "freed, by NVML" in ran.stdout
    assert "resumed process" in ran.stdout
    with Player(env, scenes.target) as roots:
        refused = in_world(
            reachable(), *as_nobody(sys.executable, "-m", "warmspare", "suspend", "--force", str(roots.pid)), env=mine
        )
        assert refused.returncode == 1
        assert "belongs to user 0, and you may not act on it" in refused.stderr
