"""The process of an engine core: calls come as lines of JSON, answers go as such lines."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from typing import NoReturn

from vllm.fake.core import Core
from vllm.fake.flags import parsed
from vllm.fake.plan import Fail, Plan, say
from vllm.fake.scheduler import Message


def listen(messages: queue.Queue[Message], plan: Plan) -> None:
    """Read calls until the API server is gone."""
    for line in sys.stdin:
        messages.put(json.loads(line))
    if not plan.has("orphan-core"):
        os._exit(0)


def main(replica: str, *arguments: str) -> NoReturn:
    """Load, and serve until the API server is gone."""
    plan = Plan.of_environment()
    if plan.has("orphan-core"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        plan.comes("start")
        core = Core(plan, parsed(list(arguments)), int(replica), list(arguments))
    except (Fail, OSError) as error:
        say("ERROR [core.py:1166] EngineCore failed to start.")
        say(f"ERROR [core.py:1166] ValueError: {error}")
        raise SystemExit(1) from None
    messages: queue.Queue[Message] = queue.Queue()
    threading.Thread(target=listen, args=(messages, plan), daemon=True).start()
    core.answer(0, result="ready")
    pause_s = plan.value("token-ms", 3) / 1000
    due = 0.0
    while True:
        if not core.runs():
            core.take(messages.get())
            continue
        due = max(due, time.monotonic())
        try:
            core.take(messages.get(timeout=max(due - time.monotonic(), 0.0)) if messages.empty() else messages.get())
        except queue.Empty:
            core.step()
            due = time.monotonic() + pause_s


if __name__ == "__main__":
    main(*sys.argv[1:])
