"""The program cuda-checkpoint against a stand-in driver: what CRIU's plugin and its other callers rely on."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from plugin_cycle import Cycle

from conftest import CI
from leftovers import until
from standins import Drivers, compilers
from warmspare.control import cuda_abi as abi
from warmspare.control.process import ready
from warmspare.runtime import cuda_checkpoint, shim

pytestmark = pytest.mark.skipif(not compilers() and not CI, reason="needs a C compiler, or the wheel ziglang")
PLUGIN_READS: Final = 127
"""Bytes of both streams together that CRIU's plugin reads. Source: CUDA_CKPT_BUF_SIZE, plugins/cuda."""
NO_PROCESS: Final = 2**22 + 1
"""Above the highest process id that Linux gives."""
NOT_CUDA: Final = "cuda-checkpoint: cuCheckpointProcessGetRestoreThreadId: 3 CUDA_ERROR_NOT_INITIALIZED\n"
Said = tuple[int, str, str]


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    return Drivers(tmp_path_factory.mktemp("standins"))


@contextlib.contextmanager
def held(drivers: Drivers, folder: Path, *plan: str, lacks: tuple[str, ...] = ()) -> Iterator[Cycle]:
    """A process with GPU memory in a world with this plan, and the program."""
    cycle = Cycle(folder, drivers.world(folder.name, *plan, lacks=lacks))
    try:
        cycle.begin()
        yield cycle
    finally:
        cycle.end()


@pytest.fixture
def cycle(drivers: Drivers, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cycle]:
    with held(drivers, tmp_path, *getattr(request, "param", ())) as one:
        yield one


def said(cycle: Cycle, *words: str, pid: int | None = None) -> Said:
    """Exit status, stdout and stderr of one run, which the plugin reads whole."""
    command = [str(cycle.program), *words, "--pid", str(pid or cycle.pid)]
    ran = subprocess.run(command, env=cycle.env, capture_output=True, text=True, timeout=30, check=False)
    assert len(ran.stdout + ran.stderr) <= PLUGIN_READS
    return ran.returncode, ran.stdout, ran.stderr


def state(cycle: Cycle) -> str:
    status, out, err = said(cycle, "--get-state")
    assert (status, err, out[-1:]) == (0, "", "\n")
    return out.strip()


def refused(call: str, code: int) -> Said:
    """What is said of a call that the driver refused."""
    return 1, "", f"cuda-checkpoint: {call}: {code} {abi.RESULTS[code]}\n"


def test_each_action_leaves_its_state_and_the_memory_survives(cycle: Cycle) -> None:
    states = [state(cycle)]
    for action in ("lock", "checkpoint", "restore", "unlock"):
        assert said(cycle, "--action", action) == (0, "", "")
        states.append(state(cycle))
    assert states == ["running", "locked", "checkpointed", "locked", "running"]
    assert cycle.turn() == "turn 1 right"


def test_the_restore_thread_is_one_of_its_threads_and_tells_the_state_too(cycle: Cycle) -> None:
    status, out, err = said(cycle, "--get-restore-tid")
    assert (status, err) == (0, "")
    assert re.fullmatch(r"\d+\n", out)
    assert Path(f"/proc/{cycle.pid}/task/{out.strip()}").exists()
    assert said(cycle, "--get-state", pid=int(out)) == (0, "running\n", "")


def test_a_toggle_whose_checkpoint_only_says_that_it_is_done_leaves_no_locked_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = {"state": 0}

    def call(_driver: object, what: str, _request: object) -> int:
        now["state"] = {"lock": 1, "unlock": 0}.get(what, now["state"])
        return now["state"]

    monkeypatch.setattr(cuda_checkpoint, "call", call)
    monkeypatch.setattr(cuda_checkpoint, "Driver", lambda **_: None)
    with pytest.raises(cuda_checkpoint.Refused, match=r"is locked$"):
        cuda_checkpoint.carried_out(cuda_checkpoint.Asked("toggle", 5, 0))
    assert now["state"] == 0


