"""Memory, IOMMU, RDMA, containers and other vendors: what the probes read of a few answers, kind or hostile."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec
import pytest
from answers import GONE, TIMEOUT, Answers, read
from hypothesis import given
from hypothesis import strategies as st

from warmspare.host.port import Host, Unreadable
from warmspare.host.recorded import RecordedHost
from warmspare.model.facts import HOST, Absent, Cause, Fact, Known, Readings, fact_name
from warmspare.model.redact import Identities, redact
from warmspare.model.snapshot import Reader, Snapshot, encode
from warmspare.model.transcript import Answer, Call, Failed, Gave, Listed, Ran, Said
from warmspare.probes import containers, gpu, iommu, memory, mps, pci, rdma, vendors
from warmspare.probes.gpus import Gpu

F = TypeVar("F", bound=Fact)
YES, NO = Gave(value=True), Gave(value=False)
DENIED = Failed(cause=Cause.DENIED, detail="Permission denied", code="EACCES")
SYS = ("exists", "/sys/class")
NO_SYS: Answers = {SYS: NO}


def known(fact: type[F], answers: Answers) -> F:
    reading = read(fact, answers)
    assert isinstance(reading, Known), reading
    return reading.value


def cause(fact: type[Fact], answers: Answers) -> Cause:
    reading = read(fact, answers)
    assert isinstance(reading, Absent), reading
    return reading.cause


# Memory

MEMINFO = ("read", "/proc/meminfo")
H200X4 = """\
MemTotal:       528231220 kB
MemFree:        526673508 kB
MemAvailable:   527361640 kB
SwapTotal:             0 kB
"""


def test_memory_is_in_mib() -> None:
    seen = known(memory.HostMemory, {MEMINFO: Said(H200X4)})
    assert (seen.total_mib, seen.available_mib, seen.swap_mib) == (515850, 515001, 0)


def test_an_old_kernel_does_not_say_what_is_available() -> None:
    seen = known(memory.HostMemory, {MEMINFO: Said("MemTotal:  2048 kB\n")})
    assert (seen.total_mib, seen.available_mib, seen.swap_mib) == (2, None, None)


@pytest.mark.parametrize("answer", [Said(""), Said("MemTotal: many kB\n"), GONE, DENIED])
def test_no_total_is_no_memory_fact(answer: Answer) -> None:
    cause(memory.HostMemory, {MEMINFO: answer})


THP = ("read", "/sys/kernel/mm/transparent_hugepage/enabled")
POOLS = ("list", "/sys/kernel/mm/hugepages")
POOL_2M = ("read", "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
POOL_1G = ("read", "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages")
PAGES: Answers = {
    THP: Said("always [madvise] never\n"),
    POOLS: Listed(("hugepages-1048576kB", "hugepages-2048kB", "other")),
    POOL_2M: Said("1024\n"),
    POOL_1G: Said("0\n"),
}


def test_huge_pages_by_setting_and_size() -> None:
    seen = known(memory.HugePages, PAGES)
    assert seen.transparent == "madvise"
    assert [(pool.size_kib, pool.pages) for pool in seen.reserved] == [(2048, 1024), (1048576, 0)]


@pytest.mark.parametrize("setting", ["always", "madvise", "never"])
def test_the_setting_in_brackets_is_the_one(setting: str) -> None:
    text = "always madvise never\n".replace(setting, f"[{setting}]")
    assert known(memory.HugePages, {**PAGES, THP: Said(text)}).transparent == setting


def test_a_kernel_without_huge_pages_has_none() -> None:
    assert known(memory.HugePages, {THP: GONE, POOLS: GONE}) == memory.HugePages(transparent=None, reserved=())


@pytest.mark.parametrize(
    "answers",
    [
        {THP: GONE, POOLS: GONE, **NO_SYS},
        {**PAGES, POOLS: GONE, **NO_SYS},
        {**PAGES, THP: Said("always madvise never\n")},
        {**PAGES, THP: DENIED},
        {**PAGES, POOLS: DENIED},
        {**PAGES, POOL_2M: Said("many\n")},
        {**PAGES, POOL_2M: DENIED},
    ],
)
def test_what_hides_huge_pages_is_no_fact(answers: Answers) -> None:
    cause(memory.HugePages, answers)


ONLINE = ("read", "/sys/devices/system/node/online")


@pytest.mark.parametrize(
    ("answer", "nodes"),
    [(Said("0\n"), (0,)), (Said("0-1,3\n"), (0, 1, 3)), (Said("0-7\n"), tuple(range(8))), (GONE, (0,))],
)
def test_numa_nodes(answer: Answer, nodes: tuple[int, ...]) -> None:
    assert known(memory.NumaNodes, {ONLINE: answer}).nodes == nodes


@pytest.mark.parametrize(
    "answers",
    [
        *({ONLINE: Said(text)} for text in ("", "\n", "0-", "1-0", "0-9999", "1024", "a", "0,,1", "٣")),
        {ONLINE: DENIED},
        {ONLINE: GONE, **NO_SYS},
    ],
)
def test_no_list_of_nodes_is_no_fact(answers: Answers) -> None:
    cause(memory.NumaNodes, answers)


SHM = ("experiment", "shared_memory")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"found": True, "size": 67108864, "free": 66060288}, (True, 64, 63)),
        ({"found": True, "size": None, "free": None}, (True, None, None)),
        ({"found": False, "size": None, "free": None}, (False, None, None)),
    ],
)
def test_shared_memory_in_mib(said: dict[str, Any], expected: tuple[object, ...]) -> None:
    seen = known(memory.DevShm, {SHM: Gave(said)})
    assert (seen.found, seen.size_mib, seen.free_mib) == expected


@pytest.mark.parametrize("answer", [TIMEOUT, Gave({}), Gave({"found": True, "size": "big", "free": 0})])
def test_no_answer_about_shared_memory_is_no_fact(answer: Answer) -> None:
    cause(memory.DevShm, {SHM: answer})


# IOMMU

OPTIONS = ("experiment", "iommu_options")
GROUPS = ("list", "/sys/kernel/iommu_groups")
BUS = ("list", "/sys/bus/pci/devices")


def on_bus(*found: tuple[str, str, str]) -> Answers:
    """A PCI bus with these devices: address, vendor, class."""
    answers: Answers = {BUS: Listed(tuple(address for address, _, _ in found))}
    for address, vendor, kind in found:
        answers["read", f"/sys/bus/pci/devices/{address}/vendor"] = Said(f"{vendor}\n")
        answers["read", f"/sys/bus/pci/devices/{address}/class"] = Said(f"{kind}\n")
    return answers


def grouped(address: str, kind: Answer) -> Answers:
    group = f"/sys/bus/pci/devices/{address}/iommu_group"
    return {("exists", group): YES, ("read", f"{group}/type"): kind}


ONE, TWO = "0000:17:00.0", "0000:2a:00.0"
SWITCH = ("0000:05:00.0", "0x10de", "0x068000")
TWO_GPUS = on_bus((ONE, "0x10de", "0x030200"), (TWO, "0x10de", "0x030000"), SWITCH)
NO_OPTIONS: Answers = {OPTIONS: Gave({"options": []})}
SOME_GROUPS: Answers = {**NO_OPTIONS, GROUPS: Listed(("0", "1", "2"))}


def options(*words: str) -> Answers:
    return {OPTIONS: Gave({"options": list(words)})}


@pytest.mark.parametrize("answer", [GONE, Listed(())])
def test_no_group_is_no_iommu(answer: Answer) -> None:
    seen = known(iommu.Iommu, {**TWO_GPUS, **options("iommu=pt", "pci=realloc=off"), GROUPS: answer})
    assert (seen.groups, seen.translation, seen.options) == (0, "off", ("iommu=pt", "pci=realloc=off"))


@pytest.mark.parametrize(
    ("first", "second", "translation"),
    [
        (Said("identity\n"), Said("identity\n"), "passthrough"),
        (Said("identity\n"), Said("DMA-FQ\n"), "translated"),
        (Said("DMA\n"), Said("unmanaged\n"), "translated"),
        (Said("identity\n"), Said("unmanaged\n"), "unknown"),
        (Said("identity\n"), GONE, "unknown"),
    ],
)
def test_the_worst_of_the_gpus_counts(first: Answer, second: Answer, translation: str) -> None:
    seen = known(iommu.Iommu, {**SOME_GROUPS, **TWO_GPUS, **grouped(ONE, first), **grouped(TWO, second)})
    assert (seen.groups, seen.translation) == (3, translation)


def test_gpus_without_a_group_are_not_translated() -> None:
    none: Answers = {("exists", f"/sys/bus/pci/devices/{gpu}/iommu_group"): NO for gpu in (ONE, TWO)}
    assert known(iommu.Iommu, {**SOME_GROUPS, **TWO_GPUS, **none}).translation == "off"


@pytest.mark.parametrize(
    ("words", "translation"),
    [
        (("iommu=pt",), "passthrough"),
        (("intel_iommu=on", "iommu=nopt"), "unknown"),
        (("iommu=soft,pt",), "passthrough"),
        (("iommu.passthrough=1",), "passthrough"),
        (("iommu.passthrough=0",), "unknown"),
        ((), "unknown"),
    ],
)
def test_without_a_gpu_the_options_say_what_they_can(words: tuple[str, ...], translation: str) -> None:
    seen = known(iommu.Iommu, {**SOME_GROUPS, **on_bus(SWITCH), **options(*words)})
    assert seen.translation == translation


def test_a_hidden_bus_leaves_the_translation_unknown() -> None:
    assert known(iommu.Iommu, {**SOME_GROUPS, BUS: DENIED}).translation == "unknown"


@pytest.mark.parametrize(
    "answers", [{**NO_OPTIONS, GROUPS: GONE, **NO_SYS}, {**NO_OPTIONS, GROUPS: DENIED}, {OPTIONS: DENIED}]
)
def test_what_hides_the_iommu_is_no_fact(answers: Answers) -> None:
    assert cause(iommu.Iommu, answers) is Cause.DENIED


ACS = ("experiment", "pci_acs")


def acs(*redirecting: str, bus: bool = True, bridges: int = 3, readable: int = 3) -> Gave:
    return Gave({"bus": bus, "bridges": bridges, "readable": readable, "redirecting": list(redirecting)})


def test_bridges_that_redirect_are_named() -> None:
    seen = known(iommu.AcsRedirect, {ACS: acs("0000:15:01.0")})
    assert (seen.bridges, seen.readable, seen.redirecting) == (3, 3, ("0000:15:01.0",))


def test_no_bus_has_no_bridges_and_a_hidden_one_is_unknown() -> None:
    assert known(iommu.AcsRedirect, {ACS: acs(bus=False, bridges=0, readable=0)}).bridges == 0
    assert cause(iommu.AcsRedirect, {ACS: acs(bus=False, bridges=0, readable=0), **NO_SYS}) is Cause.DENIED


# MPS

MPS: Final = ("experiment", "mps")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"directory": "default", "control": False}, mps.Mps(daemon=False, own_directory=False)),
        ({"directory": "default", "control": True}, mps.Mps(daemon=True, own_directory=False)),
        ({"directory": "set", "control": True}, mps.Mps(daemon=True, own_directory=True)),
    ],
)
def test_a_daemon_of_mps_by_its_pipe(said: dict[str, object], expected: mps.Mps) -> None:
    assert known(mps.Mps, {MPS: Gave(said)}) == expected


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (DENIED, Cause.DENIED),
        (TIMEOUT, Cause.TIMEOUT),
        (Gave({}), Cause.INVALID),
        (Gave({"directory": "/home/bob", "control": True}), Cause.INVALID),
        (Gave({"directory": "set", "control": "yes"}), Cause.INVALID),
    ],
)
def test_no_answer_about_mps_is_no_fact(answer: Answer, why: Cause) -> None:
    assert cause(mps.Mps, {MPS: answer}) is why


UNKNOWN_CALL: Final = Failed(cause=Cause.INVALID, detail="Function Not Found", code="13")
NOT_SUPPORTED: Final = Failed(cause=Cause.INVALID, detail="Not Supported", code="3")
LOST: Final = Failed(cause=Cause.INVALID, detail="GPU is lost", code="15")


@pytest.mark.parametrize(
    ("newest", "older", "clients"),
    [
        (Gave([]), LOST, 0),
        (Gave([{"pid": 1}, {"pid": 2}]), LOST, 2),
        (UNKNOWN_CALL, Gave([{"pid": 1}]), 1),
        (UNKNOWN_CALL, UNKNOWN_CALL, None),
        (NOT_SUPPORTED, LOST, None),
        (LOST, Gave([]), LOST),
        (UNKNOWN_CALL, LOST, LOST),
    ],
)
def test_clients_of_mps_are_counted_apart(newest: Answer, older: Answer, clients: object) -> None:
    answers = [Call(verb="nvml", args=(f"nvmlDeviceGet{kind}RunningProcesses{version}", "0"), answer=answer)
               for kind, version, answer in (
                   ("Compute", "", Gave([{"pid": 7}])), ("Graphics", "", Gave([])),
                   ("MPSCompute", "", newest), ("MPSCompute", "_v2", older),
               )]  # fmt: skip
    one = Gpu(number=0, id="GPU-1", nvml_index=0, pci=None, silence=None)
    if clients is LOST:
        with pytest.raises(Unreadable, match="GPU is lost"):
            gpu.gpu_processes(RecordedHost(answers), one)
    else:
        seen = gpu.gpu_processes(RecordedHost(answers), one)
        assert seen == gpu.GpuProcesses(compute=1, graphics=0, mps=clients)  # type: ignore[arg-type]


# RDMA

IB = ("list", "/sys/class/infiniband")
FILES = ("list", "/dev/infiniband")


def card(name: str, *, state: str, layer: str, rate: str) -> Answers:
    root = f"/sys/class/infiniband/{name}"
    return {
        ("list", f"{root}/ports"): Listed(("1", "net")),
        ("read", f"{root}/node_type"): Said("1: CA\n"),
        ("read", f"{root}/ports/1/state"): Said(state),
        ("read", f"{root}/ports/1/link_layer"): Said(layer),
        ("read", f"{root}/ports/1/rate"): Said(rate),
    }


CARDS: Answers = {
    IB: Listed(("mlx5_0", "mlx5_1")),
    FILES: Listed(("rdma_cm", "uverbs0", "uverbs1")),
    **card("mlx5_0", state="4: ACTIVE\n", layer="InfiniBand\n", rate="400 Gb/sec (4X NDR)\n"),
    **card("mlx5_1", state="1: DOWN\n", layer="Ethernet\n", rate="2.5 Gb/sec (1X SDR)\n"),
}


def test_cards_and_their_ports() -> None:
    seen = known(rdma.RdmaDevices, CARDS)
    first, second = seen.devices
    assert (first.name, first.node_type, seen.files) == ("mlx5_0", "CA", 2)
    active = rdma.RdmaPort(number=1, state="active", link_layer="infiniband", gbit_per_s=400.0)
    down = rdma.RdmaPort(number=1, state="down", link_layer="ethernet", gbit_per_s=2.5)
    assert (first.ports, second.ports) == ((active,), (down,))


def test_what_a_driver_says_otherwise_is_other() -> None:
    odd = card("mlx5_0", state="5: ACTIVE_DEFER\n", layer="Unspecified\n", rate="\n")
    (port,) = known(rdma.RdmaDevices, {**CARDS, **odd}).devices[0].ports
    assert (port.state, port.link_layer, port.gbit_per_s) == ("other", "other", None)


@pytest.mark.parametrize("folder", [GONE, Listed(())])
@pytest.mark.parametrize("files", [GONE, Listed(("rdma_cm",))])
def test_no_cards_are_none(folder: Answer, files: Answer) -> None:
    assert known(rdma.RdmaDevices, {IB: folder, FILES: files}) == rdma.RdmaDevices(devices=(), files=0)


@pytest.mark.parametrize("answers", [{IB: GONE, **NO_SYS}, {IB: DENIED}, {FILES: DENIED}])
def test_what_hides_cards_is_no_fact(answers: Answers) -> None:
    assert cause(rdma.RdmaDevices, {**CARDS, **answers}) is Cause.DENIED


MODULES = ("exists", "/sys/module")
RELEASE = ("read", "/proc/sys/kernel/osrelease")


def modules(release: str, **loaded: bool) -> Answers:
    shown: Answers = {("exists", f"/sys/module/{name}"): Gave(loaded.get(name, False)) for name in rdma.PEER_MODULES}
    return {MODULES: YES, RELEASE: Said(release), **shown}


@pytest.mark.parametrize(
    ("release", "dma_buf"),
    [("5.11.22-generic\n", False), ("5.12.0\n", True), ("6.8.12-4-pve\n", True), ("4.18.0-553.el8\n", False)],
)
def test_dma_buf_goes_by_the_kernel(release: str, *, dma_buf: bool) -> None:
    seen = known(rdma.PeerMemory, modules(release))
    assert (seen.peermem, seen.dma_buf_kernel) == (False, dma_buf)


@pytest.mark.parametrize("name", rdma.PEER_MODULES)
def test_either_module_will_do(name: str) -> None:
    seen = known(rdma.PeerMemory, modules("5.4.0\n", **{name: True}))
    assert (seen.modules, seen.peermem) == ((name,), True)


@pytest.mark.parametrize("answers", [{MODULES: NO}, {RELEASE: Said("unknown\n")}, {RELEASE: DENIED}])
def test_what_hides_modules_is_no_fact(answers: Answers) -> None:
    cause(rdma.PeerMemory, {**modules("6.1.0\n"), **answers})


# Containers

NONE_RUN: Answers = {("run", name, "--version"): GONE for name in containers.ENGINES}


def ran(name: str, stdout: str, *, status: int = 0) -> Answers:
    return {("run", name, "--version"): Ran(program=f"/usr/bin/{name}", status=status, stdout=stdout)}


@pytest.mark.parametrize(
    ("name", "stdout", "version"),
    [
        ("docker", "Docker version 29.2.1, build a5c7197\n", "29.2.1"),
        ("docker", "Docker version 28.2.2, build 28.2.2-0ubuntu1~24.04.1\n", "28.2.2"),
        ("podman", "podman version 5.0.0-dev\n", "5.0.0-dev"),
        ("containerd", "containerd containerd.io 1.7.25 bcc810d6b9066471b0b6fa75f557a15a1cbf31bb\n", "1.7.25"),
        ("containerd", "containerd github.com/containerd/containerd/v2 v2.0.0 207ad71\n", "2.0.0"),
        ("nerdctl", "nerdctl version 1.7.4\n", "1.7.4"),
    ],
)
def test_each_engine_tells_its_version(name: str, stdout: str, version: str) -> None:
    (tool,) = known(containers.ContainerTools, {**NONE_RUN, **ran(name, stdout)}).tools
    assert (tool.name, tool.version, tool.problem) == (name, version, None)


@pytest.mark.parametrize(
    "broken",
    [
        ran("docker", "The command 'docker' could not be found in this WSL 2 distro.\n", status=1),
        ran("docker", "podman version 4.9.3\n"),
        ran("docker", "Docker version 29.2.1\n", status=2),
        {("run", "docker", "--version"): TIMEOUT},
        {("run", "docker", "--version"): DENIED},
    ],
)
def test_a_program_that_fails_hides_no_other(broken: Answers) -> None:
    seen = known(containers.ContainerTools, {**NONE_RUN, **ran("podman", "podman version 4.9.3\n"), **broken})
    docker, podman = seen.tools
    assert (docker.name, docker.version) == ("docker", None)
    assert docker.problem
    assert (podman.version, podman.problem) == ("4.9.3", None)


PRINTED: Final = "key sk-12345 of bobsmith"


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        (ran("docker", PRINTED, status=1), "--version ended with status 1"),
        (ran("docker", PRINTED), "--version did not tell a version"),
        ({("run", "docker", "--version"): TIMEOUT}, "--version gave no answer: timeout"),
        (
            {("run", "docker", "--version"): Failed(cause=Cause.DENIED, detail=PRINTED)},
            "--version gave no answer: denied",
        ),
    ],
)
def test_what_a_broken_program_prints_is_in_no_fact(answers: Answers, problem: str) -> None:
    (tool,) = known(containers.ContainerTools, {**NONE_RUN, **answers}).tools
    assert tool.problem == problem
    toolkit = read(containers.NvidiaToolkit, ran("nvidia-ctk", PRINTED, status=1))
    assert isinstance(toolkit, Absent)
    assert toolkit.detail == "nvidia-ctk --version ended with status 1"


def test_no_engine_is_none_and_an_unasked_one_is_unknown() -> None:
    assert known(containers.ContainerTools, NONE_RUN).tools == ()
    assert cause(containers.ContainerTools, {}) is Cause.UNASKED


def test_the_toolkit_tells_its_version() -> None:
    said = "NVIDIA Container Toolkit CLI version 1.17.8\ncommit: f202b80a9b9d0db00d9b1d73c0128c8962c55f4d\n"
    assert known(containers.NvidiaToolkit, ran("nvidia-ctk", said)).version == "1.17.8"
    none: Answers = {("run", "nvidia-ctk", "--version"): GONE}
    assert known(containers.NvidiaToolkit, none) == containers.NvidiaToolkit(found=False, version=None)


@pytest.mark.parametrize("answers", [ran("nvidia-ctk", "", status=127), ran("nvidia-ctk", "hello\n")])
def test_a_toolkit_that_fails_is_no_fact(answers: Answers) -> None:
    assert cause(containers.NvidiaToolkit, answers) is Cause.INVALID


ETC_CDI, RUN_CDI = ("list", "/etc/cdi"), ("list", "/var/run/cdi")


def test_cdi_files_are_told_by_name() -> None:
    etc = Listed(("amd.json", "nvidia.yaml", "nvidia.yaml.bak", "NVIDIA-mig.json"))
    seen = known(containers.CdiSpecs, {ETC_CDI: etc, RUN_CDI: Listed(("nvidia.yml",))})
    assert seen.paths == ("/etc/cdi/nvidia.yaml", "/etc/cdi/NVIDIA-mig.json", "/var/run/cdi/nvidia.yml")
    assert known(containers.CdiSpecs, {ETC_CDI: GONE, RUN_CDI: GONE}).paths == ()
    assert cause(containers.CdiSpecs, {ETC_CDI: DENIED, RUN_CDI: GONE}) is Cause.DENIED


DOCKER = ("experiment", "docker_runtimes")


def daemon(**more: bool) -> Gave:
    return Gave({"found": True, "valid": True, "nvidia": False, "default": False, "cdi": False, **more})


def test_dockers_configuration() -> None:
    seen = known(containers.DockerRuntime, {DOCKER: daemon(nvidia=True, cdi=True)})
    assert (seen.nvidia, seen.default, seen.cdi) == (True, False, True)
    assert cause(containers.DockerRuntime, {DOCKER: daemon(valid=False)}) is Cause.INVALID
    assert cause(containers.DockerRuntime, {DOCKER: DENIED}) is Cause.DENIED


def test_dockers_checkpoints() -> None:
    assert known(containers.DockerCheckpoints, {DOCKER: daemon(experimental=True)}).on
    assert not known(containers.DockerCheckpoints, {DOCKER: daemon(experimental=False)}).on
    assert cause(containers.DockerCheckpoints, {DOCKER: daemon()}) is Cause.UNASKED
    assert cause(containers.DockerCheckpoints, {DOCKER: daemon(valid=False)}) is Cause.INVALID


def test_what_is_mounted_into_us() -> None:
    said = {"libraries": ["libcuda.so.550.54.15"], "devices": ["nvidia0"], "programs": [], "folders": ["/usr/lib/wsl"]}
    seen = known(containers.InsideMounts, {("experiment", "nvidia_mounts"): Gave(said)})
    assert (seen.libraries, seen.devices, seen.programs) == (("libcuda.so.550.54.15",), ("nvidia0",), ())
    assert seen.folders == ("/usr/lib/wsl",)


def test_nested_facts_survive_a_snapshot_and_its_redaction() -> None:
    facts: dict[type[Fact], Answers] = {
        rdma.RdmaDevices: CARDS,
        memory.HugePages: PAGES,
        containers.ContainerTools: {**NONE_RUN, **ran("podman", "podman version 4.9.3\n")},
    }
    readings = Readings({(fact_name(fact), HOST): read(fact, answers) for fact, answers in facts.items()})
    made = Snapshot(made_by="t", made_at=datetime(2026, 1, 2, tzinfo=UTC), redacted=False, readings=readings)
    clean = redact(made, Identities(hosts=("mlx5_0", "ca"), users=("podman", "active"), key=b"k"))
    back = Reader(facts).read(encode(msgspec.structs.replace(clean, readings=without_refs(clean.readings))))
    (first, _) = back.readings.get(rdma.RdmaDevices).value.devices  # type: ignore[union-attr]
    assert first.name.startswith("host-")
    assert first.ports[0].state == "active"
    assert back.readings.get(memory.HugePages).value == known(memory.HugePages, PAGES)  # type: ignore[union-attr]
    (tool,) = back.readings.get(containers.ContainerTools).value.tools  # type: ignore[union-attr]
    assert (tool.name, tool.version) == ("podman", "4.9.3")


def without_refs(readings: Readings) -> Readings:
    """The transcript is not part of this snapshot, so nothing may refer to it."""
    return Readings({key: msgspec.structs.replace(reading, refs=()) for key, reading in readings.items()})


# Other vendors

KFD, DXG = ("exists", "/dev/kfd"), ("exists", "/dev/dxg")
DRIVERS = ("experiment", "wsl_drivers")
ORDINARY: Answers = {KFD: NO}
WSL: Answers = {KFD: NO, DXG: YES, RELEASE: Said("6.6.87.2-microsoft-standard-WSL2\n"), BUS: GONE}


@pytest.mark.parametrize(
    ("vendor", "kind", "named"),
    [
        ("0x1002", "0x030000", ("amd",)),
        ("0x1002", "0x120000", ("amd",)),
        ("0x8086", "0x030000", ("intel",)),
        ("0x8086", "0x038000", ("intel",)),
        ("0x1da3", "0x120000", ()),
        ("0x19e5", "0x120000", ()),
        ("0x8086", "0x120000", ()),
        ("0x10ee", "0x120000", ()),
        ("0x10de", "0x030200", ()),
        ("0x10de", "0x120000", ()),
        ("0x8086", "0x060000", ()),
        *(
            (vendor, "0x030000", ())
            for vendor in ("0x1234", "0x1af4", "0x1414", "0x15ad", "0x1013", "0x1a03", "0x102b")
        ),
    ],
)
def test_another_vendors_gpu_on_the_bus_is_named(vendor: str, kind: str, named: tuple[str, ...]) -> None:
    seen = known(vendors.OtherGpus, {**ORDINARY, **on_bus(("0000:03:00.0", vendor, kind))})
    assert seen.vendors == named
    assert seen.seen == tuple(f"{name}: 0000:03:00.0" for name in named)


def test_amds_own_device_file_is_enough() -> None:
    seen = known(vendors.OtherGpus, {KFD: YES})
    assert (seen.vendors, seen.seen) == (("amd",), ("amd: /dev/kfd",))


@pytest.mark.parametrize("answers", [{BUS: DENIED}, {BUS: GONE, **NO_SYS}])
def test_a_hidden_bus_may_have_any_gpu(answers: Answers) -> None:
    assert cause(vendors.OtherGpus, {**ORDINARY, **answers}) is Cause.DENIED


def windows(*names: str) -> Answers:
    return {**WSL, DRIVERS: Gave({"found": True, "vendors": list(names)})}


@pytest.mark.parametrize(
    ("names", "others"), [(("amd",), ("amd",)), (("nvidia",), ()), (("amd", "intel", "nvidia"), ("amd", "intel"))]
)
def test_under_wsl_the_drivers_of_windows_name_the_vendors(names: tuple[str, ...], others: tuple[str, ...]) -> None:
    assert known(vendors.OtherGpus, windows(*names)).vendors == others
    assert vendors.wsl_vendors(host(windows(*names))) == frozenset(names)


@pytest.mark.parametrize("answer", [Gave({"found": False, "vendors": []}), TIMEOUT])
def test_without_a_driver_nobody_says_whose_gpu_it_is(answer: Answer) -> None:
    cause(vendors.OtherGpus, {**WSL, DRIVERS: answer})
    assert vendors.wsl_vendors(host({DRIVERS: answer})) is None


@pytest.mark.parametrize("said", [{}, {"vendors": None}, {"vendors": "amd"}, {"vendors": ["apple"]}])
def test_an_instruments_bug_is_no_answer_about_vendors(said: dict[str, object]) -> None:
    assert cause(vendors.OtherGpus, {**WSL, DRIVERS: Gave(said)}) is Cause.INVALID
    with pytest.raises((ValueError, LookupError)):
        vendors.wsl_vendors(host({DRIVERS: Gave(said)}))


def test_a_device_that_is_pulled_out_meanwhile_is_gone() -> None:
    answers = {**on_bus((ONE, "0x10de", "0x030200")), ("read", f"/sys/bus/pci/devices/{ONE}/class"): GONE}
    assert pci.devices(host(answers)) == ()


def test_one_vendors_devices_are_asked_for_alone() -> None:
    answers = on_bus((ONE, "0x10de", "0x030200"), (TWO, "0x8086", "0x060000"))
    del answers["read", f"/sys/bus/pci/devices/{TWO}/class"]
    assert pci.devices(host(answers), pci.NVIDIA) == (pci.Device(ONE, "0x10de", "0x030200"),)
    with pytest.raises(Unreadable, match="not in this recording"):
        pci.devices(host(answers))


def test_no_bus_is_none_where_sys_is_shown() -> None:
    assert pci.devices(host({BUS: GONE, SYS: YES})) == ()


@pytest.mark.parametrize(
    ("sys", "why"),
    [({SYS: NO}, Cause.DENIED), ({SYS: DENIED}, Cause.DENIED), ({SYS: TIMEOUT}, Cause.TIMEOUT), ({}, Cause.UNASKED)],
)
def test_no_bus_is_not_known_where_sys_is_hidden_or_nobody_asked(sys: Answers, why: Cause) -> None:
    with pytest.raises(Unreadable) as caught:
        pci.devices(host({BUS: GONE, **sys}))
    assert caught.value.cause is why


# Hostile text

PROBES: Final[dict[Callable[[Host], Fact], Answers]] = {
    memory.host_memory: {MEMINFO: Said(H200X4)},
    memory.huge_pages: PAGES,
    memory.numa_nodes: {ONLINE: Said("0-1,3\n")},
    iommu.iommu: {**SOME_GROUPS, **TWO_GPUS, **grouped(ONE, Said("DMA\n")), **grouped(TWO, Said("identity\n"))},
    rdma.rdma_devices: CARDS,
    rdma.peer_memory: modules("6.1.0\n"),
    containers.container_tools: {**NONE_RUN, **ran("docker", "Docker version 29.2.1, build a5c7197\n")},
    containers.nvidia_toolkit: ran("nvidia-ctk", "NVIDIA Container Toolkit CLI version 1.17.8\n"),
    containers.cdi_specs: {ETC_CDI: Listed(("nvidia.yaml",)), RUN_CDI: GONE},
    vendors.other_gpus: {**ORDINARY, **on_bus(("0000:03:00.0", "0x1002", "0x030000"))},
}
SHOWN: Final[Answers] = {SYS: YES, DXG: NO}
PIECES: Final = st.sampled_from(
    ["MemTotal:", "MemAvailable: 1 kB\n", "9" * 20, "-", ",", "0", "[never]", "4: ACTIVE", "Gb/sec", "Docker version ",
     "v1.2.3", " kB", "\n", "0x03", "٣", "\x00", "hugepages-", "kB", "²"]
)  # fmt: skip
HOSTILE: Final = st.text(max_size=60) | st.lists(PIECES, max_size=8).map("".join)
REPLACED: Final = st.sampled_from([(probe, question) for probe, answers in PROBES.items() for question in answers])


def host(answers: Answers) -> RecordedHost:
    return RecordedHost([Call(verb=verb, args=tuple(args), answer=a) for (verb, *args), a in answers.items()])  # type: ignore[arg-type]


def spoilt(answer: Answer, text: str) -> Answer:
    match answer:
        case Listed():
            return Listed((text,))
        case Ran():
            return msgspec.structs.replace(answer, stdout=text)
        case Said():
            return Said(text)
    return answer


@given(place=REPLACED, text=HOSTILE)
def test_hostile_text_makes_a_fact_or_none(place: tuple[Callable[[Host], Fact], tuple[str, ...]], text: str) -> None:
    probe, question = place
    answers = PROBES[probe]
    try:
        fact = probe(host({**SHOWN, **answers, question: spoilt(answers[question], text)}))
    except Unreadable:
        return
    assert msgspec.json.decode(msgspec.json.encode(fact), type=type(fact)) == fact


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.__name__)
def test_what_is_spoilt_there_is_known_when_whole(probe: Callable[[Host], Fact]) -> None:
    assert isinstance(probe(host({**SHOWN, **PROBES[probe]})), Fact)
