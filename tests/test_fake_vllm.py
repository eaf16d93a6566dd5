"""The fake engine: each word of a plan does what it says, over real HTTP."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from engines import FAKE, Fake, Serving, Stream, a_model, descendants, used_mib
from standins import Drivers
from worlds import end, gone

Start = Callable[..., Serving]
HALF: Final = ("--gpu-memory-utilization", "0.5")
HALF_MIB: Final = 1024
GRAPHS_MIB: Final = 16
SOON_S: Final = 0.25
"""How long a test waits for what must not come."""
LOST: Final = (http.client.HTTPException, OSError)


@pytest.fixture(scope="session")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    return Drivers(tmp_path_factory.mktemp("drivers"))


@pytest.fixture(scope="module")
def shared(drivers: Drivers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Engines that several cases use one after the other, each by its plan: awake, and nothing open, between them."""
    folder = tmp_path_factory.mktemp("shared")
    model, running = a_model(folder / "model"), dict[str, Serving]()
    with ExitStack() as stack:

        def one(plan: str = "") -> Serving:
            if plan not in running:
                fake = Fake(drivers, folder / f"world-{len(running)}", plan)
                running[plan] = stack.enter_context(fake.serving(model, *HALF))
            return running[plan]

        yield one


@pytest.fixture
def healthy(shared: Start) -> Iterator[Serving]:
    """An engine without any word, that has been given back as it was taken."""
    engine = shared()
    before = engine.complete()
    yield engine
    assert engine.complete(within_s=2) == before


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return a_model(tmp_path / "model")


@pytest.fixture
def start(drivers: Drivers, tmp_path: Path, model: Path) -> Iterator[Start]:
    """Start an engine that goes by a plan, on half of a GPU."""
    numbers = itertools.count()
    with ExitStack() as stack:

        def started(*plan: str, flags: tuple[str, ...] = HALF, vllm: str = "0.26.0", **more: Any) -> Serving:  # noqa: ANN401 # serving's
            fake = Fake(drivers, tmp_path / f"world-{next(numbers)}", *plan, vllm=vllm)
            return stack.enter_context(fake.serving(model, *flags, **more))

        yield started


def slept(engine: Serving, query: str = "") -> None:
    assert engine.ask(f"POST /sleep{query}").status == 200
    assert engine.ask("GET /is_sleeping").json == {"is_sleeping": True}


def woken(engine: Serving) -> None:
    assert engine.ask("POST /wake_up").status == 200
    assert engine.ask("GET /is_sleeping").json == {"is_sleeping": False}


def core_of(engine: Serving) -> int:
    titles = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in descendants(engine.process.pid)}
    return next(pid for pid, title in titles.items() if title.startswith(b"VLLM::EngineCore"))


def ends(engine: Serving) -> bool:
    return engine.process.wait(20) is not None


def hangs(engine: Serving, ask: str) -> bool:
    try:
        engine.ask(ask, engine.request() if "completions" in ask else None, SOON_S)
    except TimeoutError:
        return True
    return False


def is_parked(engine: Serving) -> bool:
    return hangs(engine, "POST /v1/completions")


def how_it_ended(stream: Stream) -> str:
    """The finish reason, or `error`, or `broken`."""
    try:
        last = stream.pieces()[-1]
    except LOST:
        return "broken"
    return "error" if "error" in last else str(last["choices"][0]["finish_reason"])


# --- without any word -------------------------------------------------------------------------------------------------


def test_it_sleeps_and_wakes_and_says_the_same(healthy: Serving) -> None:
    engine = healthy
    before = engine.complete()
    assert before == engine.complete()
    assert used_mib(engine.env, 0) == HALF_MIB
    slept(engine)
    assert used_mib(engine.env, 0) == GRAPHS_MIB
    assert engine.ask("GET /health").status == 200
    assert is_parked(engine)
    woken(engine)
    assert used_mib(engine.env, 0) == HALF_MIB
    assert engine.complete() == before


