"""A server of our own, by real processes: started, followed, and ended whole, whoever dies first."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from warmspare.control import process
from warmspare.control.vllm import EngineFailed, Tcp, Unix
from warmspare.control.vllm_command import command, environment, place
from warmspare.control.vllm_log import Log
from warmspare.control.vllm_server import Asked, BadFlags, Server

Ask = Callable[..., Asked]
GONE_S = 30.0
FOLLOWS = "Engine core initialization failed. See root cause above."

API_SERVER = """
import http.server, json, os, signal, socketserver, subprocess, sys
sys.stdout.write("Starting to load model x...\\rCapturing CUDA graphs (PIECEWISE): 100%\\n"); sys.stdout.flush()
mood = os.environ["MOOD"]
child = subprocess.Popen([sys.executable, "-c", "import signal; print(1, flush=True); signal.pause()"],
                         stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
told = {"pid": os.getpid(), "child": child.pid, "session": os.getsid(0), "argv": sys.argv, "env": dict(os.environ)}
with open(os.environ["TOLD"] + ".new", "w") as file:
    json.dump(told, file)
os.rename(os.environ["TOLD"] + ".new", os.environ["TOLD"])
if mood == "dies":
    print("(EngineCore_DP0 pid=7) ERROR 11-22 [core.py:9] \\x1b[1mValueError: Free memory on device is less\\x1b[0m")
    raise RuntimeError("Engine core initialization failed. See root cause above.")
if mood == "dies silently":
    os._exit(3)
if mood == "never ready":
    signal.pause()
if mood == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def do_POST(self):
        os._exit(1)
    def log_message(self, *_):
        pass
class Listening(socketserver.UnixStreamServer):
    def get_request(self):
        return super().get_request()[0], ("", 0)
Listening(sys.argv[sys.argv.index("--uds") + 1], Handler).serve_forever()
"""


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    module = tmp_path / "packages/vllm/entrypoints/openai/api_server.py"
    module.parent.mkdir(parents=True)
    module.write_text(API_SERVER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    monkeypatch.setenv("TOLD", str(tmp_path / "told.json"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def asked(mood: str = "healthy", **others: object) -> Asked:
        monkeypatch.setenv("MOOD", mood)
        folder = tmp_path / "f"
        folder.mkdir()
        return Asked(**{"python": sys.executable, "model": "some/model", "folder": folder, **others})  # type: ignore[arg-type]

    return asked


def quiet(_: str) -> None:
    """Nobody asks."""


def told(tmp_path: Path) -> dict[str, object]:
    return dict(json.loads((tmp_path / "told.json").read_text()))


def family(tmp_path: Path) -> list[int]:
    return [int(str(told(tmp_path)[name])) for name in ("pid", "child")]


def gone(pid: int) -> bool:
    """Whether it has ended, or does in time; one that is dead and not yet reaped has ended."""
    with process.holding(pid) as descriptor:
        return descriptor is None or bool(process.ready([descriptor], GONE_S))


def test_it_is_ready_once_it_is_healthy_and_leaves_nothing(ask: Ask, tmp_path: Path) -> None:
    words: list[str] = []
    with Server(ask(flags=("--max-model-len", "2048"))) as server:
        assert 0 < server.ready(60, words.append) < 60
        assert words == ["loading weights", "capturing graphs"]
        assert not server.has_ended()
        assert server.engine.health() == 200
        api_server, child = family(tmp_path)
        assert server.pid == api_server
        assert "Capturing" in server.tail()
    assert gone(api_server)
    assert gone(child)
    assert [path.name for path in (tmp_path / "f").iterdir()] == ["log"]
    server.stop()


def test_it_is_asked_for_sleep_mode_on_a_socket_of_its_folder(ask: Ask, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    wanted = ask(flags=("-tp", "2"), gpus=("GPU-a", "GPU-b"), model=str(model), caches=tmp_path / "kept")
    with Server(wanted) as server:
        server.ready(60, quiet)
        assert server.engine.is_local
    said = told(tmp_path)
    argv, env = list(said["argv"])[1:], dict(said["env"])  # type: ignore[call-overload] # as JSON has it
    folder = str(tmp_path / "f")
    assert argv == ["--model", str(model), "--enable-sleep-mode", "-tp", "2", "--uds", f"{folder}/s"]
    expected = {
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b",
        "VLLM_CACHE_ROOT": f"{tmp_path}/kept/vllm",
        "TORCHINDUCTOR_CACHE_DIR": f"{tmp_path}/kept/inductor",
        "TRITON_CACHE_DIR": f"{tmp_path}/kept/triton",
    }
    assert {name: env.get(name) for name in expected} == expected
    assert env["PATH"] == os.environ["PATH"]


def test_the_terminals_interrupt_does_not_reach_it(ask: Ask, tmp_path: Path) -> None:
    with Server(ask()) as server:
        server.ready(60, quiet)
        assert told(tmp_path)["session"] != os.getsid(0)


def test_caches_of_the_users_own_model_stay_the_users(ask: Ask) -> None:
    env = environment(ask(), {"TRITON_CACHE_DIR": "/mine", "X": "y"})
    assert (env["TRITON_CACHE_DIR"], env["X"]) == ("/mine", "y")
    assert "VLLM_CACHE_ROOT" not in env
    assert "CUDA_VISIBLE_DEVICES" not in env
    assert "HF_HUB_OFFLINE" not in env


def test_a_folder_named_vllm_where_we_stand_is_not_run(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / "here/vllm/entrypoints/openai/api_server.py"
    planted.parent.mkdir(parents=True)
    planted.write_text("raise ValueError('planted')")
    monkeypatch.chdir(tmp_path / "here")
    with Server(ask()) as server:
        server.ready(60, quiet)


def test_one_that_does_not_heed_is_killed_with_its_children(ask: Ask, tmp_path: Path) -> None:
    server = Server(ask("stubborn"))
    server.ready(60, quiet)
    server.stop(0.1)
    assert [gone(pid) for pid in family(tmp_path)] == [True, True]


def test_one_that_dies_at_its_start_says_why_and_not_what_followed(ask: Ask, tmp_path: Path) -> None:
    with Server(ask("dies")) as server:
        with pytest.raises(EngineFailed) as raised:
            server.ready(60, quiet)
        assert server.has_ended()
        assert "See root cause above" in server.tail(3)
    assert raised.value.how == "died"
    assert raised.value.detail == "starting vLLM: ValueError: Free memory on device is less"
    assert all(gone(pid) for pid in family(tmp_path))


def test_one_that_dies_without_a_word_is_told_too(ask: Ask) -> None:
    with Server(ask("dies silently")) as server, pytest.raises(EngineFailed, match="its log says nothing: it ended"):
        server.ready(60, quiet)


def test_one_that_is_never_ready_is_told_with_its_last_line(ask: Ask, tmp_path: Path) -> None:
    with Server(ask("never ready")) as server:
        while not (tmp_path / "told.json").exists():
            assert not server.wait_ended(0.05)
        with pytest.raises(EngineFailed) as raised:
            server.ready(0.2, quiet)
    assert (raised.value.how, raised.value.code) == ("hung", "not ready within 0.2 s")
    assert "Capturing CUDA graphs" in raised.value.detail


def test_one_that_dies_later_is_known_to_have_ended(ask: Ask, tmp_path: Path) -> None:
    with Server(ask()) as server:
        server.ready(60, quiet)
        with pytest.raises(EngineFailed):
            server.engine.sleep()
        assert server.wait_ended(GONE_S)
        assert all(gone(pid) for pid in family(tmp_path))


def test_without_vllm_it_says_so(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ask()
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    with Server(asked) as server, pytest.raises(EngineFailed, match="ModuleNotFoundError: No module named 'vllm'"):
        server.ready(60, quiet)


def test_a_python_that_is_not_there_is_refused_at_once(ask: Ask) -> None:
    with pytest.raises(EngineFailed) as raised:
        Server(ask(python="/nowhere/python3"))
    assert (raised.value.code, raised.value.how) == ("ENOENT", "refused")


HOLD = """
import sys, json
from pathlib import Path
from warmspare.control.vllm_server import Asked, Server
server = Server(Asked(python=sys.executable, model="m", folder=Path(sys.argv[1])))
server.ready(60, str)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("who", ["we", "the minder"])
def test_whoever_is_killed_the_server_goes_with_it(ask: Ask, tmp_path: Path, who: str) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(ask().folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{os.environ['PYTHONPATH']}:{Path(process.__file__).parents[2]}"},
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        api_server, child = family(tmp_path)
        minder = (process.started(api_server) or (0,))[0]
        os.kill(holder.pid if who == "we" else minder, signal.SIGKILL)
        try:
            assert gone(api_server)
            if who == "we":  # else the child is its next subreaper's, which in a trial is the keeper
                assert gone(child)
                assert gone(minder)
        finally:
            holder.kill()
            if who != "we":
                os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_minder_that_is_asked_to_stop_ends_all(ask: Ask, tmp_path: Path, number: signal.Signals) -> None:
    with Server(ask()) as server:
        server.ready(60, quiet)
        os.kill((process.started(server.pid) or (0,))[0], number)
        assert server.wait_ended(GONE_S)
        assert all(gone(pid) for pid in family(tmp_path))


@pytest.mark.parametrize(
    "flag",
    [
        "--host",
        "--port=8000",
        "--uds",
        "--api-key",
        "--api_key=x",
        "--ssl-keyfile",
        "--ssl_certfile=x",
        "--por",
        "--no-enable-sleep-mode",
        "--model",
    ],
)
def test_flags_that_would_take_it_out_of_our_hands_are_refused(ask: Ask, flag: str) -> None:
    with pytest.raises(BadFlags, match="this is set here"):
        Server(ask(flags=("--max-model-len", "1", flag)))


def test_sleep_mode_is_asked_for_once(ask: Ask) -> None:
    asked = ask(flags=("--enable-sleep-mode", "--hf-overrides", "{}", "-dp", "2"))
    assert command(asked, Unix("/s")).count("--enable-sleep-mode") == 1


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        (None, Unix),
        ("0.26.0", Unix),
        ("0.10.2", Unix),
        ("0.10.1.1", Tcp),
        ("0.8.5.post1", Tcp),
        ("1.0", Unix),
        ("0.1.dev1+g0a1b2c3", Unix),
    ],
)
def test_an_older_one_listens_on_the_loopback(ask: Ask, version: str | None, kind: type) -> None:
    assert isinstance(place(ask(version=version)), kind)


