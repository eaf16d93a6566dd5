"""Real processes to disk and back with a real CRIU; what stops half-way, and what is damaged in between."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from saved_scenes import Saved, as_parent, reads_sockets

from conftest import Tool
from leftovers import small_disk, until
from warmspare.control import process
from worlds import TOOL, fake

pytestmark = [pytest.mark.root, pytest.mark.criu]
FORCE = ("--no-gpu", "--force")  # the proofs have tests of their own


@pytest.fixture(autouse=True)
def _parent() -> Iterator[None]:
    with as_parent():
        yield


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "image"


def is_elsewhere(pid: int) -> bool:
    """Whether it is in another pid namespace than we."""
    return Path(f"/proc/{pid}/ns/pid").readlink() != Path("/proc/self/ns/pid").readlink()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("program", ["single", "large", "threads", "tree"])
def test_it_goes_on_where_it_was_as_often_as_one_likes(tool: Tool, tmp_path: Path, image: Path, program: str) -> None:
    with Saved(program, tmp_path) as saved:
        done = tool("checkpoint", str(saved.pid), str(image), *FORCE)
        assert done.returncode == 0, done.stderr
        assert f"process {saved.pid} (" in done.stdout
        assert saved.is_gone()
        assert image.stat().st_mode & 0o777 == 0o700
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".warmspare")] == []
        whole, before = contents(image), saved.beats.read_bytes()
        for _ in range(2):
            saved.beats.write_bytes(before)  # CRIU wants its files as they were
            restored = tool("restore", str(image))
            assert restored.returncode == 0, restored.stderr
            assert saved.goes_on()
            assert contents(image) == whole
            saved.kill()


def test_connections_within_the_tree_are_kept(tool: Tool, tmp_path: Path, image: Path) -> None:
    if not reads_sockets():
        pytest.skip("this CRIU reads no TCP socket on this kernel: CRIU 4.2 does")
    with Saved("loopback", tmp_path) as saved:
        refused = tool("checkpoint", str(saved.pid), str(image), *FORCE)
        assert (refused.returncode, image.exists()) == (1, False)
        assert re.fullmatch(
            r"warmspare: not checkpointed, process \d+ \(python.*\) runs on:"
            r" CRIU could not dump it \(tcp_established\): .*;"
            r" pass --tcp-established to keep its connections, or --tcp-close to drop them\n",
            refused.stderr.partition("MiB\n")[2],
        )
        assert saved.goes_on()
        done = tool("checkpoint", str(saved.pid), str(image), *FORCE, "--tcp-established")
        assert done.returncode == 0, done.stderr
        assert saved.is_gone()
        assert tool("restore", str(image)).returncode == 0
        assert saved.goes_on()


def test_numbers_that_are_taken_are_named_and_a_namespace_of_its_own_helps(
    tool: Tool, tmp_path: Path, image: Path
) -> None:
    with Saved("tree", tmp_path) as saved:
        assert tool("checkpoint", str(saved.pid), str(image), *FORCE).returncode == 0
        until(lambda: os.waitid(os.P_PID, saved.pid, os.WEXITED | os.WNOWAIT))  # a zombie of ours
        refused = tool("restore", str(image))
        assert refused.returncode == 1
        assert refused.stderr == (
            f"warmspare: process number {saved.pid} is taken ({saved.name}, a zombie of {os.getpid()}):"
            " end it, or use --new-pidns\n"
        )
        restored = tool("restore", str(image), "--new-pidns")
        assert restored.returncode == 0, restored.stderr
        told = re.search(r"process (\d+) \(.*\) runs again as (\d+) of its own pid namespace", restored.stdout)
        assert told
        assert int(told[2]) == saved.pid
        assert saved.goes_on()
        saved.reap()
        first = next(pid for pid in process.children(os.getpid()) if is_elsewhere(pid))
        os.kill(int(told[1]), 9)  # its child sees the end of its socket, and the namespace ends with the last
        assert until(lambda: os.waitpid(first, os.WNOHANG)[0])


def test_what_uses_no_cuda_is_saved_only_when_that_was_meant(tool: Tool, tmp_path: Path, image: Path) -> None:
    with Saved("single", tmp_path) as saved:
        refused = tool("checkpoint", str(saved.pid), str(image), "--force")
        assert refused.returncode == 1
        assert refused.stderr.endswith("; --no-gpu checkpoints it without the driver\n")
        assert not image.exists()
        assert saved.goes_on()


def test_what_criu_refuses_leaves_the_process_as_it_was(tool: Tool, tmp_path: Path, image: Path) -> None:
    with Saved("locks", tmp_path) as saved:
        refused = tool("checkpoint", str(saved.pid), str(image), *FORCE)
        assert refused.returncode == 1
        assert "(file_locks)" in refused.stderr
        assert refused.stderr.endswith("; pass --file-locks\n")
        assert saved.goes_on()
        assert {path.name for path in tmp_path.iterdir()} <= {"locks.beats", "locks.beats.lock", "state"}
        assert tool("checkpoint", str(saved.pid), str(image), *FORCE, "--file-locks").returncode == 0
        assert saved.is_gone()
        assert tool("restore", str(image)).returncode == 0
        assert saved.goes_on()


def test_a_disk_that_is_too_small_is_refused_before_anything_with_its_numbers(tool: Tool, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk, Saved("large", tmp_path) as saved:
        refused = tool("checkpoint", str(saved.pid), str(disk / "image"), *FORCE)
        assert refused.returncode == 1
        assert re.search(
            r"disk has \d MiB free, and the image may take \d+ MiB \(\d+ MiB of memory and 0 MiB", refused.stderr
        )
        assert list(disk.iterdir()) == []
        assert saved.goes_on()


@pytest.mark.parametrize("there", ["folder", "file", "link"])
def test_nothing_is_ever_replaced(tool: Tool, tmp_path: Path, image: Path, there: str) -> None:
    match there:
        case "folder":
            image.mkdir()
        case "file":
            image.touch()
        case "link":
            image.symlink_to(tmp_path / "nowhere")
    with Saved("single", tmp_path) as saved:
        refused = tool("checkpoint", str(saved.pid), str(image), *FORCE)
        assert refused.returncode == 1
        assert refused.stderr == f"warmspare: {image} is there already; name a folder that is not\n"
        assert saved.goes_on()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image to damage copies of."""
    folder = tmp_path_factory.mktemp("made")
    env = {**os.environ, "WARMSPARE_STATE_DIR": str(folder / "state")}
    with as_parent(), Saved("large", folder) as saved:
        subprocess.run([*TOOL, "checkpoint", str(saved.pid), str(folder / "image"), *FORCE], env=env, check=True)
        saved.is_gone()
    return folder / "image"


