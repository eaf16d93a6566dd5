"""Each part of the trial of Sleep Mode on the fake engine: healthy, and in each known way of going wrong."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import sleep_part_trial
from gpu_world import gpu
from sleep_part_trial import Afterwards, OnePart

from engines import Fake
from leftovers import Corner
from standins import Drivers
from warmspare.model.facts import Absent, Known, Proof, fact_name
from warmspare.trials.api import at_place
from warmspare.trials.engine_given import EngineHost
from warmspare.trials.given import EngineAsk
from warmspare.trials.run import run
from warmspare.trials.sleeping.asleep import RequestAsleep
from warmspare.trials.sleeping.honesty import SleepHonesty
from warmspare.trials.sleeping.in_flight import LONG, RequestInFlight
from warmspare.trials.sleeping.level_2 import SleepLevel2
from warmspare.trials.sleeping.no_room import WakeWithoutRoom
from warmspare.trials.sleeping.parallel import SleepDataParallel, SleepTensorParallel
from warmspare.trials.sleeping.repeated import SleepRepeated
from warmspare.trials.sleeping.stopped import EngineStop
from warmspare.trials.sleeping.turns import EnginesTakeTurns

P = TypeVar("P", bound=Proof)
Tried = Callable[..., P]
TRIAL = at_place(f"{sleep_part_trial.__name__}:one_part")


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    """One build of the stand-ins for all of these."""
    return Drivers(tmp_path_factory.mktemp("drivers"))


class Place:
    """Where parts are tried."""

    def __init__(self, drivers: Drivers, folder: Path, patch: pytest.MonkeyPatch) -> None:
        """Nothing is there yet."""
        self.corner = Corner(folder / "scratch")
        self._drivers, self._folder, self._patch = drivers, folder, patch

    def __call__(self, proof: type[P], *plan: str, gpus: int = 1, wsl2: bool = False) -> tuple[P, Afterwards | None]:
        """The proof of this part on an engine that goes by this plan."""
        seen, afterwards = self.seen(proof, *plan, gpus=gpus, wsl2=wsl2)
        assert isinstance(seen, proof), seen
        return seen, afterwards

    def seen(
        self, proof: type[P], *plan: str, gpus: int = 1, wsl2: bool = False, mib_before: int | None = None
    ) -> tuple[Proof | Absent, Afterwards | None]:
        """The same where the part may not be tried at all."""
        fake = Fake(self._drivers, self._folder / "engine", *plan)
        path = os.pathsep.join((str(Path(__file__).parent), fake.env["PYTHONPATH"]))
        for name, value in {**self.corner.env, **fake.env, "PYTHONPATH": path}.items():
            self._patch.setenv(name, value)
        self._patch.setattr(tempfile, "tempdir", str(self.corner.scratch))
        host = EngineHost(
            gpus=tuple(gpu(n) for n in range(gpus)),
            python=fake.env["WARMSPARE_PYTHON"],
            vllm="0.26.0",
            ask=EngineAsk(),
            full=True,
            cycles=2,
            deadline_s=TRIAL.deadline_s,
            shape="tiny",
            wsl2=wsl2,
        )
        ended = run(TRIAL, lambda _: None, OnePart(proof=fact_name(proof), host=host, mib_before=mib_before))
        assert ended.left == ()
        reading = ended.readings[fact_name(proof)]
        after = ended.readings[fact_name(Afterwards)]
        known = after.value if isinstance(after, Known) else None
        assert known is None or isinstance(known, Afterwards)
        return (reading.value if isinstance(reading, Known) else reading), known


@pytest.fixture
def tried(drivers: Drivers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A place for one test, in which nothing may be left."""
    place = Place(drivers, tmp_path, monkeypatch)
    yield place
    assert place.corner.left_in_the_end() == {}


# --- the engine stopped ----------------------------------------------------------------------------------------------


def test_a_stopped_engine_has_given_its_memory_back(tried: Place) -> None:
    """Seen by NVML."""
    proof, _ = tried(EngineStop)
    assert (proof.outcome.kind, proof.mib_before, proof.mib_after) == ("done", 104, 104)
    assert proof.back_s is not None


def test_memory_that_stays_away_is_told(tried: Place) -> None:
    """As much as the driver keeps, as if less had been in use before the start."""
    proof, _ = tried.seen(EngineStop, mib_before=0)
    assert isinstance(proof, EngineStop)
    assert (proof.outcome.kind, proof.mib_before, proof.mib_after, proof.back_s) == ("wrong", 0, 104, None)
    assert "104 MiB more than before its start" in proof.outcome.detail


# --- a request while it sleeps -------------------------------------------------------------------------------------