def test_a_weight_a_prompt_or_a_place_makes_another_answer(start: Start, model: Path) -> None:
    engine = start()
    before = engine.complete()
    other = engine.ask("POST /v1/completions", engine.request(prompt=(4, *range(4, 23)))).json["choices"][0]["logprobs"]
    assert set(other["token_logprobs"]) & set(before[1]) == set()
    shard = model / "layer-1.safetensors"
    original = shard.read_bytes()
    shard.write_bytes(original[:-1] + b"\xff")
    assert engine.complete() == before
    assert engine.ask("POST /collective_rpc", {"method": "reload_weights"}).json == {"results": [None]}
    assert engine.complete()[0] != before[0]
    shard.write_bytes(original)
    assert engine.ask("POST /collective_rpc", {"method": "reload_weights"}).status == 200
    assert engine.complete() == before


def test_level_2_is_garbage_until_the_weights_are_read_anew(healthy: Serving) -> None:
    engine = healthy
    before = engine.complete()
    slept(engine, "?level=2")
    woken(engine)
    assert engine.complete()[0] != before[0]
    assert engine.ask("POST /collective_rpc", {"method": "reload_weights"}).status == 200
    assert engine.complete() == before


@pytest.mark.parametrize(("mode", "reason"), [("abort", "abort"), ("wait", "length"), ("keep", "length")])
def test_what_is_in_flight_ends_by_the_mode(healthy: Serving, mode: str, reason: str) -> None:
    engine = healthy
    stream = engine.begin(100)
    slept(engine, f"?mode={mode}")
    if mode == "keep":
        woken(engine)
    assert how_it_ended(stream) == reason
    woken(engine)


def test_one_bad_tag_wakes_nothing(healthy: Serving) -> None:
    engine = healthy
    slept(engine)
    assert engine.ask("POST /wake_up?tags=weights&tags=nonsense").status == 200
    assert used_mib(engine.env, 0) == GRAPHS_MIB
    assert engine.ask("POST /wake_up?tags=weights").status == 200
    assert is_parked(engine)
    assert GRAPHS_MIB < used_mib(engine.env, 0) < HALF_MIB
    assert engine.ask("POST /wake_up?tags=kv_cache").status == 200
    assert engine.complete()[2] == "length"


@pytest.mark.parametrize(
    ("flags", "titles"),
    [
        (("-tp", "2"), {"VLLM::EngineCore", "VLLM::Worker_TP0", "VLLM::Worker_TP1"}),
        (("-dp", "2"), {"VLLM::EngineCore_DP0", "VLLM::EngineCore_DP1"}),
    ],
)
def test_it_can_be_on_two_gpus(start: Start, flags: tuple[str, ...], titles: set[str]) -> None:
    engine = start(flags=(*HALF, *flags))
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in descendants(engine.process.pid)]
    assert {command.partition("\0")[0] for command in commands} == {"python3", *titles}
    before = engine.complete()
    assert [used_mib(engine.env, gpu) for gpu in (0, 1)] == [HALF_MIB, HALF_MIB]
    slept(engine)
    assert [used_mib(engine.env, gpu) for gpu in (0, 1)] == [GRAPHS_MIB, GRAPHS_MIB]
    woken(engine)
    assert engine.complete() == before


def test_two_take_turns_and_neither_wakes_without_room(drivers: Drivers, tmp_path: Path, model: Path) -> None:
    fake = Fake(drivers, tmp_path / "world")
    most = ("--gpu-memory-utilization", "0.8")
    with fake.serving(model, *most) as one:
        with fake.serving(model, *most, ready=False) as too_much:
            assert too_much.process.wait(20) == 1
            assert "is less than desired GPU memory utilization" in too_much.log.read_text()
        slept(one)
        with fake.serving(model, *most) as other:
            refused = one.ask("POST /wake_up")
            assert refused.status == 500
            assert "CUDA Error: out of memory" in refused.json["error"]["message"]
            slept(other)
            woken(one)
            assert one.complete() == one.complete()
            slept(one)
            woken(other)
    assert used_mib(fake.whole_env, 0) == 0


def test_it_is_on_the_gpu_that_is_shown_to_it(start: Start) -> None:
    engine = start(CUDA_VISIBLE_DEVICES="2")
    assert [used_mib(engine.env, gpu) for gpu in (0, 2)] == [0, HALF_MIB]


