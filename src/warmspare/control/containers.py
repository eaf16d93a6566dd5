"""Podman with crun and CRIU as levers on one container, in folders of its own, away from the user's containers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from warmspare.control.process import find_program
from warmspare.model.container_log import Cause, explain

LOG_LIMIT: Final = 4 * 2**20
NAME: Final = "counter"
RUN_FOLDERS: Final = frozenset({"containers", "crun", "libpod", "netns", "podman"})
"""What Podman and crun keep in /run whatever they are told; see private_mounts."""
HELPERS: Final = ("/usr/local/libexec/podman", "/usr/local/lib/podman", "/usr/libexec/podman", "/usr/lib/podman")
THEIRS: Final = frozenset(
    {"CONTAINERS_CONF_OVERRIDE", "CONTAINER_HOST", "CONTAINER_CONNECTION", "STORAGE_DRIVER", "STORAGE_OPTS"}
)
"""Settings that would steer us to the user's own containers, or to another machine's."""
SETTINGS: Final = """\
[engine]
runtime = "crun"
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
cdi_spec_dirs = ["/etc/cdi", "/var/run/cdi"]
helper_binaries_dir = {helpers}
[network]
network_config_dir = "{folder}/networks"
"""
"""Ours instead of the user's. Source: containers.conf(5); locks in a file, since the other kind is one for all."""
LIBRARY: Final = re.compile(r"(?:=> )?(/\S+) \(0x[0-9a-f]+\)")
"""A line of ldd, of glibc and of musl: a library or the loader, by its path."""

VERSION: Final = re.compile(r"(?i)version:? (\d{1,4}(?:\.\d{1,6}){1,3})")


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """How one command of Podman ended: its status (negative: a signal), what it printed, and why it refused."""

    status: int
    out: str
    cause: Cause | None = None
    line: str = ""

    @property
    def code(self) -> str:
        """The cause, or the bare exit status."""
        return self.cause or (f"signal {-self.status}" if self.status < 0 else f"status {self.status}")


class Programs(msgspec.Struct, frozen=True, kw_only=True):
    """The three that it takes, by absolute path; None for one that was not found."""

    podman: str | None
    crun: str | None
    criu: str | None

    @classmethod
    def found(cls) -> Programs:
        """WARMSPARE_PODMAN, _CRUN and _CRIU first, crun beside Podman next, then PATH and the usual folders."""
        podman = find_program("podman", os.environ)
        path = f"{Path(podman).parent}:{os.environ.get('PATH', '')}" if podman else os.environ.get("PATH", "")
        crun = find_program("crun", {**os.environ, "PATH": path})
        return cls(podman=podman, crun=crun, criu=find_program("criu", os.environ))

    def versions(self) -> dict[str, str | None]:
        """What each says of itself: its version, or None."""
        return {name: _version(program) for name, program in msgspec.structs.asdict(self).items()}