def test_a_request_while_it_sleeps_is_served_after_the_wake(tried: Place) -> None:
    """As 0.26.0 does."""
    proof, afterwards = tried(RequestAsleep)
    assert (proof.outcome.kind, proof.end, proof.status) == ("done", "served", 200)
    assert (proof.tokens_equal, proof.serves_after) == (True, True)
    assert proof.waited_s is not None
    assert afterwards is not None
    assert (afterwards.lost, afterwards.serves) == (None, True)


@pytest.mark.parametrize(
    ("plan", "comes_to"),
    [
        ("refuse-asleep", ("done", "refused", 503, True)),
        ("crash-on-request-asleep", ("died", "fatal", 500, False)),
        ("lose-parked", ("hung", "lost", None, True)),
        ("drop-parked", ("wrong", "lost", None, True)),
        ("dead-after-sleep-200", ("died", "fatal", 500, False)),
        ("garbage-after-level-1", ("wrong", "served", 200, False)),
        ("fail-parked", ("done", "refused", 500, True)),
        ("fail-on-wake", ("refused", None, None, False)),
        ("refuse-asleep garbage-after-level-1", ("wrong", "refused", 503, False)),
        ("lose-parked garbage-after-level-1", ("hung", "lost", None, False)),
    ],
)
def test_a_request_while_it_sleeps_comes_to_its_known_end(
    tried: Place, plan: str, comes_to: tuple[str, str | None, int | None, bool]
) -> None:
    """Each known way, and whether the engine is told to be lost."""
    proof, afterwards = tried(RequestAsleep, *plan.split())
    assert (proof.outcome.kind, proof.end, proof.status, proof.serves_after) == comes_to, proof
    assert afterwards is not None
    assert (afterwards.lost is None) == afterwards.serves == proof.serves_after, afterwards


def test_an_engine_that_answers_while_it_sleeps_does_not_sleep(tried: Place) -> None:
    """That is no service, since its memory cannot be trusted to be free."""
    proof, afterwards = tried(RequestAsleep, "serve-asleep")
    assert (proof.outcome.kind, proof.outcome.detail) == ("wrong", "it answered a request while it said that it slept")
    assert (proof.end, proof.status, proof.tokens_equal, proof.serves_after) == ("served_asleep", 200, True, True)
    assert afterwards is not None
    assert afterwards.serves


# --- requests in flight ----------------------------------------------------------------------------------------------


def test_requests_in_flight_end_as_each_way_says(tried: Place) -> None:
    """Cut short, waited for, frozen."""
    proof, afterwards = tried(RequestInFlight)
    assert proof.outcome.kind == "done", proof
    assert proof.abort
    assert proof.wait
    assert proof.keep
    assert (proof.abort.ended, proof.abort.finish_reason) == ("aborted", "abort")
    assert 0 < (proof.abort.tokens_got or 0) < LONG
    assert (proof.wait.ended, proof.wait.finish_reason, proof.wait.tokens_got) == ("finished", "length", LONG)
    assert (proof.keep.ended, proof.keep.finish_reason, proof.keep.tokens_got) == ("resumed", "length", LONG)
    assert all(way.tokens_right and way.alive for way in (proof.abort, proof.wait, proof.keep))
    assert afterwards is not None
    assert afterwards.serves


@pytest.mark.parametrize(
    ("plan", "mode", "ended"),
    [
        ("garbage-after-keep", "keep", "resumed"),
        ("lose-kept", "keep", "lost"),
        ("cut-aborted", "abort", "broken"),
        ("unaborted", "abort", "resumed"),
    ],
)
def test_what_becomes_of_a_request_in_flight_is_seen(tried: Place, plan: str, mode: str, ended: str) -> None:
    """Wrong tokens, silence, a broken connection; one that goes on where it should have ended is only told."""
    proof, _ = tried(RequestInFlight, plan)
    way = getattr(proof, mode)
    assert (way.ended, way.tokens_right, way.alive) == (ended, plan != "garbage-after-keep", True), proof
    assert (proof.outcome.kind == "done") == (plan == "unaborted"), proof


@pytest.mark.parametrize("plan", ["crash-on-sleep-in-flight", "dead-after-sleep-200"])
def test_an_engine_that_dies_of_a_sleep_in_flight_is_lost(tried: Place, plan: str) -> None:
    """Whether it said 200 first or not."""
    proof, afterwards = tried(RequestInFlight, plan)
    assert proof.outcome.kind == "died", proof
    assert proof.abort
    assert (proof.abort.alive, proof.wait, proof.keep) == (False, None, None)
    assert afterwards is not None
    assert afterwards.lost


# --- orders that make no sense ---------------------------------------------------------------------------------------


