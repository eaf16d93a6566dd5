"""A state kept on a second GPU, and taken over when its owner is killed: two processes, one command.

    python examples/replica.py [--writer-gpu GPU-…] [--reader-gpu GPU-…] [--mib 256] [--seconds 3]

This process is the reader. It starts the writer, prints how far behind it is, kills the writer after some seconds, and
shows what it has then. GPUs are named by UUID or PCI address; the first two are taken if none is named.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from warmspare.control.cuda import Driver
from warmspare.control.kernels import Kernels
from warmspare.replica import Reader, Version, Writer


def write(gpu: str, link: str) -> None:
    """The owner of the state, which changes it and publishes it for ever."""
    with Writer(gpu, link) as writer:
        kernels, size = Kernels(writer.context), writer.layout.size
        state = writer.context.allocate(size)  # with torch: state.data_ptr(), and the stream that it is computed on
        version = 0
        while True:
            kernels.fill(state.pointer, size, seed=version + 1)
            version = writer.publish(state.pointer) or version


def read(options: argparse.Namespace, folder: Path) -> int:
    """The spare: 0 if it took over a whole version."""
    versions: list[Version] = []
    link = folder / "socket"
    size = options.mib << 20
    with Reader(options.reader_gpu, size, link, on_version=versions.append, on_death=_take_over) as reader:
        checks = Kernels(reader.context)
        command = [sys.executable, __file__, "--writer-gpu", options.writer_gpu, "--link", str(link)]
        with subprocess.Popen(command) as writer:
            until = time.monotonic() + options.seconds
            while time.monotonic() < until or not versions:
                if ended := reader.wait(0.2):
                    print(f"the writer ended: {ended.problem or ended.how}")
                    return 1
                if versions and (lag_s := versions[-1].lag_s) is not None:
                    print(f"version {versions[-1].number}, {lag_s * 1e3:.1f} ms behind", flush=True)
            killed = time.monotonic()
            os.kill(writer.pid, signal.SIGKILL)
            ended = reader.wait(10)
        if not ended or not ended.version:
            print("nothing was taken over")
            return 1
        print(f"taken over {(ended.verified_s - killed) * 1e3:.1f} ms after the kill")
        version = ended.version
        wrong = checks.check(version.pointer, version.size, seed=version.number).wrong
        print(f"version {version.number} is whole" if not wrong else f"{wrong} words are WRONG")
        return int(wrong > 0)


def _take_over(version: Version | None) -> None:
    print(f"the writer is dead; version {version.number if version else None} is ours", flush=True)


def main() -> int:
    """Be the reader, or, given a link, the writer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writer-gpu")
    parser.add_argument("--reader-gpu")
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--link", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.link:
        write(options.writer_gpu, options.link)
    listed = [device.uuid for device in Driver().devices()]
    options.writer_gpu = options.writer_gpu or listed[0]
    options.reader_gpu = options.reader_gpu or listed[min(1, len(listed) - 1)]
    with tempfile.TemporaryDirectory() as folder:
        return read(options, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
