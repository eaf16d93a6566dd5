"""The program `cuda-checkpoint`, as `warmspare shim` writes it: the same words as NVIDIA's, by the driver's own calls.

CRIU's CUDA plugin starts it some ten times a process and waits for each, so it imports the standard library and the
driver's calls, and nothing else: what it takes is Python's start. The plugin reads both of its streams as one, at most
127 bytes of them, and takes any exit but 0 of `--get-restore-tid` for "no CUDA process".

A call into the driver may never return, and one that is killed must not take the answer with it. So each is made in a
fork of this process, which ends with it: CRIU kills this process at its own time limit, we kill the fork at ours. The
fork holds none of the caller's pipes: one that is stuck in the kernel, beyond all signals, keeps nobody waiting.

Source: CRIU 4.1.1, plugins/cuda/cuda_plugin.c; checkpoint-restore/criu#2435 (NVIDIA's own help); CUDA driver API, group
CUDA_CHECKPOINT.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple, NoReturn

from warmspare.control import cuda_abi as abi
from warmspare.control.checkpoint_worker import CALLS, call
from warmspare.control.cuda_driver import CudaError, Driver
from warmspare.control.process import die_with_parent, first

NAME: Final = "cuda-checkpoint"
START: Final = (
    "import sys; sys.path.append(sys.argv.pop(1));"
    " from warmspare.runtime import cuda_checkpoint; cuda_checkpoint.main()"
)
"""The Python text that is this program. Its first argument is the folder of this package."""
LEAVES: Final = MappingProxyType({
    "lock": "locked", "checkpoint": "checkpointed", "restore": "locked", "unlock": "running",
})  # fmt: skip
"""The state that each action must leave: it is asked after each, since a call's word is not its deed."""
TOGGLES: Final = MappingProxyType({"running": ("lock", "checkpoint"), "checkpointed": ("restore", "unlock")})
ASK_S: Final = 5.0
ACT_S: Final = 600.0
"""How long an action may take: as long as a checkpoint of 600 GiB at the slowest pace that was ever measured."""
BEYOND_S: Final = 5.0
"""What a lock may take beyond its own time limit."""
FAILED: Final = 1
MOST: Final = 2**31 - 1
"""The highest process id that the driver's calls take."""


class Refused(Exception):
    """What was asked was not done; the message is one line that says why."""


class Asked(NamedTuple):
    """One run of the program: which of its words, about which process, and how long a lock may wait (0: for ever)."""

    word: str
    pid: int
    timeout_ms: int

    @property
    def deadline_s(self) -> float:
        """How long the driver may take to answer."""
        if self.word in ("get-state", "get-restore-tid"):
            return ASK_S
        if self.word == "lock" and self.timeout_ms:
            return self.timeout_ms / 1000 + BEYOND_S
        return ACT_S


