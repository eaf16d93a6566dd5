"""What all tests share: the tool as its user runs it, and honest skipping."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from warmspare.control.process import find_program

Tool = Callable[..., subprocess.CompletedProcess[str]]
CI: Final = bool(os.environ.get("CI"))
PLUGIN: Final = Path(os.environ.get("WARMSPARE_CRIU_PLUGIN") or Path(__file__).parent.parent / ".criu" / "plugin")
"""The folder that scripts/fetch-criu-plugin makes."""


def pytest_configure() -> None:
    """Tests send these signals; started under nohup or as a background job they would be ignored by all children."""
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
        (signal.SIGTERM, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot do, with the reason; in CI, where all of it can be done, it fails instead."""
    can_not = {
        "root": None if os.geteuid() == 0 else "needs root",
        "criu": None if find_program("criu", os.environ) else "needs a CRIU: scripts/fetch-criu brings one",
        "podman": None if find_program("podman", os.environ) else "needs Podman: scripts/fetch-podman brings it",
        "plugin": None
        if (PLUGIN / "cuda_plugin.so").exists()
        else "needs a plugin: scripts/fetch-criu-plugin builds it",
        "gpu": None if Path("/proc/driver/nvidia/version").exists() else "needs a GPU: see tests/hosts",
    }
    for item in items:
        for mark, reason in can_not.items():
            if reason and item.get_closest_marker(mark) and (mark == "gpu" or not CI):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a run: whole, with a state folder of its own."""
    return {**os.environ, "WARMSPARE_STATE_DIR": str(tmp_path / "state")}


@pytest.fixture
def tool(environment: dict[str, str]) -> Tool:
    """Run `warmspare ARGS…` as a process of its own; keywords go to subprocess.run, `env` only adds."""

    def run(*args: str, env: dict[str, str] | None = None, **more: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "warmspare", *args]
        options: dict[str, object] = {"capture_output": True, "text": True, "timeout": 60, **more}
        return subprocess.run(command, env={**environment, **(env or {})}, check=False, **options)  # type: ignore[call-overload,no-any-return]

    return run
