"""What the parts of the trial of Sleep Mode rest on, each alone: room, models on disk, order, answers compared."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from sleep_scene import host

from warmspare import catalogue
from warmspare.control import host_memory
from warmspare.control.vllm import Completion, Engine, EngineFailed
from warmspare.trials.api import Event, NotTried, Steps
from warmspare.trials.given import EngineAsk
from warmspare.trials.sleeping import launch, parts, room, whose
from warmspare.trials.sleeping.answers import EARLY, PLAIN, apart, prompt_of
from warmspare.trials.sleeping.bench import Bench
from warmspare.trials.sleeping.parallel import SleepDataParallel, SleepTensorParallel
from warmspare.trials.sleeping.room import Had

GIB: Final = 2**30
HUGE: Final = 2**60


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def bench(told: list[Event], tmp_path: Path) -> Bench:
    return Bench(Steps(told.append, tmp_path, 60.0), host(), host().gpus)


@pytest.mark.parametrize(
    ("had", "how", "enough"),
    [
        (Had(8 * GIB, 16 * GIB, None), "available", True),
        (Had(2 * GIB, 16 * GIB, None), "available", False),
        (Had(8 * GIB, 16 * GIB, 32 * GIB), "available", True),
        (Had(8 * GIB, 16 * GIB, 6 * GIB), "limit", True),
        (Had(8 * GIB, 16 * GIB, 3 * GIB), "limit", False),
        (Had(1 * GIB, 2 * GIB, 3 * GIB), "limit", False),
        (Had(1 * GIB, 2 * GIB, None), "touched", True),
    ],
)
def test_whether_the_host_has_room(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, had: Had, how: str, *, enough: bool
) -> None:
    monkeypatch.setattr(room, "touched", lambda size: size == 4 * GIB)
    found = room.judged(bench, 4 * GIB, had)
    assert (found.how, found.had, found.needed_mib) == (how, enough, 4096)
    assert found.limit_mib == (None if had.limit is None else had.limit // 2**20)


@pytest.mark.parametrize(("size", "had"), [(64 * 2**20, True), (HUGE, False)])
def test_memory_that_is_touched(size: int, *, had: bool) -> None:
    assert room.touched(size) is had


def test_one_that_is_killed_for_its_memory_did_not_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "TOUCH", "import os; os.kill(os.getpid(), 9)")
    assert room.touched(1) is False


def test_memory_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "TOUCH", "import signal; signal.pause()")
    monkeypatch.setattr(room, "TOUCH_S", 0.1)
    with pytest.raises(NotTried, match=r"1 MiB were not touched within 0\.1 s"):
        room.touched(2**20)


def test_the_one_that_touches_dies_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    score = tmp_path / "score"
    monkeypatch.setattr(room, "SCORE", str(score))
    assert room.touched(2**20)
    assert score.read_text() == "1000"


def test_a_control_group_without_a_limit_is_none(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal:  8 kB\nMemAvailable:  4 kB\n")
    (tmp_path / "proc/self/cgroup").write_text("3:memory:/\n")
    group = tmp_path / "sys/fs/cgroup/memory"
    group.mkdir(parents=True)
    for name, text in (("limit_in_bytes", str(2**63 - 4096)), ("usage_in_bytes", "0"), ("stat", "")):
        (group / f"memory.{name}").write_text(text)
    assert host_memory.limit_bytes(tmp_path) is None
    assert (host_memory.total_bytes(tmp_path), host_memory.free_bytes(tmp_path)) == (8192, 4096)
    (group / "memory.limit_in_bytes").write_text("2048")
    assert (host_memory.limit_bytes(tmp_path), host_memory.free_bytes(tmp_path)) == (2048, 2048)


def test_weights_on_this_disk(tmp_path: Path) -> None:
    assert launch.weights_mib(str(tmp_path)) is None
    (tmp_path / "model.bin").write_bytes(bytes(3 * 2**20))
    assert launch.weights_mib(str(tmp_path)) == 3
    (tmp_path / "model.safetensors").write_bytes(bytes(2**20 + 1))
    assert launch.weights_mib(str(tmp_path)) == 2  # which an engine prefers


def test_a_folder_here_is_not_taken_for_the_model_that_an_engine_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org/name").mkdir(parents=True)
    (tmp_path / "org/name/model.bin").write_bytes(bytes(2**20))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))

    def weights_mib(model: str, url: str | None) -> int | None:
        bench = Bench(Steps(lambda _: None, tmp_path, 60.0), host(EngineAsk(url=url)), ())
        bench.model = model
        return bench.weights_mib()

    assert weights_mib("org/name", None) == 1
    assert weights_mib("org/name", "unix:/s") is None
    assert weights_mib(str(tmp_path / "org/name"), "unix:/s") == 1


@pytest.mark.parametrize("name", ["HF_HOME", "HF_HUB_CACHE", "HOME"])
def test_weights_that_were_fetched(tmp_path: Path, name: str) -> None:
    under = {"HF_HOME": "hub", "HF_HUB_CACHE": "", "HOME": ".cache/huggingface/hub"}[name]
    kept = tmp_path / under / "models--org--name"
    blob = kept / "blobs/0"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(bytes(2**20))
    version = kept / "snapshots/abc"
    version.mkdir(parents=True)
    (version / "model.safetensors").symlink_to(blob)
    assert launch.weights_mib("org/name", {name: str(tmp_path)}) == 1
    assert launch.weights_mib("org/other", {name: str(tmp_path)}) is None


def test_parts_are_found_in_their_order() -> None:
    found = parts.found()
    stages = [part.stage for part in found]
    assert stages == sorted(stages)
    assert len({part.proof for part in found}) == len(found)
    assert [part.proof.__name__ for part in found][:4] == ["SleepRoom", "EngineStart", "SleepCycles", "SleepOracle"]
    assert {part.proof.__name__ for part in found if part.found_too} == {
        "SleepRoom", "EngineStart", "SleepCycles", "SleepOracle",
    }  # fmt: skip


def _answer(*logprobs: float) -> Completion:
    tokens = (1,) * len(logprobs)
    return Completion(tokens=tokens, logprobs=logprobs, text="", finish_reason="length", first_token_s=0.1, took_s=0.2)


def test_what_proofs_have_in_common_is_no_fact() -> None:
    facts = catalogue.facts()
    assert {SleepDataParallel, SleepTensorParallel} <= set(facts)
    assert [fact for fact in facts if fact.__name__.startswith("_")] == []


class Scripted(Engine):
    """An engine with answers of these log-probabilities; `asked` are the prompts."""

    def __init__(self, *logprobs: float, no_tokenizer: int | None = None, few: int = 100) -> None:
        """Nobody is asked."""
        self._few = few
        self._logprobs: Iterator[float] = iter(logprobs)
        self._no_tokenizer = no_tokenizer

    def reset_prefix_cache(self, within_s: float = 0) -> None:  # type: ignore[override] # nobody looks at it
        """Nothing to forget."""

    def complete(self, prompt: tuple[int, ...], tokens: int, within_s: float) -> Completion:  # noqa: ARG002 # an engine's
        """The next."""
        return _answer(next(self._logprobs))

    def tokenize(self, text: str) -> tuple[int, ...]:  # noqa: ARG002 # likewise
        """Many, or refused."""
        if self._no_tokenizer is not None:
            code = f"HTTP {self._no_tokenizer}"
            raise EngineFailed(code, "POST /tokenize", status=self._no_tokenizer or None)
        return tuple(range(self._few))


@pytest.mark.parametrize(("last", "steady"), [(-1.0, True), (-1.0009, True), (-1.0011, False)])
def test_an_engine_that_answers_otherwise_each_time(bench: Bench, last: float, *, steady: bool) -> None:
    bench.serve(Scripted(-9.0, -1.0, -1.0, -1.0, -1.0, last), "theirs")  # the cold one may differ
    bench.refer()
    assert (bench.unsteady is None) is steady
    assert steady or "log-probabilities up to 0.0011 apart" in str(bench.unsteady)


@pytest.mark.parametrize("place", [0, 1])
def test_what_is_no_number_is_never_near_another(place: int) -> None:
    odd = [-1.0, -1.0]
    odd[place] = math.nan
    assert apart(_answer(-1.0, -1.0), _answer(*odd)) == apart(_answer(*odd), _answer(*odd)) == math.inf


def test_a_prompt_for_a_model_that_is_not_ours() -> None:
    assert prompt_of(Scripted()) == tuple(range(40))
    assert prompt_of(Scripted(few=EARLY + 2)) == tuple(range(EARLY + 2))
    assert prompt_of(Scripted(few=EARLY + 1)) == PLAIN  # the oracle changes one early token for the next
    assert prompt_of(Scripted(no_tokenizer=404)) == PLAIN
    with pytest.raises(EngineFailed):
        prompt_of(Scripted(no_tokenizer=0))


def test_where_nobody_listens_all_gpus_are_looked_at() -> None:
    assert whose.gpus(Engine.at("unix:/nowhere/s"), host(gpus=2).gpus) == host(gpus=2).gpus


def test_what_a_process_has_started() -> None:
    assert os.getpid() in whose.below(os.getppid())


def test_as_many_gpus_as_the_flags_ask_for() -> None:
    asked = host(EngineAsk(flags=("--tensor-parallel-size", "2")), gpus=3)
    assert launch.users_gpus(asked) == asked.gpus[:2]
    unclear = host(EngineAsk(flags=("--tensor-parallel-size", "many")), gpus=3)
    assert launch.users_gpus(unclear) == unclear.gpus
    assert sys.executable == asked.python