def test_senseless_orders_do_no_harm_but_for_the_level_that_there_is_not(tried: Place) -> None:
    """0.26.0 answers each with 200, and takes level 7 for one that drops the weights."""
    proof, afterwards = tried(SleepRepeated)
    assert (proof.sleep_while_asleep, proof.wake_while_awake, proof.bad_tags) == (200, 200, 200), proof
    assert proof.woke_by_bad_tags is False
    assert (proof.bad_level, proof.slept_at_bad_level, proof.bad_level_lost_weights) == (200, True, True), proof
    assert (proof.reload_mends, proof.serves_after, proof.outcome.kind) == (True, True, "done")
    assert afterwards is not None
    assert afterwards.serves


@pytest.mark.parametrize(
    ("plan", "fact", "answer"),
    [
        ("crash-on-sleep-again", "sleep_while_asleep", "fatal"),
        ("crash-on-wake-awake", "wake_while_awake", "fatal"),
        ("crash-on-bad-tag", "bad_tags", "fatal"),
        ("crash-on-bad-level", "bad_level", "fatal"),
    ],
)
def test_a_senseless_order_may_be_the_end_of_the_engine(tried: Place, plan: str, fact: str, answer: str) -> None:
    """And then nothing more is tried on it."""
    proof, afterwards = tried(SleepRepeated, plan)
    assert getattr(proof, fact) == answer, proof
    assert (proof.outcome.kind, proof.serves_after) == ("died", False), proof
    assert afterwards is not None
    assert afterwards.lost


@pytest.mark.parametrize("fact", ["sleep_while_asleep", "wake_while_awake", "bad_tags", "bad_level"])
def test_a_senseless_order_may_be_refused(tried: Place, fact: str) -> None:
    """That is no harm, and the engine is awake afterwards."""
    word = {
        "sleep_while_asleep": "fail-on-sleep-again",
        "wake_while_awake": "fail-on-wake-awake",
        "bad_tags": "fail-on-bad-tag",
        "bad_level": "fail-on-bad-level",
    }[fact]
    proof, afterwards = tried(SleepRepeated, word)
    assert getattr(proof, fact) == 500, proof
    assert (proof.outcome.kind, proof.serves_after) == ("done", True), proof
    assert afterwards is not None
    assert afterwards.serves


# --- level 2, and what it says of itself -----------------------------------------------------------------------------


def test_level_2_comes_back_with_its_weights_reloaded_and_not_without(tried: Place) -> None:
    """And NVML has seen the memory come back."""
    proof, afterwards = tried(SleepLevel2)
    assert proof.outcome.kind == "done", proof
    assert (proof.tokens_equal_after_reload, proof.garbage_without_reload, proof.mended_by_reload) == (True, True, True)
    assert proof.mib_freed
    assert None not in (proof.sleep_s, proof.wake_s, proof.reload_s)
    assert afterwards is not None
    assert afterwards.serves


def test_garbage_after_level_2_is_seen(tried: Place) -> None:
    """Although each call says 200."""
    proof, afterwards = tried(SleepLevel2, "garbage-after-level-2")
    assert (proof.outcome.kind, proof.tokens_equal_after_reload) == ("wrong", False), proof
    assert afterwards is not None
    assert "than before" in (afterwards.lost or ""), afterwards


def test_a_failed_reload_is_told_where_it_failed(tried: Place) -> None:
    """With the engine's status."""
    proof, _ = tried(SleepLevel2, "fail-on-reload")
    assert (proof.outcome.kind, proof.outcome.step, proof.outcome.code) == (
        "refused",
        "reload the weights",
        "HTTP 500",
    ), proof


def test_what_it_says_of_itself_is_told_for_each_state(tried: Place) -> None:
    """0.26.0: /health is 200 all the time, and the metric says awake as soon as a part is."""
    proof, afterwards = tried(SleepHonesty)
    states = ("awake", "asleep", "partly", "level_2")
    assert [getattr(proof, f"health_{state}") for state in states] == [200] * 4
    assert [getattr(proof, f"is_sleeping_{state}") for state in states] == [False, True, True, True]
    metrics = [getattr(proof, f"metric_{state}") for state in states]
    assert metrics == ["awake", "weights_offloaded", "awake", "discard_all"]
    assert proof.outcome.kind == "done"
    assert afterwards is not None
    assert afterwards.serves


@pytest.mark.parametrize(
    ("plan", "fact", "said"),
    [
        ("is-sleeping-lies", "is_sleeping_asleep", False),
        ("health-503-asleep", "health_asleep", 503),
        ("no-metrics", "metric_asleep", None),
    ],
)
def test_what_it_says_is_told_as_it_says_it(tried: Place, plan: str, fact: str, said: object) -> None:
    """Lies too."""
    proof, _ = tried(SleepHonesty, plan)
    assert getattr(proof, fact) == said, proof


