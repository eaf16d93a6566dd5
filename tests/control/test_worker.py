"""A process of ours that answers line by line: what becomes of it when it does not."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from warmspare.control.worker import Died, Hung, Worker

ECHO = "import sys\nfor line in sys.stdin: print(line.strip() + '!', flush=True)"
SILENT = "import sys, signal\nfor line in sys.stdin: signal.pause()"
CRASHES = "import os, signal, sys\nfor line in sys.stdin: os.kill(os.getpid(), signal.SIGSEGV)"
LEAVES = "import sys\nsys.exit(7)"
SAY = "sys.stdout.write({!r}); sys.stdout.flush()"
SLOW_WORDS = f"import sys\nfor line in sys.stdin: {SAY.format('a')}; {SAY.format(chr(98) + chr(10) + 'c' + chr(10))}"
WHO = "import os, sys\nfor line in sys.stdin: print(os.getpid(), os.getsid(0), *sys.argv[1:], flush=True)"


def test_it_answers_a_line_with_a_line() -> None:
    worker = Worker(ECHO)
    assert [worker.ask(b"one", 10), worker.ask(b"two", 10)] == [b"one!", b"two!"]
    worker.close()


def test_an_answer_in_pieces_is_one_and_the_next_is_kept() -> None:
    worker = Worker(SLOW_WORDS)
    assert [worker.ask(b"?", 10), worker.ask(b"?", 10)] == [b"ab", b"c"]
    worker.close()


def test_one_that_does_not_answer_is_told_and_ended_by_close() -> None:
    worker = Worker(SILENT)
    with pytest.raises(Hung):
        worker.ask(b"?", 0.05)
    worker.close()
    assert worker._process.returncode == -signal.SIGKILL  # noqa: SLF001 # whether it is gone is what is shown


def test_how_it_died_is_told() -> None:
    worker = Worker(CRASHES)
    with pytest.raises(Died) as died:
        worker.ask(b"?", 10)
    assert died.value.code == f"signal {signal.SIGSEGV.value}"
    worker.close()


def test_one_that_has_left_is_told_at_the_next_question() -> None:
    worker = Worker(LEAVES)
    worker._process.wait(10)  # noqa: SLF001 # so that the pipe is broken for sure
    with pytest.raises(Died) as died:
        worker.ask(b"?", 10)
    assert died.value.code == "status 7"
    worker.close()


def test_it_has_a_session_of_its_own_and_knows_us() -> None:
    worker = Worker(WHO)
    pid, session, root, parent = worker.ask(b"?", 10).split()
    assert (pid, int(parent)) == (session, os.getpid())
    assert Path(root.decode(), "warmspare").is_dir()
    worker.close()


def test_it_sees_every_gpu_whatever_is_hidden_from_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("LD_LIBRARY_PATH", os.environ.get("LD_LIBRARY_PATH", "/opt/none"))
    worker = Worker("import os, sys\nfor line in sys.stdin: print(*sorted(os.environ), flush=True)")
    assert {name.decode() for name in worker.ask(b"?", 10).split()} >= os.environ.keys() - {"CUDA_VISIBLE_DEVICES"}
    assert b"CUDA_VISIBLE_DEVICES" not in worker.ask(b"?", 10).split()
    worker.close()