def test_its_keys_and_development_endpoints_are_as_in_vllm(start: Start) -> None:
    engine = start(flags=(*HALF, "--api-key", "k"), VLLM_SERVER_DEV_MODE="0", tcp=True)
    assert engine.ask("GET /v1/models").status == 401
    assert engine.ask("GET /v1/models", Authorization="Bearer k").status == 200
    assert engine.ask("GET /version").json == {"version": "0.26.0"}
    assert engine.ask("POST /sleep").status == 404


def test_a_core_that_is_killed_takes_the_server_with_it(start: Start) -> None:
    engine = start()
    stream = engine.begin()
    end(core_of(engine))
    assert how_it_ended(stream) == "error"
    assert ends(engine)


def test_a_server_that_is_killed_takes_its_cores_with_it(start: Start) -> None:
    engine = start(flags=(*HALF, "-tp", "2"))
    cores = descendants(engine.process.pid)
    engine.process.kill()
    assert len(cores) == 4
    assert all([gone(pid) for pid in cores])  # noqa: C419 # each of them, waited for


# --- words: how it dies, hangs and fails ------------------------------------------------------------------------------

ASKS: Final = {
    "sleep": ("POST /sleep",),
    "wake": ("POST /sleep", "POST /wake_up"),
    "request-asleep": ("POST /sleep", "POST /v1/completions"),
    "request-partly-awake": ("POST /sleep", "POST /wake_up?tags=weights", "POST /v1/completions"),
    "sleep-again": ("POST /sleep", "POST /sleep"),
    "wake-awake": ("POST /wake_up",),
    "bad-tag": ("POST /sleep", "POST /wake_up?tags=nonsense"),
    "bad-level": ("POST /sleep?level=3",),
    "level-2": ("POST /sleep?level=2",),
    "reload": ("POST /collective_rpc",),
}


def last_of(engine: Serving, asks: tuple[str, ...]) -> tuple[str, object]:
    """Ask all but the last; the last one, and its body."""
    for ask in asks[:-1]:
        assert engine.ask(ask).status == 200
    body = {"method": "reload_weights"} if "rpc" in asks[-1] else None
    return asks[-1], engine.request() if "completions" in asks[-1] else body


@pytest.mark.parametrize("occasion", sorted(ASKS))
def test_it_crashes_on(start: Start, occasion: str) -> None:
    engine = start(f"crash-on-{occasion}")
    ask, body = last_of(engine, ASKS[occasion])
    assert engine.ask(ask, body).status == 500
    assert ends(engine)
    assert used_mib(engine.env, 0) == 0


@pytest.mark.parametrize("occasion", ["request-asleep", "sleep", "wake"])
def test_it_hangs_on(start: Start, occasion: str) -> None:
    engine = start(f"hang-on-{occasion}")
    ask, body = last_of(engine, ASKS[occasion])
    with pytest.raises(TimeoutError):
        engine.ask(ask, body, SOON_S)
    assert engine.ask("GET /health").status == 200
    assert hangs(engine, "GET /is_sleeping")


@pytest.mark.parametrize("occasion", sorted(ASKS))
def test_it_fails_on(shared: Start, occasion: str) -> None:
    alone = occasion in {"sleep", "wake", "request-partly-awake"}  # others could not come to their own occasion
    words = [occasion] if alone else sorted({*ASKS} - {"sleep", "wake", "request-partly-awake"})
    engine = shared(" ".join(f"fail-on-{word}" for word in words))
    ask, body = last_of(engine, ASKS[occasion])
    planned = f"ERROR fail-on-{occasion}: planned"
    before = engine.log.read_text().count(planned)
    assert engine.ask(ask, body).status == 500
    assert engine.log.read_text().count(planned) == before + 1
    assert engine.ask("GET /health").status == 200
    for again in ("POST /wake_up", "POST /resume"):
        engine.ask(again)


def test_only_the_second_time(start: Start) -> None:
    engine = start("fail-on-sleep@2")
    for status in (200, 500, 200):
        assert engine.ask("POST /sleep").status == status
        assert engine.ask("POST /wake_up").status == 200


def test_a_sleep_in_flight_kills_it(start: Start) -> None:
    engine = start("crash-on-sleep-in-flight")
    slept(engine)
    woken(engine)
    stream = engine.begin()
    assert engine.ask("POST /sleep").status == 500
    assert how_it_ended(stream) == "error"


