"""How a scene is played on stand-in drivers: each in a process of its own, since a library once loaded stays.

A scene is a function of a file that ends with `perform(globals())`; it gives its answer, or says it line by line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from warmspare.control.cuda import Buffer, Context, CudaError, Driver, Stream
from warmspare.control.kernels import WORD_BYTES

SIZE: Final = 256 * 1024
"""Bytes of a buffer whose every word is compared, also by Python."""
WORDS: Final = SIZE // WORD_BYTES
MUCH: Final = 16 << 20
"""Bytes of a copy that is timed."""
SEED: Final = 20261122
DEADLINE_S: Final = 30.0


def _command(scene: Callable[..., object], *arguments: str) -> list[str]:
    return [sys.executable, scene.__code__.co_filename, scene.__name__, *arguments]


def environment(env: dict[str, str]) -> dict[str, str]:
    """This world's, for a process that plays a scene."""
    paths = (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))
    return {**os.environ, **env, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def played(env: dict[str, str], scene: Callable[[], object], timeout_s: float = DEADLINE_S) -> Any:  # noqa: ANN401
    """What a scene answers in this world.

    Raises:
        subprocess.TimeoutExpired: it hung.
        subprocess.CalledProcessError: it died.
    """
    ran = subprocess.run(_command(scene), env=environment(env), capture_output=True, timeout=timeout_s, check=True)
    return json.loads(ran.stdout)


def began(env: dict[str, str], scene: Callable[..., None], *arguments: str) -> subprocess.Popen[str]:
    """A scene that goes on in lines over its stdin and stdout."""
    command, pipe = _command(scene, *arguments), subprocess.PIPE
    return subprocess.Popen(command, env=environment(env), stdin=pipe, stdout=pipe, text=True)


def say(answer: object) -> None:
    """A line to who began the scene."""
    sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()


def perform(scenes: dict[str, Any]) -> None:
    """Play the scene that the command line names."""
    answer = scenes[sys.argv[1]](*sys.argv[2:])
    if answer is not None:
        say(answer)


def refusal(act: Callable[[], object]) -> tuple[str, int | None, str] | None:
    """The call, the result and its name of what the driver refused; None if it did not."""
    try:
        act()
    except CudaError as error:
        return error.call, error.result, error.name
    return None


def contexts() -> list[Context]:
    return [Context(device) for device in Driver().devices()]


def words_of(buffer: Buffer, count: int) -> list[int]:
    data = buffer.read(count * WORD_BYTES)
    return [int.from_bytes(data[at : at + WORD_BYTES], "little") for at in range(0, len(data), WORD_BYTES)]


def put(buffer: Buffer, words: Iterable[int]) -> None:
    buffer.write(b"".join(one.to_bytes(WORD_BYTES, "little") for one in words))


def timed(context: Context, work: Callable[[Stream], None]) -> float:
    stream = context.stream()
    start = context.event().record(stream)
    work(stream)
    return context.event().record(stream).since_s(start)