def pages(image: Path) -> Path:
    return max(image.glob("pages-*.img"), key=lambda path: path.stat().st_size)


def edited(image: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = image / "warmspare.json"
    manifest = json.loads(path.read_bytes())
    change(manifest)
    path.write_text(json.dumps(manifest))


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def linked(image: Path) -> None:
    path = pages(image)
    path.rename(image.parent / "elsewhere")
    path.symlink_to(image.parent / "elsewhere")


def piped(image: Path) -> None:
    (image / "files.img").unlink()
    os.mkfifo(image / "files.img")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit in the pages": (
        lambda i: flip(pages(i), 20 << 20),
        r"pages-1\.img is damaged: its 64 MiB from byte 0",
    ),
    "a flipped bit in a small file": (lambda i: flip(next(i.glob("core-*.img")), 99), r"core-\d+\.img is damaged"),
    "a truncated page file": (
        lambda i: os.truncate(pages(i), 5000),
        r"pages-1\.img has 5000 bytes, and its manifest says",
    ),
    "a longer page file": (lambda i: os.truncate(pages(i), 90 << 20), r"pages-1\.img has 94371840 bytes"),
    "a missing file": (lambda i: (i / "files.img").unlink(), r"files\.img is missing"),
    "one file more": (lambda i: (i / "netns-1.img").touch(), r"'netns-1\.img' is not in its manifest"),
    "a link": (linked, r"pages-1\.img is a link"),
    "a second name": (lambda i: os.link(pages(i), i.parent / "name"), r"pages-1\.img is no plain file of ours"),
    "a pipe": (piped, r"files\.img is no plain file"),
    "another's file": (lambda i: os.chown(i / "files.img", 1, -1), r"files\.img is no plain file of ours"),
    "a path in its manifest": (
        lambda i: edited(i, lambda m: m["files"].update({"../../etc/passwd": m["files"]["files.img"]})),
        r"warmspare\.json is no manifest of an image of this version",
    ),
    "a hidden name in its manifest": (
        lambda i: edited(i, lambda m: m["files"].update({".x": m["files"]["files.img"]})),
        r"warmspare\.json is no manifest",
    ),
    "a manifest that names itself": (
        lambda i: edited(i, lambda m: m["files"].update({"warmspare.json": m["files"]["files.img"]})),
        r"names itself",
    ),
    "an unknown field": (lambda i: edited(i, lambda m: m.update(more=1)), r"Object contains unknown field `more`"),
    "a checksum too few": (
        lambda i: edited(i, lambda m: m["files"]["files.img"].update(chunks=[])),
        r"too few or too many checksums of files\.img",
    ),
    "a later version": (lambda i: edited(i, lambda m: m.update(version=2)), r"no manifest of an image of this version"),
    "no JSON": (lambda i: (i / "warmspare.json").write_text("{"), r"no manifest of an image"),
    "a huge manifest": (lambda i: os.truncate(i / "warmspare.json", 65 << 20), r"larger than 64 MiB"),
    "no manifest": (lambda i: (i / "warmspare.json").unlink(), r"is no image: it has no warmspare\.json"),
    "others may read it": (lambda i: i.chmod(0o750), r"others may read or write it \(mode 0750\); an image is 0700"),
    "another's folder": (lambda i: os.chown(i, 1, -1), r"it belongs to user 1, and we are 0"),
    "another architecture": (
        lambda i: edited(i, lambda m: m["made"].update(architecture="pdp11")),
        r"cannot be restored here: architecture: pdp11 in the image, \w+ here",
    ),
    "another boot, kernel and CRIU": (
        lambda i: edited(i, lambda m: m["made"].update(boot="b", kernel="k", criu="c")),
        r"same boot only: boot: b in the image, [-\w]+ here; kernel: k in the image, .* here; CRIU: c in the image,",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_not_what_was_saved_never_runs(tool: Tool, tmp_path: Path, made: Path, what: str) -> None:
    image = tmp_path / "copy"
    shutil.copytree(made, image)
    image.chmod(0o700)
    damage, says = DAMAGE[what]
    damage(image)
    beats = made.parent / "large.beats"
    before = beats.read_bytes()
    commands = [["restore", str(image)], ["restore", str(image), "--new-pidns"]]
    inspected = tool("inspect", str(image), "--verify")
    assert inspected.returncode == 1
    assert re.search(says, inspected.stdout + inspected.stderr)
    for command in commands:
        refused = tool(*command)
        assert refused.returncode == 1
        assert re.search(says, refused.stderr)
        assert refused.stderr.count("\n") <= 2
    root = msgspec.json.decode((made / "warmspare.json").read_bytes())["processes"][0]["pid"]
    assert until(lambda: not Path(f"/proc/{root}").exists())
    assert beats.read_bytes() == before


def test_another_boot_is_for_those_who_insist(tool: Tool, tmp_path: Path, image: Path) -> None:
    with Saved("single", tmp_path) as saved:
        assert tool("checkpoint", str(saved.pid), str(image), *FORCE).returncode == 0
        assert saved.is_gone()
        edited(image, lambda m: m["made"].update(boot="another"))
        assert tool("restore", str(image)).returncode == 1
        assert tool("restore", str(image), "--force").returncode == 0
        assert saved.goes_on()


@pytest.mark.parametrize("name", ["nowhere", "file", "link"])
def test_what_is_no_image_is_said_so(tool: Tool, tmp_path: Path, made: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(made)
    for command in ("inspect", "restore"):
        refused = tool(command, str(tmp_path / name))
        assert refused.returncode == 1
        assert re.fullmatch(rf"warmspare: {tmp_path / name} is no image: .*\n", refused.stderr)


def test_a_restore_that_criu_refuses_leaves_nothing(tool: Tool, tmp_path: Path, image: Path) -> None:
    with Saved("tree", tmp_path) as saved:
        assert tool("checkpoint", str(saved.pid), str(image), *FORCE).returncode == 0
        assert saved.is_gone()
        saved.beats.write_text("")  # shorter than it was
        for more in ((), ("--new-pidns",)):
            refused = tool("restore", str(image), *more)
            assert refused.returncode == 1
            assert "(file_changed)" in refused.stderr
            assert saved.is_gone()


def test_a_criu_that_says_done_and_did_nothing_is_not_believed(tool: Tool, tmp_path: Path, image: Path) -> None:
    liar = fake(tmp_path / "liar", "exit 0")
    with Saved("single", tmp_path) as saved:
        refused = tool("checkpoint", str(saved.pid), str(image), *FORCE, "--criu", liar)
        assert refused.returncode == 1
        assert "CRIU said that all were dumped, and process" in refused.stderr
        assert not image.exists()
        assert saved.goes_on()