@pytest.mark.parametrize("what", ["sleep", "wake"])
def test_it_dies_behind_a_200(start: Start, what: str) -> None:
    engine = start(f"dead-after-{what}-200")
    if what == "wake":
        slept(engine)
    assert engine.ask("POST /wake_up" if what == "wake" else "POST /sleep").status == 200
    assert ends(engine)


@pytest.mark.parametrize("word", ["wedge-after-failed-wake", "dead-after-failed-wake"])
def test_what_comes_of_a_wake_without_room(drivers: Drivers, tmp_path: Path, model: Path, word: str) -> None:
    fake = Fake(drivers, tmp_path / "world", word)
    most = ("--gpu-memory-utilization", "0.8")
    with fake.serving(model, *most) as engine:
        slept(engine)
        with fake.serving(model, *most):
            assert engine.ask("POST /wake_up").status == 500
        if word.startswith("dead"):
            assert ends(engine)
            return
        for _ in range(2):
            assert "invalid argument" in engine.ask("POST /wake_up").json["error"]["message"]
        assert engine.ask("GET /health").status == 200
        assert is_parked(engine)


def test_a_wake_of_all_after_a_part_wedges_it(start: Start) -> None:
    engine = start()
    slept(engine)
    assert engine.ask("POST /wake_up?tags=weights").status == 200
    refused = engine.ask("POST /wake_up")
    assert refused.status == 500
    assert "CUDA Error: invalid argument at" in refused.json["error"]["message"]
    assert engine.ask("POST /wake_up?tags=kv_cache").status == 500
    assert engine.ask("GET /is_sleeping").json == {"is_sleeping": True}
    assert engine.ask("GET /health").status == 200
    assert is_parked(engine)


def test_a_wake_of_all_after_a_part_may_work(start: Start) -> None:
    engine = start("wakes-all-after-a-part")
    before = engine.complete()
    slept(engine)
    assert engine.ask("POST /wake_up?tags=weights").status == 200
    woken(engine)
    assert engine.complete() == before


# --- words: what it answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "level", "same"),
    [
        ("garbage-after-level-1", 1, False),
        ("garbage-after-level-2", 2, False),
        ("level-2-keeps-weights", 2, True),
        ("drift-after-wake", 1, True),
        ("blind", 2, True),
    ],
)
def test_what_it_says_after_a_cycle(start: Start, word: str, level: int, *, same: bool) -> None:
    engine = start(word)
    tokens, logprobs, _ = engine.complete()
    slept(engine, f"?level={level}")
    woken(engine)
    if word == "garbage-after-level-2":
        assert engine.ask("POST /collective_rpc", {"method": "reload_weights"}).status == 200
    after, now, _ = engine.complete()
    assert (after == tokens) == same
    apart = max(abs(a - b) for a, b in zip(logprobs, now, strict=True))
    assert (apart > 0.001) == (word == "drift-after-wake" or not same)


def test_only_the_second_wake_brings_garbage(start: Start) -> None:
    engine = start("garbage-after-level-1=2")
    said = [engine.complete()]
    for _ in range(2):
        slept(engine)
        woken(engine)
        said.append(engine.complete())
    assert said[0] == said[1] != said[2]


def test_kept_garbage(start: Start) -> None:
    engine = start("garbage-after-keep")
    right = engine.begin(60).pieces()
    stream = engine.begin(60)
    slept(engine, "?mode=keep")
    woken(engine)
    assert stream.pieces()[-2]["choices"] != right[-2]["choices"]


@pytest.mark.parametrize(
    ("word", "asleep"), [("serve-asleep", 200), ("refuse-asleep", 503), ("lose-parked", None), ("drop-parked", None)]
)
def test_requests_while_asleep(start: Start, word: str, asleep: int | None) -> None:
    engine = start(word)
    slept(engine)
    if asleep:
        assert engine.ask("POST /v1/completions", engine.request()).status == asleep
    elif word == "lose-parked":
        with contextlib.closing(engine.connection(SOON_S)) as wire:
            wire.request("POST", "/v1/completions", json.dumps(engine.request(stream=True)))
            reply = wire.getresponse()
            woken(engine)
            with pytest.raises(TimeoutError):
                reply.read()
    else:
        with pytest.raises(LOST):
            engine.complete()
    woken(engine)
    assert engine.complete()[2] == "length"


