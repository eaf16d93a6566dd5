"""CRIU as a lever, for real: with a container's capabilities, and with a user's configuration in its way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from warmspare.control.criu import Criu

pytestmark = [pytest.mark.root, pytest.mark.criu]

DOCKER = (
    "chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap", "net_bind_service", "net_raw",
    "sys_chroot", "mknod", "audit_write", "setfcap",
)  # fmt: skip
"""The capabilities that Docker gives by itself. Source: moby, oci/caps/defaults.go."""


def only(*capabilities: str) -> tuple[str, ...]:
    """A command in front of another that leaves it these capabilities."""
    kept = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    return "setpriv", f"--inh-caps={kept}", f"--bounding-set={kept}"


@pytest.mark.parametrize(
    ("more", "outcome"),
    [
        (("checkpoint_restore", "sys_ptrace"), ("done", None)),
        ((), ("refused", "denied")),
    ],
)
def test_a_root_without_sys_admin(
    environment: dict[str, str], more: tuple[str, ...], outcome: tuple[str, str | None]
) -> None:
    command = [*only(*DOCKER, *more), sys.executable, "-m", "warmspare", "snapshot", "criugpu", "-o", "-"]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    readings = {entry["fact"]: entry["reading"] for entry in json.loads(made.stdout)["readings"]}
    seen = readings["criu_roundtrip"]["value"]["outcome"]
    assert (seen["kind"], seen["code"]) == outcome, seen


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that can be dumped."""
    with subprocess.Popen(["/bin/sleep", "600"], stdin=-3, stdout=-3, stderr=-3, start_new_session=True) as started:
        yield started
        started.kill()


@pytest.mark.parametrize("place", ["home", "variable"])
def test_the_users_configuration_does_not_steer_it(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/acted\n")
    script.chmod(0o755)
    images, home = tmp_path / "images", tmp_path / "home"
    images.mkdir()
    (home / ".criu").mkdir(parents=True)
    planted = home / ".criu" / "default.conf" if place == "home" else tmp_path / "conf"
    planted.write_text(f"leave-running\naction-script {script}\n")
    monkeypatch.setenv("HOME", str(home))
    if place == "variable":
        monkeypatch.setenv("CRIU_CONFIG_FILE", str(planted))
    criu = Criu.found()
    assert criu
    ended = criu.dump(sleeper.pid, images)
    assert ended.status == 0, ended
    assert sleeper.wait(20) == -9, "it was not left running"
    assert not (tmp_path / "acted").exists()
    assert os.environ["HOME"] == str(home)