def test_toggle_suspends_and_resumes(cycle: Cycle) -> None:
    assert said(cycle, "--toggle") == (0, "", "")
    assert state(cycle) == "checkpointed"
    assert said(cycle, "--toggle") == (0, "", "")
    assert state(cycle) == "running"
    assert cycle.turn() == "turn 1 right"


def test_a_wrong_state_is_refused_with_the_drivers_own_number(cycle: Cycle) -> None:
    for action, call in (("checkpoint", "Checkpoint"), ("restore", "Restore"), ("unlock", "Unlock")):
        assert said(cycle, "--action", action) == refused(f"cuCheckpointProcess{call}", abi.ILLEGAL_STATE)
    assert said(cycle, "--action", "lock") == (0, "", "")
    assert said(cycle, "--action", "lock") == refused("cuCheckpointProcessLock", abi.ILLEGAL_STATE)
    told = f"cuda-checkpoint: toggle: process {cycle.pid} is locked, neither running nor checkpointed\n"
    assert said(cycle, "--toggle") == (1, "", told)
    assert state(cycle) == "locked"


def test_a_process_without_cuda_and_none_at_all_give_no_thread(cycle: Cycle) -> None:
    with subprocess.Popen(["cat"], stdin=-1) as other:
        assert said(cycle, "--get-restore-tid", pid=other.pid) == (1, "", NOT_CUDA)
        assert said(cycle, "--action", "lock", pid=other.pid)[:2] == (1, "")
        assert other.poll() is None
    call = "cuCheckpointProcessGetState"
    assert said(cycle, "--get-state", pid=NO_PROCESS) == refused(call, abi.OPERATING_SYSTEM)


@pytest.mark.parametrize("cycle", [("checkpoint target nth1: returns 801",)], indirect=True)
def test_a_toggle_that_cannot_end_is_undone(cycle: Cycle) -> None:
    assert said(cycle, "--toggle") == refused("cuCheckpointProcessCheckpoint", abi.NOT_SUPPORTED)
    assert state(cycle) == "running"
    assert cycle.turn() == "turn 1 right"


@pytest.mark.parametrize("cycle", [("state locked nth1: gives 3",)], indirect=True)
def test_a_call_that_only_says_that_it_was_done_is_told(cycle: Cycle) -> None:
    told = f"cuda-checkpoint: cuCheckpointProcessLock: 0 CUDA_SUCCESS, and process {cycle.pid} is failed\n"
    assert said(cycle, "--action", "lock") == (1, "", told)


@pytest.mark.parametrize("cycle", [("state running nth1: gives 77",)], indirect=True)
def test_a_state_of_a_newer_driver_is_told_by_its_number(cycle: Cycle) -> None:
    told = "cuda-checkpoint: cuCheckpointProcessGetState: state 77, which is not known here\n"
    assert said(cycle, "--get-state") == (1, "", told)


@pytest.mark.parametrize("cycle", [("cuCheckpointProcessLock nth1: hangs",)], indirect=True)
def test_a_lock_that_hangs_ends_by_its_time_limit(cycle: Cycle) -> None:
    # The program as it is, but for how long it waits beyond the limit.
    program = "from warmspare.runtime import cuda_checkpoint as it; it.BEYOND_S = 0.5; it.main()"
    command = [sys.executable, "-c", program, "--action", "lock", "--pid", str(cycle.pid), "--timeout", "1000"]
    begun = time.monotonic()
    ran = subprocess.run(command, env=cycle.env, capture_output=True, text=True, timeout=30, check=False)
    assert time.monotonic() - begun > 1.4
    told = f"cuda-checkpoint: lock: no answer in 1.5 s; ask the state of {cycle.pid}\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", told)
    assert state(cycle) == "running"


@pytest.mark.parametrize("cycle", [("cuCheckpointProcessCheckpoint nth1: crashes",)], indirect=True)
def test_a_driver_that_crashes_its_caller_is_told(cycle: Cycle) -> None:
    assert said(cycle, "--action", "lock") == (0, "", "")
    status, out, err = said(cycle, "--action", "checkpoint")
    assert (status, out) == (1, "")
    assert re.fullmatch(
        rf"cuda-checkpoint: checkpoint: its caller ended, signal \d+; ask the state of {cycle.pid}\n", err
    )
    assert state(cycle) == "locked"


