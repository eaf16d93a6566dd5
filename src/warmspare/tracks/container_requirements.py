"""What is asked of containers: the engines here, whether they hand out GPUs, and what was handed to us."""

from __future__ import annotations

from warmspare.model.findings import Finding, met, not_applicable, undecided
from warmspare.probes.containers import (
    CdiSpecs,
    ContainerTools,
    DockerCheckpoints,
    DockerRuntime,
    InsideMounts,
    NvidiaToolkit,
)
from warmspare.probes.platform import Container

TOOLS = "container engines: {tools}"
NO_TOOLS = "no container engine here"


def container_tools_are_known(tools: ContainerTools) -> Finding:
    """Engines are often run in containers, and a container is checkpointed by its engine: Podman with CRIU, or Docker.

    Source: each program's own --version.
    """
    if not tools.tools:
        return not_applicable(NO_TOOLS)
    return met(TOOLS, tools=tuple(f"{tool.name} {tool.version or tool.problem}" for tool in tools.tools))


HANDS_OUT = "containers get GPUs by: {ways}"
CANNOT = "nothing was found here that hands GPUs to containers (Docker Desktop keeps its own elsewhere)"


def containers_can_have_gpus(
    tools: ContainerTools, toolkit: NvidiaToolkit, docker: DockerRuntime, cdi: CdiSpecs
) -> Finding:
    """A container sees a GPU only if NVIDIA's runtime or a CDI file puts the driver's files and devices into it.

    Remedy: install-container-toolkit
    Source: NVIDIA container toolkit documentation; CDI specification (/etc/cdi, /var/run/cdi).
    """
    if not tools.tools:
        return not_applicable(NO_TOOLS)
    ways = (
        *((f"nvidia-ctk {toolkit.version}",) if toolkit.found else ()),
        *(("Docker's nvidia runtime",) if docker.nvidia else ()),
        *((f"{len(cdi.paths)} CDI files",) if cdi.paths else ()),
    )
    return met(HANDS_OUT, ways=ways) if ways else undecided(CANNOT, remedy="install-container-toolkit")


GIVEN = "handed into this container: driver libraries: {libraries}, folders: {folders}, devices: {devices}"
NOTHING_GIVEN = "nothing of NVIDIA is mounted into this container"
NO_CONTAINER = "this is no container"


def container_was_given_the_driver(mounts: InsideMounts, container: Container) -> Finding:
    """Inside a container the driver's libraries and devices are mounted one by one; what is not there was not given.

    Remedy: give-container-the-gpu
    Source: /proc/self/mountinfo, as NVIDIA/libnvidia-container and CDI mount them.
    """
    if not container.inside:
        return not_applicable(NO_CONTAINER)
    if not (mounts.libraries or mounts.devices or mounts.folders):
        return undecided(NOTHING_GIVEN, remedy="give-container-the-gpu")
    return met(GIVEN, libraries=len(mounts.libraries), folders=len(mounts.folders), devices=mounts.devices)


CAN_CHECKPOINT = "docker checkpoint is turned on (experimental)"
CANNOT_CHECKPOINT = "docker checkpoint is off: /etc/docker/daemon.json has no experimental: true"
NO_DOCKER = "no Docker here"


def docker_checkpoints_are_on(tools: ContainerTools, checkpoints: DockerCheckpoints) -> Finding:
    """Docker's checkpoints are experimental and off by default; no version of Docker is tried here.

    Source: docs.docker.com/reference/cli/docker/checkpoint; docker/cli, experimental/README.md.
    """
    if not any(tool.name == "docker" for tool in tools.tools):
        return not_applicable(NO_DOCKER)
    return met(CAN_CHECKPOINT) if checkpoints.on else undecided(CANNOT_CHECKPOINT)
