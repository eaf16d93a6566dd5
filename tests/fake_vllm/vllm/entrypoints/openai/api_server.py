"""`python -m vllm.entrypoints.openai.api_server FLAGS`."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Final

from vllm.fake.client import Engine
from vllm.fake.flags import parsed
from vllm.fake.plan import Plan, say
from vllm.fake.server import Handler, Service

WATCHDOG_S: Final = 0.3
"""vLLM looks every 5 s whether its core is still there."""


class UnixServer(socketserver.ThreadingUnixStreamServer):
    """HTTP over a unix socket."""

    daemon_threads = True
    request_queue_size = 64


class TcpServer(http.server.ThreadingHTTPServer):
    """HTTP over TCP."""

    daemon_threads = True
    request_queue_size = 64
    address_family = socket.AF_INET


def resource_tracker() -> subprocess.Popen[bytes]:
    """As Python's multiprocessing has it: it ends with this process, and signals do nothing to it."""
    code = "import signal, sys; [signal.signal(n, signal.SIG_IGN) for n in (2, 15)]; sys.stdin.read()"
    python = Path(sys.executable).with_name("python3")  # its short name is that of the real one
    executable = str(python) if python.exists() else sys.executable
    return subprocess.Popen(
        ["python3", "-I", "-S", "-c", code],
        executable=executable,
        env={**os.environ, "PYTHONHOME": sys.base_prefix},
        stdin=subprocess.PIPE,
    )


def ended(plan: Plan, engine: Engine, code: int) -> None:
    """Stop the cores and end."""
    if not plan.has("orphan-core"):
        engine.stop()
    os._exit(code)


def watch(plan: Plan, engine: Engine, service: Service) -> None:
    """End when a core has ended: at once if a request met it, else a little later."""
    while not engine.dead:
        time.sleep(0.02)
    service.died.wait(WATCHDOG_S)
    time.sleep(0.05)
    say("INFO [launcher.py:110] Shutting down")
    ended(plan, engine, 0)


def main(arguments: list[str]) -> None:
    """Load, listen, serve until told to stop."""
    plan, asked = Plan.of_environment(), parsed(arguments)
    say(f"INFO [api_server.py:1] vLLM API server version {plan.version}")
    if plan.has("die-at-start"):
        say("Traceback (most recent call last):")
        say("ValueError: Model architectures ['Fake'] failed to be inspected. Please check the logs for more details.")
        raise SystemExit(1)
    if plan.has("hang-at-start"):
        threading.Event().wait()
    time.sleep(plan.value("slow-start", 30, unsaid=0))
    tracker = resource_tracker()
    engine = Engine(plan, asked.data_parallel_size, arguments)

    def stop(_number: int, _frame: FrameType | None) -> None:
        if not plan.has("ignores-sigterm"):
            threading.Thread(target=ended, args=(plan, engine, 0)).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if not engine.ready():
        say("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}")
        ended(plan, engine, 1)
    say("INFO [core.py:290] init engine (profile, create kv cache, warmup model) took 0.01 seconds")
    service = Service(plan, engine, asked)
    handler = type("Handler", (Handler,), {"service": service})
    server: socketserver.BaseServer
    if asked.uds:
        Path(asked.uds).unlink(missing_ok=True)
        server = UnixServer(asked.uds, handler)
    else:
        server = TcpServer((asked.host or "0.0.0.0", asked.port), handler)  # noqa: S104 # as vLLM
    threading.Thread(target=watch, args=(plan, engine, service), daemon=True).start()
    if service.has_dev:
        say("WARNING SECURITY WARNING: Development endpoints are enabled! This should NOT be used in production!")
    say(f"INFO [api_server.py:677] Starting vLLM server on {asked.uds or asked.port}")
    say("INFO:     Application startup complete.")
    with tracker:
        server.serve_forever(0.05)


if __name__ == "__main__":
    main(sys.argv[1:])