@pytest.mark.parametrize("cycle", [("cuCheckpointProcessLock nth1: hangs",)], indirect=True)
def test_one_that_is_killed_takes_its_call_with_it(cycle: Cycle) -> None:
    command = [str(cycle.program), "--action", "lock", "--pid", str(cycle.pid)]
    with subprocess.Popen(command, env=cycle.env, stdout=-1) as asking:
        task = Path(f"/proc/{asking.pid}/task/{asking.pid}/children")
        assert until(task.read_text)
        (caller,) = map(int, task.read_text().split())
        descriptor = os.pidfd_open(caller)
        asking.send_signal(signal.SIGKILL)  # as CRIU's plugin does at its time limit
        assert asking.stdout
        assert asking.stdout.read() == b""  # at once: nobody else holds the pipe
    assert ready([descriptor], 15), "it has not ended"
    os.close(descriptor)


@pytest.mark.parametrize("plan", [(), ("cuInit: returns 999",)])
def test_only_a_restore_initialises_cuda(plan: tuple[str, ...], drivers: Drivers, tmp_path: Path) -> None:
    with held(drivers, tmp_path) as cycle:
        world = Path(cycle.env["LD_LIBRARY_PATH"].split(":")[0])
        (world / "plan").write_text("".join(f"{line}\n" for line in plan))
        assert said(cycle, "--action", "lock")[0] == 0
        assert said(cycle, "--action", "checkpoint")[0] == 0
        assert state(cycle) == "checkpointed"
        assert said(cycle, "--action", "restore") == (refused("cuInit", 999) if plan else (0, "", ""))


def test_a_driver_without_the_calls_and_no_driver_at_all(drivers: Drivers, tmp_path: Path) -> None:
    call = "cuCheckpointProcessGetRestoreThreadId"
    shim.install(tmp_path)
    command = [str(tmp_path / "cuda-checkpoint"), "--get-restore-tid", "--pid", str(os.getpid())]
    for world, told in (
        (drivers.world("lacking", lacks=(call,)), f"cuda-checkpoint: {call}: MISSING_SYMBOL\n"),
        (drivers.world("none", cuda=None), "cuda-checkpoint: dlopen: NO_LIBRARY (libcuda.so.1: "),
    ):
        env = {**os.environ, **world}
        ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
        assert (ran.returncode, ran.stdout) == (1, "")
        assert ran.stderr.startswith(told)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--pid", "1"),
        ("--get-state",),
        ("--get-state", "--pid", "0"),
        ("--get-state", "--pid", "-1"),
        ("--get-state", "--pid", "one"),
        ("--get-state", "--pid", "٣"),
        ("--get-state", "--pid", str(2**31)),
        ("--get-state", "--toggle", "--pid", "1"),
        ("--action", "kill", "--pid", "1"),
        ("--action", "lock", "--pid", "1", "--timeout", "soon"),
        ("--get-s", "--pid", "1"),
        ("--get-state", "--pid", "1", "2"),
    ],
)
def test_words_that_mean_nothing_are_a_usage_error(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cuda_checkpoint.parsed(words)
    assert ended.value.code == 2
    assert "usage: cuda-checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "deadline_s"),
    [
        (("--get-state",), 5),
        (("--get-restore-tid",), 5),
        (("--action", "lock", "--timeout", "10000"), 15),
        (("--action", "lock"), 600),
        (("--action", "lock", "--timeout", "0"), 600),
        (("--action", "unlock", "--timeout", "10"), 600),
        (("--toggle", "--timeout", "10"), 600),
    ],
)
def test_every_call_has_a_deadline(words: tuple[str, ...], deadline_s: float) -> None:
    assert cuda_checkpoint.parsed([*words, "--pid", "1"]).deadline_s == deadline_s