def test_a_socket_whose_path_would_be_too_long_is_a_port(ask: Ask, tmp_path: Path) -> None:
    asked = ask(folder=tmp_path / ("x" * 120))
    where = place(asked)
    assert isinstance(where, Tcp)
    assert command(asked, where)[-4:] == ["--host", "127.0.0.1", "--port", str(where.port)]
    assert "VLLM_RPC_BASE_PATH" not in environment(asked, {})


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        (
            ["torch.OutOfMemoryError: CUDA", f"RuntimeError: {FOLLOWS}"],
            "torch.OutOfMemoryError: CUDA",
        ),
        (["api_server.py: error: unrecognized arguments: --uds x"], "error: unrecognized arguments: --uds x"),
        (
            [f"RuntimeError: {FOLLOWS}"],
            f"RuntimeError: {FOLLOWS}",
        ),
        (["ValueError: first", "KeyError: last", "INFO fine"], "KeyError: last"),
        (["INFO fine", ""], None),
        ([], None),
    ],
)
def test_the_telling_line_of_a_log(tmp_path: Path, lines: list[str], line: str | None) -> None:
    (tmp_path / "log").write_text("\n".join(lines))
    assert Log(tmp_path / "log").telling() == line


def test_a_log_is_read_from_its_end_and_its_news_once(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    assert (list(log.news()), log.tail(3), log.last()) == ([], "", "its log says nothing")
    with log.path.open("w") as file:
        file.write("x" * 300_000 + "\nStarting to load mod")
        file.flush()
        assert [*log.news(), *log.news()] == []
        file.write("el\nStarting to load model\nDynamo bytecode transform\n")
        file.flush()
        assert [*log.news(), *log.news()] == ["loading weights", "compiling"]
    assert log.tail(2) == "Starting to load model\nDynamo bytecode transform"
    assert log.tail(0) == ""