def test_a_request_that_is_refused_at_the_wake(start: Start) -> None:
    engine = start("fail-parked")
    slept(engine)
    with contextlib.closing(engine.connection(SOON_S)) as wire:
        wire.request("POST", "/v1/completions", json.dumps(engine.request(stream=True)))
        reply = wire.getresponse()
        woken(engine)
        assert b'"code":500' in reply.read().replace(b" ", b"")
    assert engine.complete()[2] == "length"


@pytest.mark.parametrize(("word", "mode"), [("lose-kept", "keep"), ("unaborted", "abort"), ("cut-aborted", "abort")])
def test_requests_in_flight(start: Start, word: str, mode: str) -> None:
    engine = start(word)
    stream = engine.begin(100)
    slept(engine, f"?mode={mode}")
    woken(engine)
    if word == "lose-kept":
        stream.wire.sock.settimeout(SOON_S)
        with pytest.raises(TimeoutError):
            stream.pieces()
    else:
        assert how_it_ended(stream) == {"unaborted": "length", "cut-aborted": "broken"}[word]


def test_a_wait_that_never_ends(start: Start) -> None:
    engine = start("never-drains")
    stream = engine.begin()
    assert hangs(engine, "POST /sleep?mode=wait")
    assert used_mib(engine.env, 0) == HALF_MIB
    stream.close()


# --- words: memory ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "asleep"),
    [("memory-not-freed", HALF_MIB), ("memory-half-freed", 520), ("leak-each-cycle=32", GRAPHS_MIB + 32)],
)
def test_what_stays_on_the_gpu(start: Start, word: str, asleep: int) -> None:
    engine = start(word)
    slept(engine)
    assert used_mib(engine.env, 0) == asleep
    woken(engine)
    slept(engine)
    assert used_mib(engine.env, 0) == (asleep + 32 if word.startswith("leak") else asleep)


@pytest.mark.parametrize("flag", ["-tp", "-dp"])
def test_one_rank_stays_awake(start: Start, flag: str) -> None:
    engine = start("one-rank-asleep", flags=(*HALF, flag, "2"))
    slept(engine)
    assert [used_mib(engine.env, gpu) for gpu in (0, 1)] == [GRAPHS_MIB, HALF_MIB]


def test_host_memory_that_grows(start: Start) -> None:
    engine = start("leak-host-each-cycle=64")
    core = core_of(engine)

    def resident_mib() -> int:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{core}/status").read_text())
        assert found
        return int(found[1]) >> 10

    before = resident_mib()
    for cycle in (1, 2):
        slept(engine)
        assert resident_mib() >= before + cycle * 64
        woken(engine)


# --- words: what it says of itself ------------------------------------------------------------------------------------


def state(engine: Serving) -> str:
    found = re.findall(r'sleep_state="(\w+)"\} 1.0', engine.ask("GET /metrics").body.decode())
    return "+".join(found)


def test_it_says_how_it_sleeps(healthy: Serving) -> None:
    engine = healthy
    assert state(engine) == "awake"
    slept(engine)
    assert state(engine) == "weights_offloaded"
    woken(engine)
    slept(engine, "?level=2")
    assert state(engine) == "discard_all"
    woken(engine)
    assert engine.ask("POST /collective_rpc", {"method": "reload_weights"}).status == 200


def test_it_lies(start: Start) -> None:
    engine = start("is-sleeping-lies", "health-503-asleep", "metrics-lie")
    assert engine.ask("GET /health").status == 200
    assert engine.ask("POST /sleep").status == 200
    assert engine.ask("GET /is_sleeping").json == {"is_sleeping": False}
    assert engine.ask("GET /health").status == 503
    assert state(engine) == "awake"


def test_times(start: Start) -> None:
    engine = start("token-ms=20", "copy-ms=100", "slow-first-token-after-wake=300")

    def took(what: Callable[[], object]) -> float:
        began = time.monotonic()
        what()
        return time.monotonic() - began

    assert took(lambda: engine.complete(9)) >= 8 * 0.02
    assert took(lambda: slept(engine)) >= 0.1
    assert took(lambda: woken(engine)) >= 0.1
    assert took(lambda: engine.complete(1)) >= 0.3