@pytest.mark.parametrize(
    ("proof", "plan", "kind"),
    [
        (SleepLevel2, "crash-on-reload", "died"),
        (SleepLevel2, "fail-on-reload", "refused"),
        (SleepHonesty, "dead-after-sleep-200", "died"),
        (SleepDataParallel, "crash-on-wake@2", "died"),
        (EnginesTakeTurns, "dead-after-sleep-200", "died"),
    ],
)
def test_the_last_word_of_an_engine_that_dies_is_no_refusal(
    tried: Place, proof: type[Proof], plan: str, kind: str
) -> None:
    """It may be a 500 either way."""
    found, _ = tried(proof, plan, gpus=2)
    assert found.outcome.kind == kind, found


# --- several GPUs, several engines -----------------------------------------------------------------------------------


@pytest.mark.parametrize("proof", [SleepDataParallel, SleepTensorParallel])
def test_an_engine_on_two_gpus_sleeps_on_both(
    tried: Place, proof: type[SleepDataParallel | SleepTensorParallel]
) -> None:
    """Each gives its memory back, by NVML."""
    found, _ = tried(proof, gpus=2)
    assert found.outcome.kind == "done", found.outcome
    assert (found.tokens_equal, found.is_sleeping_awake, found.is_sleeping_asleep) == (True, False, True)
    assert found.request_asleep == "served"
    assert found.shares
    assert [share.subject for share in found.shares] == ["gpu0", "gpu1"]
    assert all(share.mib_freed > 2 * (share.mib_asleep - share.mib_before) for share in found.shares)


@pytest.mark.parametrize("proof", [SleepDataParallel, SleepTensorParallel])
def test_one_rank_that_does_not_sleep_is_seen(
    tried: Place, proof: type[SleepDataParallel | SleepTensorParallel]
) -> None:
    """Although the engine says that it sleeps."""
    found, _ = tried(proof, "one-rank-asleep", gpus=2)
    assert found.outcome.kind == "wrong", found
    assert "gpu1" in found.outcome.detail
    assert found.is_sleeping_asleep is True


@pytest.mark.parametrize("proof", [SleepDataParallel, SleepTensorParallel])
def test_one_gpu_is_too_few_for_two(tried: Place, proof: type[SleepDataParallel | SleepTensorParallel]) -> None:
    """Nothing is started then."""
    found, _ = tried.seen(proof)
    assert isinstance(found, Absent)
    assert found.detail == "it takes two GPUs that nobody uses"


def test_two_engines_take_turns_on_one_gpu(tried: Place) -> None:
    """Each of which holds more than half of what was free."""
    proof, _ = tried(EnginesTakeTurns)
    assert proof.outcome.kind == "done", proof
    assert (proof.swaps, proof.tokens_equal) == (4, True)
    assert proof.mib_each
    assert all(mib > 1944 // 2 for mib in proof.mib_each)


def test_an_engine_that_keeps_its_memory_leaves_no_room_for_another(tried: Place) -> None:
    """So the second is not started at all."""
    proof, _ = tried(EnginesTakeTurns, "memory-not-freed")
    assert (proof.outcome.kind, proof.outcome.step) == ("wrong", "put it to sleep"), proof


# --- a wake without room ---------------------------------------------------------------------------------------------


def test_a_wake_without_room_is_refused_and_the_next_recovers(tried: Place) -> None:
    """The clean way."""
    proof, afterwards = tried(WakeWithoutRoom)
    assert (proof.outcome.kind, proof.status, proof.second_status) == ("done", 500, 200), proof
    assert (proof.then, proof.recovers, proof.health_after) == ("recovers", True, 200)
    assert proof.mib_taken
    assert "memory" in (proof.said or "")
    assert afterwards is not None
    assert afterwards.serves


@pytest.mark.parametrize(("plan", "then"), [("wedge-after-failed-wake", "wedged"), ("dead-after-failed-wake", "dead")])
def test_an_engine_that_does_not_recover_is_lost(tried: Place, plan: str, then: str) -> None:
    """Wedged with /health green, or gone."""
    proof, afterwards = tried(WakeWithoutRoom, plan)
    assert (proof.then, proof.recovers) == (then, False), proof
    assert proof.outcome.kind in ("wrong", "died", "hung")
    assert afterwards is not None
    assert afterwards.lost


def test_memory_that_was_not_freed_cannot_be_taken(tried: Place) -> None:
    """So nothing of a wake without room can be said."""
    proof, _ = tried(WakeWithoutRoom, "memory-not-freed")
    assert (proof.outcome.kind, proof.then) == ("wrong", None), proof


def test_no_memory_is_taken_under_wsl2(tried: Place) -> None:
    """Where the driver pages, and the machine may stall."""
    found, afterwards = tried.seen(WakeWithoutRoom, wsl2=True)
    assert isinstance(found, Absent)
    assert "WSL2" in found.detail
    assert afterwards is not None
    assert afterwards.serves
