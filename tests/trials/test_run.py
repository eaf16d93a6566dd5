"""The mechanism of trials, whatever they try: outcomes, absences, steps, clean-up, what a child is given."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest
import tiny_trials
from tiny_trials import Tiny

from leftovers import MARK, Corner, environ, until
from warmspare.control import process
from warmspare.model.facts import Absent, Cause, Known, Outcome, Proof, Reading, Standing
from warmspare.trials import leftover
from warmspare.trials.api import StepEvent, Trial, at_place
from warmspare.trials.run import Run, run


@pytest.fixture
def corner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Corner]:
    corner = Corner(tmp_path / "scratch")
    path = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    for name, value in {**corner.env, "PYTHONPATH": os.pathsep.join(path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", str(corner.scratch))
    yield corner
    assert corner.left_in_the_end() == {}


def trial(name: str) -> Trial:
    return at_place(f"{tiny_trials.__name__}:{name}")


REFUSED: Final = Outcome(
    kind="refused", step="pull", code="217 CUDA_ERROR_PEER_ACCESS_UNSUPPORTED", detail="cuCtxEnablePeerAccess"
)


def tried(name: str, told: list[StepEvent] | None = None) -> Run:
    return run(trial(name), (told if told is not None else []).append)


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("works", Outcome(kind="done")),
        ("refuses", Outcome(kind="refused", step="pull", code="EBUSY", detail="it is in use")),
        ("is_wrong", Outcome(kind="wrong", step="pull", detail="it said it did")),
        ("hangs", Outcome(kind="hung", step="pull", detail="no end within 1 s")),
        ("hangs_between", Outcome(kind="hung", step="pull", detail="no end within 1 s")),
        ("hangs_up", Outcome(kind="hung", step="pull", detail="no end within 1 s")),
        ("waits_for_a_stubborn_child", Outcome(kind="hung", step="pull", detail="no end within 1 s")),
        ("dies", Outcome(kind="died", step="pull", code="signal 9")),
        ("dies_at_prepare_after_a_lever", Outcome(kind="died", step="pull", code="signal 9")),
        ("dies_leaving_a_daemon", Outcome(kind="died", step="pull", code="signal 9")),
        ("exits", Outcome(kind="died", step="pull", code="exit 7")),
        ("quits", Outcome(kind="died", step="pull", code="exit 0")),
        ("raises", Outcome(kind="died", step="pull", code="RuntimeError", detail="no such luck")),
        (
            "raises_what_the_system_said",
            Outcome(kind="died", step="pull", code="ENOSPC", detail="[Errno 28] No space left on device"),
        ),
        ("is_refused", REFUSED),
        ("is_refused_between", REFUSED),
        ("leaves_a_daemon", Outcome(kind="done")),
        ("is_loud", Outcome(kind="done")),
    ],
)
def test_after_a_lever_every_end_is_an_outcome(corner: Corner, name: str, outcome: Outcome) -> None:
    ended = tried(name)
    assert isinstance(ended.reading, Known)
    assert ended.reading.value.outcome == outcome
    assert ended.reading.standing is Standing.TRIED
    assert ended.left == ()
    assert corner.left() == {}  # at once: run() returns when all is cleared away


@pytest.mark.parametrize(
    ("name", "cause", "detail"),
    [
        ("not_tried", Cause.SKIPPED, "the GPU is busy"),
        ("hangs_early", Cause.TIMEOUT, "hung at get set, before any lever was pulled"),
        ("dies_early", Cause.CRASHED, "died at get set, before any lever was pulled"),
        (
            "is_refused_early",
            Cause.DENIED,
            "cuCtxEnablePeerAccess: 217 CUDA_ERROR_PEER_ACCESS_UNSUPPORTED",
        ),
        ("raises_early", Cause.CRASHED, "RuntimeError: no such luck"),
        ("no_proof", Cause.INVALID, "not a proof: Expected `str`, got `int` - at `$.seen[0]`"),
    ],
)
def test_before_a_lever_and_without_a_proof_there_is_no_fact(
    corner: Corner, name: str, cause: Cause, detail: str
) -> None:
    assert tried(name) == Run({"tiny": Absent(cause=cause, detail=detail)}, ())
    assert corner.left() == {}


@pytest.mark.usefixtures("corner")
@pytest.mark.parametrize(
    ("ends", "second", "third"),
    [
        ("well", "done", "done"),
        ("refused", "refused at pull the second", "done"),
        ("unready", "skipped: not today", "done"),
        ("skipped", "skipped: not asked for", "done"),
        ("broken", "crashed: RuntimeError: no such luck", "done"),
        ("dies", "died at pull the second", "crashed: not reached: died before"),
        ("dies early", "crashed: died at get ready, before any lever was pulled", "crashed: not reached: died before"),
        ("hangs", "hung at pull the second", "timeout: not reached: hung before"),
        ("between", "done", "crashed: RuntimeError: between the parts"),
        ("refused between", "done", "denied: cuCtxEnablePeerAccess: 217 CUDA_ERROR_PEER_ACCESS_UNSUPPORTED"),
        ("stops", "done", "crashed: the trial came to its end without trying it"),
    ],
)
def test_each_part_of_a_trial_has_a_reading_of_its_own(ends: str, second: str, third: str) -> None:
    one = msgspec.structs.replace(trial("has_parts"), deadline_s=1 if ends == "hangs" else 30)
    ended = run(one, lambda _: None, tiny_trials.Things((ends,)))
    assert list(ended.readings) == ["tiny", "second", "third"]
    assert [in_words(reading) for reading in ended.readings.values()] == ["done", second, third]
    assert ended.left == ()


def in_words(reading: Reading[Proof]) -> str:
    if isinstance(reading, Absent):
        return f"{reading.cause}: {reading.detail}"
    outcome = reading.value.outcome
    return outcome.kind if outcome.step is None else f"{outcome.kind} at {outcome.step}"


@pytest.mark.usefixtures("corner")
def test_a_trial_gets_what_it_is_given() -> None:
    things = tiny_trials.Things(("a GPU", "its peer → there"))
    reading = run(trial("takes"), lambda _: None, things).reading
    assert isinstance(reading, Known)
    assert reading.value == Tiny(outcome=Outcome(kind="done"), seen=things.names)


@pytest.mark.usefixtures("corner")
def test_steps_are_told_as_they_begin_and_end_with_their_times() -> None:
    told: list[StepEvent] = []
    reading = tried("works", told).reading
    assert [(event.name, event.lever, event.took_s is None) for event in told] == [
        ("get ready", False, True),
        ("get ready", False, False),
        ("pull", True, True),
        ("pull", True, False),
    ]
    assert isinstance(reading, Known)
    assert isinstance(reading.value, Tiny)
    assert reading.value.seen == tuple(f"{event.name} {event.took_s}" for event in told if event.took_s is not None)


@pytest.mark.usefixtures("corner")
def test_the_environment_is_handed_on_whole_and_only_the_token_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/of/the/user")
    reading = tried("sees").reading
    assert isinstance(reading, Known)
    assert isinstance(reading.value, Tiny)
    given = {entry for entry in reading.value.seen if not entry.startswith(("/", "pipe:"))}
    added = given - {f"{name}={value}" for name, value in os.environ.items()}
    assert {entry.partition("=")[0] for entry in added} == {process.TAG}
    assert given - added == {f"{name}={value}" for name, value in os.environ.items()}


@pytest.mark.usefixtures("corner")
def test_a_trial_holds_nothing_of_the_keepers_but_one_pipe() -> None:
    reading = tried("sees").reading
    assert isinstance(reading, Known)
    assert isinstance(reading.value, Tiny)
    held = [entry for entry in reading.value.seen if entry.startswith(("/", "pipe:"))]
    assert sorted(entry.partition(":")[0] for entry in held) == ["/dev/null"] * 3 + ["pipe"]


def test_a_loud_trial_does_not_wait_for_a_reader_of_our_output(corner: Corner) -> None:
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import tiny_trials;"
    code += " from warmspare.trials import api, run;"
    code += " print(run.run(api.at_place('tiny_trials:is_loud'), id).reading.value.outcome.kind)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1) as tool:  # nobody reads its stderr
        assert tool.stdout
        assert tool.stdout.read() == b"done\n"
    assert corner.left() == {}


def test_a_keeper_that_cannot_find_its_trial_is_an_absence(corner: Corner, capfd: pytest.CaptureFixture[str]) -> None:
    lost = msgspec.structs.replace(trial("works"), name="not_there")
    reading = run(lost, lambda _: None).reading
    assert reading == Absent(cause=Cause.CRASHED, detail="the keeper of the trial died at the start")
    assert "not_there" in capfd.readouterr().err
    assert corner.left() == {}


class Stopped(KeyboardInterrupt):
    """What a signal raises in the tool."""


def test_an_exception_in_the_tool_cancels_the_trial_and_waits_for_the_end(corner: Corner) -> None:
    def stop(_: StepEvent) -> None:
        assert corner.processes()
        raise Stopped

    before = time.monotonic()
    with pytest.raises(Stopped):
        run(msgspec.structs.replace(trial("hangs"), deadline_s=100), stop)
    assert corner.left() == {}
    assert time.monotonic() - before < 50


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_keeper_that_is_signalled_leaves_nothing(corner: Corner, number: signal.Signals) -> None:
    def end_the_keeper(_: StepEvent) -> None:
        (keeper,) = (pid for pid in process.children(os.getpid()) if f"{MARK}={corner.mark}".encode() in environ(pid))
        os.kill(keeper, number)

    ended = run(msgspec.structs.replace(trial("hangs"), deadline_s=100), end_the_keeper)
    expected = {signal.SIGKILL: (Cause.CRASHED, "the keeper of the trial died at pull")}
    cause, detail = expected.get(number, (Cause.SKIPPED, "cancelled at pull"))
    assert ended == Run({"tiny": Absent(cause=cause, detail=detail)}, ())
    assert corner.left() == {}


def test_a_stale_folder_is_swept_with_its_processes_and_a_locked_one_is_not(corner: Corner) -> None:
    token = secrets.token_hex(8)  # processes are found by it in all of the machine
    stale = corner.scratch / f"{leftover.PREFIX}{token}-left"
    (stale / "deep").mkdir(parents=True)
    with subprocess.Popen(["/bin/sleep", "600"], env={**os.environ, process.TAG: token}) as left_over:
        assert until(lambda: process.tagged(token))  # its environment is seen a little later than its program
        with leftover.scratch_folder(secrets.token_hex(8)) as locked:
            assert leftover.sweep_stale() == []
            assert stale.exists()  # so young, it may be one whose keeper is just about to lock it
            os.utime(stale, (0, 0))
            assert leftover.sweep_stale() == []
            assert (stale.exists(), locked.exists()) == (False, True)
        assert process.started(left_over.pid) is None
    assert not locked.exists()


def test_links_and_files_with_a_trials_name_are_not_followed_or_removed(corner: Corner, tmp_path: Path) -> None:
    (tmp_path / "precious" / "thing").mkdir(parents=True)
    link, file = (corner.scratch / f"{leftover.PREFIX}{name}-x" for name in ("link", "file"))
    link.symlink_to(tmp_path / "precious")
    file.touch()
    assert leftover.sweep_stale() == []
    assert (tmp_path / "precious" / "thing").exists()
    assert link.is_symlink()
    link.unlink()
    file.unlink()


def test_until_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leftovers.PATIENCE_S", 0.05)
    assert not until(lambda: False)


@pytest.mark.usefixtures("corner")
def test_where_memory_ends_the_trial_goes_first_and_whoever_ran_it_does_not() -> None:
    ours = Path("/proc/self/oom_score_adj").read_text(encoding="ascii")
    ended = tried("tells_its_score")
    assert isinstance(ended.reading, Known), ended
    assert ended.reading.value == Tiny(outcome=Outcome(kind="done"), seen=("1000", "1000"))
    assert Path("/proc/self/oom_score_adj").read_text(encoding="ascii") == ours


def test_a_score_that_cannot_be_raised_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "OOM_SCORE", tmp_path)  # a folder: cannot be written
    process.die_first()