class Podman:
    """One Podman whose storage, state, configuration and single container lie in `folder`.

    `token` marks the container's processes and its control group. Root's: a rootless container cannot be checkpointed.
    """

    def __init__(self, programs: Programs, folder: Path, token: str) -> None:
        """Prepare the folder with programs that were all found; nothing is started."""
        self.folder, self._program, self._token = folder, str(programs.podman), token
        beside = str(Path(self._program).parent)
        names = folder / "programs"
        names.mkdir(parents=True)
        # Both are looked for by name, by a Podman and a crun that know nothing of what we were told to use.
        (names / "criu").symlink_to(str(programs.criu))
        (names / "crun").symlink_to(str(programs.crun))
        helpers = msgspec.json.encode([beside, *HELPERS]).decode()
        (folder / "containers.conf").write_text(SETTINGS.format(helpers=helpers, folder=folder), encoding="utf-8")
        (folder / "storage.conf").write_text('[storage]\ndriver = "vfs"\n', encoding="utf-8")
        mine = {
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
            "PATH": f"{names}:{beside}:{os.environ.get('PATH', '')}",
        }
        # The user's own settings must not steer us to the user's own containers, or to another machine's.
        self._environment = {name: value for name, value in os.environ.items() if name not in THEIRS} | mine

    def create(self, rootfs: Path, diary: Path, command: Sequence[str], device: str | None = None) -> Ran:
        """Make the container: `rootfs` is its root, `diary` is its /diary; a CDI `device` is handed to it.

        It has the host's network: one of its own is locked by iptables while it is dumped, which may not be there.
        """
        return self._run(
            "create",
            *("--name", NAME, "--network", "host", "--cgroup-parent", f"/{self._token}", "--volume", f"{diary}:/diary"),
            *("--env", "WARMSPARE_*", "--security-opt", "label=disable"),
            *(("--device", device) if device else ()),
            *("--rootfs", str(rootfs), *command),
        )

    def start(self) -> Ran:
        """Start it; it runs on by itself."""
        return self._run("start", NAME)

    def checkpoint(self) -> Ran:
        """Dump it and stop it; the caller checks that it is gone."""
        return self._run("container", "checkpoint", NAME)

    def restore(self) -> Ran:
        """Bring it back from its images."""
        return self._run("container", "restore", NAME)

    def remove(self) -> Ran:
        """End it and forget it."""
        return self._run("rm", "--force", "--time", "0", NAME)

    def pid(self) -> int | None:
        """The pid of its first process as seen from here, or None when it does not run."""
        ran = self._run("inspect", "--format", "{{.State.Pid}}", NAME)
        return int(ran.out) if ran.status == 0 and ran.out.strip().isdigit() and int(ran.out) else None

    def image_mib(self) -> float:
        """What its images take on disk, in MiB."""
        files = (self.folder / "root").glob("*-containers/*/userdata/checkpoint/*")
        return round(sum(file.stat().st_size for file in files if file.is_file()) / 2**20, 2)

    def _run(self, *args: str) -> Ran:
        own = ("--root", "root", "--runroot", "runroot", "--tmpdir", "tmp")
        places = tuple(word if word.startswith("-") else str(self.folder / word) for word in own)
        command = [self._program, *places, "--storage-driver", "vfs", "--runtime", "crun", *args]
        out, said = self.folder / "out", self.folder / "said"
        # Its streams go to files: what it leaves running would hold a pipe of ours open.
        with out.open("wb") as stdout, said.open("wb") as stderr:
            status = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=self.folder,
                env=self._environment,
                check=False,
            ).returncode
        if status == 0:
            return Ran(status=0, out=_tail(out))
        cause, line = explain(_tail(said), self._criu_log(args))
        return Ran(status=status, out="", cause=cause, line=line)

    def _criu_log(self, args: Sequence[str]) -> str:
        """CRIU's own log of a failed action: crun has it written beside the container's settings."""
        log = {"checkpoint": "dump.log", "restore": "restore.log"}.get(args[1], "none")
        found = sorted((self.folder / "root").glob(f"*-containers/*/userdata/{log}"))
        return _tail(found[0]) if found else ""


def make_root(folder: Path, programs: Sequence[str]) -> None:
    """Make the root of a container out of these programs of the host and the libraries they link to.

    Raises FileNotFoundError where one of them is missing. Source: ldd(1).
    """
    for name in ("bin", "dev", "diary", "etc", "proc", "run", "sys", "tmp"):
        (folder / name).mkdir(parents=True)
    ldd = _program("ldd")
    for name in programs:
        path = _program(name)
        shutil.copy(path, folder / "bin" / name)
        listed = subprocess.run([ldd, path], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        for library in LIBRARY.findall(listed.stdout):  # none, and a status, for one that is linked statically
            copy = folder / library.lstrip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, copy)


def _version(program: str) -> str | None:
    told = subprocess.run([program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    found = VERSION.search(told.stdout)
    return found[1] if found else None


def _program(name: str) -> str:
    path = find_program(name, os.environ)
    if path is None:
        message = f"this machine has no {name}"
        raise FileNotFoundError(message)
    return path


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LOG_LIMIT))
        return file.read().decode("utf-8", "replace")