# --- words: what is there at all --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "ask", "status"),
    [
        ("no-dev-endpoints", "POST /sleep", 404),
        ("no-dev-endpoints", "GET /health", 200),
        ("no-metrics", "GET /metrics", 404),
        ("no-tokenize", "POST /tokenize", 404),
        ("no-version", "GET /version", 404),
        ("api-key=secret", "GET /v1/models", 401),
        ("not-vllm", "GET /version", 404),
        ("not-vllm", "GET /", 200),
        ("redirects", "GET /health", 307),
        ("slow-http=0.1", "GET /health", 200),
    ],
)
def test_what_is_not_there(shared: Start, word: str, ask: str, status: int) -> None:
    together = "no-dev-endpoints no-metrics no-tokenize no-version api-key=secret slow-http=0.1"
    engine = shared(together if word in together.split() else word)
    assert engine.ask(ask).status == status


def test_http_that_is_none(start: Start) -> None:
    words = ("huge-body", "bad-json", "garbage-http", "hang-http")
    huge, bad, garbage, hangs = [start(word, ready=False) for word in words]
    assert len(huge.ask_when_there("GET /version").body) > 8 * 2**20
    assert bad.ask_when_there("GET /version").body == b"{"
    with pytest.raises(http.client.BadStatusLine):
        garbage.ask_when_there("GET /version")
    with pytest.raises(TimeoutError):
        hangs.ask_when_there("GET /version", SOON_S)


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("die-at-start", "ValueError: Model architectures"),
        ("cannot-import", "ImportError: libcudart.so.13"),
        ("no-sleep-flag", "unrecognized arguments: --enable-sleep-mode"),
        ("no-uds", "unrecognized arguments: --uds"),
        ("fail-on-start", "Engine core initialization failed"),
        ("no-such-word", "no such word"),
    ],
)
def test_it_does_not_start(start: Start, word: str, line: str) -> None:
    engine = start(word, ready=False)
    assert engine.process.wait(20)
    assert line in engine.log.read_text()


def test_it_starts_late_or_never(start: Start) -> None:
    began = time.monotonic()
    start("slow-start=0.3")
    assert time.monotonic() - began >= 0.3
    with pytest.raises(OSError):  # noqa: PT011 # refused, or no socket: nobody is there
        start("hang-at-start", ready=False).ask("GET /health", within_s=SOON_S)


def test_it_does_not_stop(start: Start) -> None:
    engine = start("ignores-sigterm", "orphan-core")
    core = core_of(engine)
    engine.process.terminate()
    assert engine.ask("GET /health").status == 200
    engine.process.kill()
    engine.process.wait()
    assert used_mib(engine.env, 0) == HALF_MIB
    end(core)
    assert gone(core)
    assert used_mib(engine.env, 0) == 0


def test_it_stops_when_told(start: Start) -> None:
    engine = start()
    engine.process.terminate()
    assert engine.process.wait(20) == 0
    assert used_mib(engine.env, 0) == 0


def test_its_version_is_what_metadata_and_http_say(start: Start) -> None:
    engine = start(vllm="0.16.0")
    code = "from importlib.metadata import version; print(version('vllm'))"
    said = subprocess.run([sys.executable, "-c", code], env={**engine.env}, capture_output=True, text=True, check=True)
    assert said.stdout == "0.16.0\n"
    assert engine.ask("GET /version").json == {"version": "0.16.0"}


def test_no_word_is_without_a_test_or_a_meaning() -> None:
    sys.path.insert(0, str(FAKE))
    try:
        from vllm.fake.plan import KNOWN, OCCASIONS  # noqa: PLC0415 # it is no package of this Python
    finally:
        sys.path.remove(str(FAKE))
    sources = "".join(file.read_text() for file in (FAKE / "vllm").rglob("*.py") if file.name != "plan.py")
    plan = (FAKE / "vllm/fake/plan.py").read_text()
    tests, readme = Path(__file__).read_text(), (FAKE / "README.md").read_text()
    for word in KNOWN:
        assert f'"{word}"' in sources + plan, word
        assert word in tests or word.replace(word.split("-")[2], "{what}") in tests, word
        assert f"`{word}" in readme, word
    for occasion in OCCASIONS:
        assert f'"{occasion}"' in sources, occasion
        assert f"`{occasion}`" in readme, occasion