def main() -> NoReturn:
    """Do what the command line asks and exit: 0 done, 1 not done, 2 usage."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    status, out, err = run(parsed(sys.argv[1:]), carried_out)
    for stream, text in ((1, out), (2, err)):
        if text:
            os.write(stream, text.encode())
    sys.exit(status)


def parsed(arguments: Sequence[str]) -> Asked:
    """What the words mean; --help and what they cannot mean exit."""
    parser = argparse.ArgumentParser(
        prog=NAME,
        allow_abbrev=False,
        description="Checkpoint and restore of CUDA processes by the driver's own calls, of warmspare.",
        epilog="Exit status: 0 done, 1 not done (stderr says why, with the driver's result), 2 usage.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--action", choices=tuple(LEAVES), help="do this to the process")
    what.add_argument("--toggle", action="store_true", help="checkpoint a running process, resume a checkpointed one")
    what.add_argument("--get-state", action="store_true", help="print running, locked, checkpointed or failed")
    what.add_argument("--get-restore-tid", action="store_true", help="print the process's thread that restores it")
    parser.add_argument("--pid", type=_natural, required=True, help="the process")
    parser.add_argument(
        "--timeout", type=_natural, default=0, metavar="MS", help="how long a lock waits for work to end (for ever)"
    )
    given = parser.parse_args(arguments)
    if not given.pid:
        parser.error("argument --pid: 0 is no process")
    flags = {"toggle": given.toggle, "get-state": given.get_state, "get-restore-tid": given.get_restore_tid}
    word = given.action or next(name for name, is_asked in flags.items() if is_asked)
    return Asked(word, given.pid, given.timeout)


def _natural(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= MOST):
        message = f"{text[:20]!r} is no whole number from 0 to {MOST}"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def run(asked: Asked, work: Callable[[Asked], str]) -> tuple[int, str, str]:
    """`work` done in a fork, by its deadline: exit status, and what goes to stdout and stderr."""
    source, sink = os.pipe()
    us = os.getpid()
    worker = os.fork()
    if worker == 0:
        _work(asked, work, sink, us)
    os.close(sink)
    _, has_ended = first((), worker, asked.deadline_s)
    if not has_ended:
        os.kill(worker, signal.SIGKILL)  # not waited for: one that hangs in the kernel is left to it
        return FAILED, "", _line(f"{asked.word}: no answer in {asked.deadline_s:g} s; ask the state of {asked.pid}")
    status = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    with os.fdopen(source, "rb") as answers:
        answer = answers.read().decode()
    if status == 0:
        return 0, f"{answer}\n" if answer else "", ""
    how = f"signal {-status}" if status < 0 else f"status {status}"
    return FAILED, "", _line(answer or f"{asked.word}: its caller ended, {how}; ask the state of {asked.pid}")


def _line(text: str) -> str:
    return f"{NAME}: {text}\n"


def _work(asked: Asked, work: Callable[[Asked], str], sink: int, parent: int) -> NoReturn:
    """The fork: its answer through `sink`, and an exit that runs nothing of what it was forked from."""
    status = FAILED
    try:
        die_with_parent(parent)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):  # what a driver prints is no answer
            os.dup2(nowhere, stream)
        try:
            answer = work(asked)
            status = 0
        except (CudaError, Refused) as error:
            answer = str(error)
        os.write(sink, answer.encode())
    finally:
        os._exit(status)


def carried_out(asked: Asked) -> str:
    """What the driver answers; "" for an action that is done.

    Raises:
        CudaError: it refuses.
        Refused: it said that it was done, and it was not; or there is nothing to toggle to.
    """
    driver = Driver(initialise=False)
    if asked.word == "get-restore-tid":
        return str(call(driver, "restore thread", {"pid": asked.pid}))
    if asked.word == "get-state":
        return _state(driver, asked.pid)
    if asked.word == "toggle":
        _toggle(driver, asked)
    else:
        _act(driver, asked, asked.word)
    return ""


def _state(driver: Driver, pid: int) -> str:
    number = call(driver, "state", {"pid": pid})
    if number is None or number >= len(abi.PROCESS_STATES):
        message = f"{CALLS['state']}: state {number}, which is not known here"
        raise Refused(message)
    return abi.PROCESS_STATES[number]


def _act(driver: Driver, asked: Asked, action: str) -> None:
    if action == "restore":  # the one call that wants a caller with CUDA
        driver.initialise()
    request: dict[str, Any] = {"pid": asked.pid, "timeout_ms": asked.timeout_ms, "gpus": {}}
    call(driver, action, request)
    if (state := _state(driver, asked.pid)) != LEAVES[action]:
        message = f"{CALLS[action]}: 0 CUDA_SUCCESS, and process {asked.pid} is {state}"
        raise Refused(message)


def _toggle(driver: Driver, asked: Asked) -> None:
    state = _state(driver, asked.pid)
    if state not in TOGGLES:
        message = f"toggle: process {asked.pid} is {state}, neither running nor checkpointed"
        raise Refused(message)
    begun, ended = TOGGLES[state]
    _act(driver, asked, begun)
    try:
        _act(driver, asked, ended)
    except (CudaError, Refused):
        if ended == "checkpoint":  # refused, or only said to be done: it stays locked
            _act(driver, asked, "unlock")
        raise
