"""Whole runs where the kernel, or a container's filter, refuses a system call that is good to have."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from filters import PIDFD_OPEN, PTRACE, refusing
from leftovers import Corner
from warmspare.control.process import find_program
from worlds import TOOL

PREFIXES = [(), refusing(PIDFD_OPEN, errno.ENOSYS), refusing(PIDFD_OPEN, errno.EPERM)]

HOST = """
from warmspare.host.live import LiveHost
from warmspare.host.port import Unreadable

def said(verb, *args):
    try:
        return getattr(host, verb)(*args)
    except Unreadable as refusal:
        return refusal.cause.value

with LiveHost({"run": 1.0}) as host:
    ran = said("run", "sh", "-c", "setsid sleep 600 & echo out; echo err >&2; exit 7")
    print(ran.status, ran.stdout, ran.stderr)
    print(said("run", "sh", "-c", "setsid sleep 600 & exec >&- 2>&-; exec sleep 600"))
    print(said("run", "sh", "-c", "kill -KILL $PPID; exec sleep 600"))
    print(said("run", "yes"), said("read", "/proc/self/comm").strip() != "")
"""


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_verb_keeps_its_promises_without_pidfds(
    tmp_path: Path, environment: dict[str, str], prefix: tuple[str, ...]
) -> None:
    corner = Corner(tmp_path / "scratch")
    command = [*prefix, sys.executable, "-c", HOST]
    ran = subprocess.run(command, env={**environment, **corner.env}, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["7", "out", "err", "timeout", "crashed", "timeout", "True"]
    assert corner.left_in_the_end() == {}


@pytest.mark.root
@pytest.mark.criu
@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_round_trip_is_tried_without_pidfds(
    tmp_path: Path, environment: dict[str, str], prefix: tuple[str, ...]
) -> None:
    corner = Corner(tmp_path / "scratch")
    command = [*prefix, *TOOL, "snapshot", "criugpu", "-o", "-"]
    ran = subprocess.run(command, env={**environment, **corner.env}, capture_output=True, text=True, check=True)
    readings = {entry["fact"]: entry["reading"] for entry in json.loads(ran.stdout)["readings"]}
    outcome = readings["criu_roundtrip"]["value"]["outcome"]
    # Behind a filter of its own, whichever, CRIU may not suspend another's.
    assert (outcome["kind"], outcome["code"]) == (("refused", "seccomp") if prefix else ("done", None))
    assert readings["pidfd"]["value"]["works"] is (prefix == ())
    assert {fact for fact, reading in readings.items() if reading.get("cause") == "crashed"} == set()
    assert corner.left_in_the_end() == {}


@pytest.mark.root
@pytest.mark.criu
@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSYS])
def test_a_criu_that_may_not_trace_is_denied_and_not_too_old(environment: dict[str, str], code: int) -> None:
    command = [*refusing(PTRACE, code), *TOOL, "snapshot", "criugpu", "-o", "-"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    readings = {entry["fact"]: entry["reading"] for entry in json.loads(ran.stdout)["readings"]}
    assert readings["criu_roundtrip"]["value"]["outcome"]["code"] == "denied"
    assert readings["criu_check"]["cause"] == "denied"
    assert "ptrace" in readings["criu_check"]["detail"]


MANY = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
for _ in range(1100):
    os.set_inheritable(os.open("/dev/null", os.O_RDONLY), True)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_tool_with_many_open_files_works(environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", MANY, *TOOL, "snapshot", "--quick", "criugpu", "-o", "-"]
    env = {**environment, "WARMSPARE_CRIU": find_program("false", {}) or ""}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    readings = {entry["fact"]: entry["reading"] for entry in json.loads(ran.stdout)["readings"]}
    assert readings["criu_roundtrip"]["value"]["outcome"]["kind"] == "refused"
    assert {fact for fact, reading in readings.items() if reading.get("cause") == "crashed"} == set()
