"""Containers: the engines that are here, whether they can hand out GPUs, and what was handed to us."""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from warmspare.host.port import Host, Missing, Unreadable
from warmspare.model.facts import Cause, Fact, Text
from warmspare.probes.api import probe

Engine = Literal["docker", "podman", "containerd", "nerdctl"]
VERSION: Final = r"v?(\d{1,4}(?:\.\d{1,6}){1,3}[\w.+~-]{0,40})"
ENGINES: Final[dict[Engine, re.Pattern[str]]] = {
    "docker": re.compile(rf"^Docker version {VERSION}", re.MULTILINE),
    "podman": re.compile(rf"^podman version {VERSION}", re.MULTILINE),
    "containerd": re.compile(rf"^containerd \S{{1,80}} {VERSION}", re.MULTILINE),
    "nerdctl": re.compile(rf"^nerdctl version {VERSION}", re.MULTILINE),
}
"""What each prints for --version, without a daemon."""
TOOLKIT: Final = re.compile(rf"^NVIDIA Container Toolkit CLI version {VERSION}", re.MULTILINE)
CDI: Final = ("/etc/cdi", "/var/run/cdi")


class ContainerTool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A program that is there. One that does not tell its version has a `problem`: how it ended, or why it did not."""

    name: Engine
    version: Text | None
    problem: Text | None


class ContainerTools(Fact, frozen=True, kw_only=True):
    """The container engines' programs that are found; which is not among them is not there."""

    tools: tuple[ContainerTool, ...]


class NvidiaToolkit(Fact, frozen=True, kw_only=True):
    """NVIDIA's container toolkit, by its command."""

    found: bool
    version: Text | None


class CdiSpecs(Fact, frozen=True, kw_only=True):
    """The files by which container engines find NVIDIA's devices without a runtime of its own."""

    paths: tuple[Text, ...]


class DockerRuntime(Fact, frozen=True, kw_only=True):
    """What Docker's configuration here says of NVIDIA; one that is not there says nothing, and all is False.

    `default`: every container runs under NVIDIA's runtime. `cdi`: CDI is turned on there, which new versions
    of Docker do by themselves. Docker Desktop and a rootless Docker keep theirs elsewhere.
    """

    nvidia: bool
    default: bool
    cdi: bool


class DockerCheckpoints(Fact, frozen=True, kw_only=True):
    """Whether Docker's configuration here turns on what is experimental, `docker checkpoint` among it."""

    on: bool


class InsideMounts(Fact, frozen=True, kw_only=True):
    """What of NVIDIA is mounted into us piece by piece or by folder, which is how containers get a driver."""

    libraries: tuple[Text, ...]
    devices: tuple[Text, ...]
    programs: tuple[Text, ...]
    folders: tuple[Text, ...]


@probe
def container_tools(host: Host) -> ContainerTools:
    """Source: each program's own --version, as printed in its documentation and bug reports."""
    return ContainerTools(tools=tuple(tool for name in ENGINES if (tool := _tool(host, name))))


@probe
def nvidia_toolkit(host: Host) -> NvidiaToolkit:
    """Source: docs.nvidia.com/datacenter/cloud-native/container-toolkit."""
    try:
        answer = host.run("nvidia-ctk", "--version")
    except Missing:
        return NvidiaToolkit(found=False, version=None)
    version = TOOLKIT.search(answer.stdout)
    if answer.status or not version:
        raise Unreadable(Cause.INVALID, f"nvidia-ctk --version {_ended(answer.status)}")
    return NvidiaToolkit(found=True, version=version[1])


@probe
def cdi_specs(host: Host) -> CdiSpecs:
    """By the files' names. Source: Container Device Interface specification, its two usual folders."""
    return CdiSpecs(paths=tuple(f"{folder}/{name}" for folder in CDI for name in _specs(host, folder)))


@probe
def docker_runtime(host: Host) -> DockerRuntime:
    """Source: docs.docker.com, daemon configuration file; what nvidia-ctk runtime configure writes."""
    seen = host.experiment("docker_runtimes")
    if not seen["valid"]:
        raise Unreadable(Cause.INVALID, "/etc/docker/daemon.json is no JSON object")
    return DockerRuntime(nvidia=bool(seen["nvidia"]), default=bool(seen["default"]), cdi=bool(seen["cdi"]))


@probe
def docker_checkpoints(host: Host) -> DockerCheckpoints:
    """Source: docs.docker.com, docker checkpoint and the daemon's configuration file."""
    seen = host.experiment("docker_runtimes")
    if not seen["valid"]:
        raise Unreadable(Cause.INVALID, "/etc/docker/daemon.json is no JSON object")
    if "experimental" not in seen:
        raise Unreadable(Cause.UNASKED, "not in this recording: Docker's experimental setting")
    return DockerCheckpoints(on=bool(seen["experimental"]))


@probe
def inside_mounts(host: Host) -> InsideMounts:
    """Source: the mounts that NVIDIA's container toolkit makes, as its CDI files list them."""
    seen = host.experiment("nvidia_mounts")
    libraries, devices, programs, folders = (
        tuple(map(str, seen[key])) for key in ("libraries", "devices", "programs", "folders")
    )
    return InsideMounts(libraries=libraries, devices=devices, programs=programs, folders=folders)


def _tool(host: Host, name: Engine) -> ContainerTool | None:
    """Docker Desktop leaves a `docker` that only complains; it must not hide the other engines."""
    try:
        answer = host.run(name, "--version")
    except Missing:
        return None
    except Unreadable as unreadable:
        if unreadable.cause in (Cause.UNASKED, Cause.CRASHED):  # whether it is there was not even seen
            raise
        return ContainerTool(name=name, version=None, problem=f"--version gave no answer: {unreadable.cause}")
    version = ENGINES[name].search(answer.stdout)
    if answer.status == 0 and version:
        return ContainerTool(name=name, version=version[1], problem=None)
    return ContainerTool(name=name, version=None, problem=f"--version {_ended(answer.status)}")


def _ended(status: int) -> str:
    """How a program ended that told no version; what it printed instead may be anything."""
    return f"ended with status {status}" if status else "did not tell a version"


def _specs(host: Host, folder: str) -> tuple[str, ...]:
    try:
        names = host.list(folder)
    except Missing:
        return ()
    return tuple(name for name in names if re.fullmatch(r"(?i)[\w.+-]{0,80}nvidia[\w.+-]{0,80}\.(json|ya?ml)", name))
