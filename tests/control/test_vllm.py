"""The client of an engine against servers that misbehave in every known way, on real sockets."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from mouth import CHUNKED, Mouth, Say, answer, chunk, event, mouth, raw, said

from warmspare.control import vllm
from warmspare.control.vllm import BadUrl, Engine, EngineFailed, NotVllm, Tcp, Unix

Listen = Callable[..., tuple[Engine, Mouth]]
MODELS = answer({"data": [{"id": "made"}]})


@pytest.fixture
def listen(tmp_path: Path) -> Iterator[Listen]:
    with ExitStack() as stack:

        def start(*says: Say, api_key: str | None = None) -> tuple[Engine, Mouth]:
            path = tmp_path / "s"
            return Engine(Unix(str(path)), api_key), stack.enter_context(mouth(path, *says))

        yield start


def test_an_address_is_a_host_with_a_port_or_a_socket() -> None:
    assert Engine.at("http://127.0.0.1:8000").address == Tcp("127.0.0.1", 8000)
    assert Engine.at("http://[::1]:8000/").address == Tcp("::1", 8000)
    assert Engine.at("http://gpu-3.example.org:80").address == Tcp("gpu-3.example.org", 80)
    assert Engine.at("unix:/run/x.sock").address == Engine.at("unix:///run/x.sock").address == Unix("/run/x.sock")


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:8000",
        "http://127.0.0.1",
        "http://127.0.0.1:0",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:x",
        "http://:8000",
        "http://127.0.0.1:8000/v1",
        "http://127.0.0.1:8000?x=1",
        "http://127.0.0.1:8000#x",
        "http://me:secret@127.0.0.1:8000",
        "http://[::1:8000",
        "http://a_b:8000",
        "http://127.0.0.1:8000\r\nX: y",
        "127.0.0.1:8000",
        "localhost:8000",
        "ftp://127.0.0.1:8000",
        "unix:",
        "unix:/",
        "unix:x.sock",
        "unix:/" + "x" * 107,
        "",
    ],
)
def test_anything_else_is_no_address(url: str) -> None:
    with pytest.raises(BadUrl) as told:
        Engine.at(url)
    assert "secret" not in str(told.value)


def test_a_socket_and_the_loopback_are_local_and_nothing_else() -> None:
    assert Engine.at("unix:/run/x.sock").is_local
    assert Engine.at("http://127.0.0.9:8000").is_local
    assert Engine.at("http://[::1]:8000").is_local
    assert Engine.at("http://localhost:8000").is_local
    assert not Engine.at("http://192.0.2.1:8000").is_local
    assert not Engine.at("http://0.0.0.0:8000").is_local


def test_a_name_is_looked_up_once_so_that_what_was_local_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter(["127.0.0.1", "192.0.2.1"])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", (next(found), 0))])
    engine = Engine.at("http://moving.example:1")
    assert [engine.is_local, engine.is_local] == [True, True]


def test_a_name_that_leads_nowhere_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    with pytest.raises(EngineFailed, match=r"looking up gpu\.example: no such host"):
        Engine.at("http://gpu.example:1").health()


def test_a_name_that_nobody_answers_for_does_not_hold_us_up(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(30) * [])
    monkeypatch.setattr(vllm, "ANSWER_S", 0.05)
    with pytest.raises(EngineFailed) as told:
        Engine.at("http://gpu.example:1").health(0.05)
    over.set()
    assert told.value.how == "hung"


def test_it_says_its_version_and_its_models(listen: Listen) -> None:
    engine, server = listen(answer({"version": "0.26.0"}), answer({"data": [{"id": "a"}, {"id": "b"}]}))
    assert (engine.version(), engine.models()) == ("0.26.0", ("a", "b"))
    assert server.lines() == ["GET /version HTTP/1.1", "GET /v1/models HTTP/1.1"]


@pytest.mark.parametrize(
    "say",
    [
        answer(b"<html><body>nginx</body></html>"),
        answer([]),
        answer({"ver": 1}),
        answer({"version": 26}),
        answer(b"[" * 100_000),
        answer({"detail": "Not Found"}, "404 Not Found"),
        answer(b"", "405 Method Not Allowed"),
        raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
        raw(b"\xff\xfe\x00"),
        raw(b"HTTP/1.1 200 OK\r\n" + b"A: " + b"a" * 200_000),
    ],
)
def test_what_is_no_vllm_is_known_as_that(listen: Listen, say: Say) -> None:
    engine, _ = listen(say)
    with pytest.raises(NotVllm):
        engine.version()


def test_a_key_that_it_wants_is_asked_for_and_the_one_given_is_sent(listen: Listen) -> None:
    engine, server = listen(answer({"error": "Unauthorized"}, "401 Unauthorized"), api_key="k-1")
    with pytest.raises(EngineFailed) as told:
        engine.models()
    failure = told.value
    assert (failure.status, failure.code, failure.how, type(failure)) == (401, "HTTP 401", "refused", EngineFailed)
    assert b"\r\nAuthorization: Bearer k-1\r\n" in server.asked[0]
    assert "k-1" not in str(failure)


def test_a_key_that_no_header_can_carry_is_refused() -> None:
    with pytest.raises(BadUrl):
        Engine(Unix("/x"), "a\r\nX: y")


def test_health_is_the_status_whatever_it_is(listen: Listen) -> None:
    engine, _ = listen(answer(b""), answer(b"", "503 Service Unavailable"))
    assert [engine.health(), engine.health()] == [200, 503]


def test_sleep_and_wake_are_asked_by_query_and_never_by_a_body(listen: Listen) -> None:
    engine, server = listen(answer(b""))
    engine.sleep()
    engine.sleep(2, "keep", 5)
    engine.wake()
    assert engine.wake(("weights", "kv_cache")).status == 200
    assert [line.split()[1] for line in server.lines()] == [
        "/sleep?level=1",
        "/sleep?level=2&mode=keep",
        "/wake_up",
        "/wake_up?tags=weights&tags=kv_cache",
    ]
    assert server.bodies() == [b""] * 4


def test_without_development_endpoints_it_says_which_call_was_not_there(listen: Listen) -> None:
    engine, _ = listen(answer({"detail": "Not Found"}, "404 Not Found"))
    with pytest.raises(EngineFailed) as told:
        engine.sleep()
    assert str(told.value) == 'POST /sleep: {"detail": "Not Found"}: HTTP 404'


def test_what_it_said_is_shown_on_one_short_line_without_control_characters(listen: Listen) -> None:
    engine, _ = listen(
        answer(b"\n \r\n\x1b[31mred\x1b[0m\ttape " + b"x" * 1000 + b"\nmore", "500 Internal Server Error")
    )
    with pytest.raises(EngineFailed) as told:
        engine.sleep()
    assert re.fullmatch(r"POST /sleep: \[31mred \[0m tape x+", told.value.detail)
    assert len(told.value.detail) < 220


def test_whether_it_sleeps_is_what_it_says_and_nothing_else(listen: Listen) -> None:
    engine, _ = listen(answer({"is_sleeping": True}), answer({"is_sleeping": False}), answer({"is_sleeping": "no"}))
    assert [engine.is_sleeping(), engine.is_sleeping()] == [True, False]
    with pytest.raises(NotVllm):
        engine.is_sleeping()


def test_a_redirect_is_refused_and_not_followed(listen: Listen) -> None:
    engine, server = listen(answer(b"", "307 Temporary Redirect", "Location: http://192.0.2.1/sleep\r\n"))
    with pytest.raises(EngineFailed, match="it points elsewhere: HTTP 307"):
        engine.sleep()
    assert len(server.asked) == 1


def test_an_answer_without_an_end_is_cut_off(listen: Listen) -> None:
    def endless(client: socket.socket) -> None:
        client.sendall(CHUNKED)
        while True:
            client.sendall(chunk(b"x" * 65_536))

    engine, _ = listen(endless, raw(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (9 * 2**20)), answer(b"x" * (9 * 2**20)))
    for _ in range(3):
        with pytest.raises(EngineFailed, match="above 8 MiB"):
            engine.sleep(within_s=30)


@pytest.mark.parametrize(
    "say",
    [
        raw(),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
        raw(CHUNKED, chunk(b"x"), b"zz\r\n"),
        raw(CHUNKED, chunk(b"x"), b"8\r\nhalf"),
        raw(CHUNKED),
    ],
)
def test_a_connection_that_ends_in_the_middle_is_the_engines_death(listen: Listen, say: Say) -> None:
    engine, _ = listen(say)
    with pytest.raises(EngineFailed) as told:
        engine.sleep()
    assert (told.value.how, told.value.code) == ("died", "the connection ended")


def test_a_connection_that_is_reset_is_the_engines_death(listen: Listen) -> None:
    def reset(client: socket.socket) -> None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    engine, _ = listen(reset)
    with pytest.raises(EngineFailed) as told:
        engine.health()
    assert told.value.how == "died"


def test_where_nobody_listens_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    for address, code in ((Unix(str(tmp_path / "s")), "ENOENT"), (Unix(str(tmp_path / "f")), "ECONNREFUSED")):
        with pytest.raises(EngineFailed) as told:
            Engine(address).health()
        assert (told.value.code, told.value.how, told.value.status) == (code, "died", None)


def test_a_port_where_nobody_listens_is_told_too() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else's
        with pytest.raises(EngineFailed, match=r"GET /health: ECONNREFUSED"):
            Engine(Tcp("127.0.0.1", taken.getsockname()[1])).health()


def silent(client: socket.socket) -> None:
    client.recv(1)


def dripping(client: socket.socket) -> None:
    """A byte at a time, each in time."""
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n" + b"x" * 4000:
        client.sendall(bytes([byte]))
        time.sleep(0.01)  # the pace is what is shown


@pytest.mark.parametrize("say", [silent, dripping])
def test_a_deadline_holds_for_the_whole_exchange(listen: Listen, say: Say) -> None:
    engine, _ = listen(say)
    began = time.monotonic()
    with pytest.raises(EngineFailed) as told:
        engine.sleep(within_s=0.3)
    assert (told.value.how, told.value.code) == ("hung", "no answer within 0.3 s")
    assert time.monotonic() - began < 10


def test_weights_are_read_again_by_a_call_to_each_worker(listen: Listen) -> None:
    engine, server = listen(answer({"results": [None]}))
    engine.reload_weights(5)
    engine.reload_weights(5, "/other")
    assert [json.loads(body) for body in server.bodies()] == [
        {"method": "reload_weights"},
        {"method": "reload_weights", "kwargs": {"weights_path": "/other"}},
    ]
    assert set(server.lines()) == {"POST /collective_rpc HTTP/1.1"}


def test_a_text_is_cut_by_the_engines_own_tokenizer(listen: Listen) -> None:
    engine, server = listen(MODELS, answer({"tokens": [3, 1]}), answer({"tokens": ["x"]}))
    assert engine.tokenize("hé") == (3, 1)
    assert json.loads(server.bodies()[1]) == {"model": "made", "prompt": "hé"}
    with pytest.raises(NotVllm):
        engine.tokenize("x")


METRIC = 'vllm:engine_sleep_state{{engine="{}",model_name="a}}b",sleep_state="{}"}} {}\n'


@pytest.mark.parametrize(
    ("rows", "state"),
    [
        ([(0, "awake", 1.0), (0, "weights_offloaded", 0.0)], "awake"),
        ([(0, "awake", 0.0), (0, "weights_offloaded", 1.0)], "weights_offloaded"),
        ([(0, "awake", 1.0), (1, "awake", 1.0)], "awake"),
        ([(0, "awake", 1.0), (1, "discard_all", 1.0)], "awake+discard_all"),
        ([(0, "awake", 0.0)], None),
        ([], None),
    ],
)
def test_its_metrics_say_how_each_engine_sleeps(
    listen: Listen, rows: list[tuple[int, str, float]], state: str | None
) -> None:
    text = "# HELP vllm:engine_sleep_state x\n" + "".join(METRIC.format(*row) for row in rows) + "other 1.0\n"
    engine, _ = listen(answer(text.encode()))
    assert engine.sleep_state() == state


def test_a_completion_is_told_by_token(listen: Listen) -> None:
    engine, server = listen(MODELS, said(event(7), event(0), event(5, "length")))
    done = engine.complete((1, 2, 3), 3, 10)
    assert (done.tokens, done.logprobs, done.text) == ((7, 0, 5), (-0.7, 0.0, -0.5), "<7><0><5>")
    assert done.finish_reason == "length"
    assert 0 < done.first_token_s <= done.took_s
    asked = json.loads(server.bodies()[1])
    assert (asked["model"], asked["prompt"], asked["max_tokens"], asked["temperature"]) == ("made", [1, 2, 3], 3, 0)
    assert asked["return_tokens_as_token_ids"] is asked["ignore_eos"] is asked["stream"] is True


def test_its_model_is_asked_for_once(listen: Listen) -> None:
    engine, server = listen(MODELS, said(event(1, "length")))
    engine.complete((1,), 1, 10)
    engine.complete((1,), 1, 10)
    assert [line.split()[1] for line in server.lines()] == ["/v1/models", "/v1/completions", "/v1/completions"]


NO_NUMBER = b'data: {"choices": [{"logprobs": {"tokens": ["a"]}}]}\n\n'
ERROR = b'data: {"error": {"message": "EngineCore encountered an issue", "code": 500}}\n\n'


@pytest.mark.parametrize(
    ("say", "how", "code"),
    [
        (raw(CHUNKED, event(1)), "died", "the connection ended"),
        (raw(CHUNKED, event(1), chunk(b"")), "died", "the connection ended"),
        (raw(CHUNKED, chunk(b"data: [DONE]\n\n"), chunk(b"")), "died", "the connection ended"),
        (raw(CHUNKED, event(1), chunk(ERROR)), "refused", "HTTP 500"),
        (raw(CHUNKED, chunk(b'data: {"error": "no"}\n\n')), "refused", "an error"),
        (raw(CHUNKED, chunk(b"data: {\n\n")), "refused", "an unknown answer"),
        (raw(CHUNKED, chunk(b"data: 7\n\n")), "refused", "an unknown answer"),
        (
            raw(CHUNKED, chunk(b'data: {"choices": [{"logprobs": {"tokens": ["a"]}}]}\n\n')),
            "refused",
            "an unknown answer",
        ),
        (raw(CHUNKED, chunk(b"x" * (9 * 2**20))), "refused", "an answer above 8 MiB"),
        (answer({"error": {"message": "paused"}}, "503 Service Unavailable"), "refused", "HTTP 503"),
        (answer(b"", "302 Found"), "refused", "HTTP 302"),
        (raw(), "died", "the connection ended"),
        (silent, "hung", "no answer within 0.5 s"),
    ],
)
def test_a_completion_that_fails_says_how(listen: Listen, say: Say, how: str, code: str) -> None:
    engine, _ = listen(MODELS, say)
    with pytest.raises(EngineFailed) as told:
        engine.complete((1,), 3, 0.5 if say is silent else 20)
    assert (told.value.how, told.value.code) == (how, code)


def test_a_completion_without_a_token_is_none(listen: Listen) -> None:
    engine, _ = listen(MODELS, raw(CHUNKED, chunk(b'data: {"choices": [{"finish_reason": "abort"}]}\n\n'), chunk(b"")))
    with pytest.raises(EngineFailed, match="finish reason abort: nothing came"):
        engine.complete((1,), 3, 20)


def test_a_stream_is_in_flight_while_other_things_are_asked(listen: Listen) -> None:
    go = threading.Event()

    def held(client: socket.socket) -> None:
        client.sendall(CHUNKED + event(1))
        go.wait(20)
        client.sendall(event(2, "abort") + chunk(b"data: [DONE]\n\n") + chunk(b""))

    engine, _ = listen(MODELS, held, answer({"is_sleeping": False}))
    with engine.stream((1,), 9) as stream:
        first = stream.wait_piece(20)
        assert first is not None
        assert (first.tokens, stream.ended(0), stream.wait_piece(0)) == ((1,), None, None)
        assert engine.is_sleeping() is False
        go.set()
        assert stream.ended(20) == "abort"
        second = stream.wait_piece(20)
        assert second is not None
        assert (second.tokens, second.finish_reason, stream.wait_piece(20)) == ((2,), "abort", None)
        assert stream.wait_piece(20) is None
        assert stream.failure is None


@pytest.mark.parametrize("begun", [True, False])
def test_leaving_a_stream_closes_its_connection(listen: Listen, begun: bool) -> None:  # noqa: FBT001 # a case
    gone = threading.Event()

    def held(client: socket.socket) -> None:
        if begun:
            client.sendall(CHUNKED + event(1))
        if client.recv(1) == b"":
            gone.set()

    engine, server = listen(MODELS, held)
    with engine.stream((1,), 9) as stream:
        while len(server.asked) < 2:
            assert stream.wait_piece(0.05) is not None or stream.ended(0) is None
    assert gone.wait(20)
    assert stream.ended(20) == "broken"
    assert stream.failure is not None
    assert stream.failure.code == "left"


def test_a_stream_whose_engine_dies_is_broken(listen: Listen) -> None:
    engine, _ = listen(MODELS, raw(CHUNKED, event(1)))
    with engine.stream((1,), 9) as stream:
        assert stream.ended(20) == "broken"
        assert stream.failure is not None
        assert stream.failure.how == "died"
