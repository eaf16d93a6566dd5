"""Broken drivers, planted through stand-in libraries: each leaves its cause, and all other facts stay."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from conftest import CI
from standins import NOW, Drivers, compilers
from warmspare import catalogue
from warmspare.host.live import LiveHost
from warmspare.judge import judge
from warmspare.model.facts import HOST, Cause, Fact, Key, Known, fact_name
from warmspare.model.snapshot import Reader, Snapshot
from warmspare.model.transcript import Failed, Gave
from warmspare.model.verdicts import State, Verdict
from worlds import TOOL

pytestmark = pytest.mark.skipif(not compilers() and not CI, reason="needs a C compiler, or the wheel ziglang")
DEADLINE_S: Final = 10.0
GPUS: Final = ("gpu0", "gpu1", "gpu2", "gpu3")
LINKS: Final = range(18)
NO_ANSWER: Final = "no answer within 10 s"


class World(NamedTuple):
    """What the stand-ins do, and whose version they have."""

    plan: tuple[str, ...] = ()
    nvml: int = NOW
    cuda: int = NOW


NO_TRIAL: Final = (
    "cuDevicePrimaryCtxRetain *: crashes",
    "cuMem*: crashes",
    "cuCtx*: crashes",
    "cuCheckpoint*: crashes",
)
"""A survey makes no context, takes no memory, asks nothing of processes: one that does so dies of it here."""
UNUSABLE_IN_CUDA: Final = "cuDeviceGet gpu2: returns 999"
WORLDS: Final = {
    # those that hang come first, since they wait and do nothing
    "nvml hangs at init": World(("nvmlInitWithFlags: hangs",)),
    "nvml hangs at one gpu": World(("nvmlDeviceGetUUID gpu2: hangs",)),
    "nvml hangs late at one gpu": World(("nvmlDeviceGetMemoryInfo_v2 gpu2: hangs",)),
    "libcuda hangs when loaded": World(("loading libcuda: hangs",)),
    "cuinit hangs": World(("cuInit: hangs",)),
    "healthy": World(),
    "nvml of another driver": World(("nvmlInitWithFlags: returns 18",)),
    "nvml crashes when loaded": World(("loading libnvidia-ml: crashes",)),
    "nvml crashes in a call": World(("nvmlDeviceGetMigMode gpu3: crashes",)),
    "an old driver": World(nvml=470, cuda=470),
    "a gpu that cannot be opened": World(("nvmlDeviceGetHandleByIndex_v2 gpu2: returns 15", UNUSABLE_IN_CUDA)),
    "a gpu lost behind its handle": World(
        (
            "nvmlDeviceGetHandleByIndex_v2 *: returns 0",
            "nvml*gpu2*: returns 15",
            "field * gpu2 *: returns 15",
            UNUSABLE_IN_CUDA,
        )
    ),
    "a gpu that only cuda opens": World(("nvmlDeviceGetHandleByIndex_v2 gpu2: returns 15",)),
    "a link down": World(("field 165 gpu1 link7: gives 0", "field 164 gpu1 link7: gives 0")),
    "a link down and silent": World(
        ("field 165 gpu1 link7: gives 0", "field * gpu1 link7: returns 3", "nvmlDeviceGetNvLink*gpu1 link7: returns 3")
    ),
    "a link asleep": World(("field 165 gpu1 link7: gives 2",)),
    "a link unreadable": World(("field * gpu1 link7: returns 999",)),
    "one way of a pair": World(("nvmlDeviceGetP2PStatus gpu0 gpu1 *: gives 1",)),
    "one way of a pair unreadable": World(("nvmlDeviceGetP2PStatus gpu0 gpu1 *: returns 999",)),
    "libcuda crashes when loaded": World(("loading libcuda: crashes",)),
    "libcuda crashes in cuinit": World(("cuInit: crashes",)),
    "cuinit says 802": World(("cuInit: returns 802",)),
    "blocked by the system": World(("cuInit: returns 304", "nvmlInitWithFlags: returns 17")),
    "no checkpoint functions": World(cuda=535),
}


class Seen(NamedTuple):
    """What a survey of a world ended with."""

    code: int
    stderr: str
    stdout: bytes

    @property
    def snapshot(self) -> Snapshot:
        """What it found. Read in the test's own thread: msgspec does not learn types in two threads at once."""
        return reader().read(self.stdout)

    @property
    def said(self) -> dict[Key, Any]:
        """Every fact, or the cause and the words of its absence; without times and places."""
        readings = self.snapshot.readings.items()
        return {key: r.value if isinstance(r, Known) else (r.cause, r.detail) for key, r in readings}


Surveys = dict[str, Future[Seen]]


@functools.cache
def reader() -> Reader:
    return Reader(catalogue.facts())


def survey(libraries: dict[str, str], state: Path) -> Seen:
    """Run the tool with these libraries."""
    command = [*TOOL, "snapshot", "--no-trials", "--no-redact", "-o", "-"]
    env = {**os.environ, **libraries, "WARMSPARE_STATE_DIR": str(state)}
    ran = subprocess.run(command, env=env, capture_output=True, timeout=100, check=False)
    folder = libraries["LD_LIBRARY_PATH"].split(os.pathsep)[0]
    # Without its folder, or else a path would tell one world from the other.
    return Seen(ran.returncode, ran.stderr.decode(), ran.stdout.replace(folder.encode(), b"/stand-ins"))


@pytest.fixture(scope="module")
def surveys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surveys]:
    """All worlds, surveyed side by side."""
    folder = tmp_path_factory.mktemp("standins")
    drivers = Drivers(folder)
    worlds = {name: drivers.world(name, *w.plan, *NO_TRIAL, nvml=w.nvml, cuda=w.cuda) for name, w in WORLDS.items()}
    with ThreadPoolExecutor(max_workers=6) as pool:
        yield {name: pool.submit(survey, libraries, folder / name / "state") for name, libraries in worlds.items()}


def changed(surveys: Surveys, name: str) -> dict[Key, Any]:
    """What a survey says of drivers and GPUs otherwise than in the healthy world; None where it says nothing."""
    healthy, seen = surveys["healthy"].result().said, surveys[name].result().said
    # Others may change from run to run.
    ours = {"cuda_devices", "cuda_init", "cuda_library", "driver", "gpus", "nvml_library"}
    keys = [key for key in sorted({**healthy, **seen}) if key[1] != HOST or key[0] in ours]
    return {key: seen.get(key) for key in keys if seen.get(key) != healthy.get(key)}


def absent(said: object, cause: Cause, words: str) -> bool:
    """Whether a reading is an absence with this cause and these words."""
    return isinstance(said, tuple) and said[0] is cause and words in said[1]


def is_about(key: Key, gpu: str) -> bool:
    """Whether a reading is about this GPU, a link of it or a pair with it."""
    return gpu in key[1].replace("→", "/").split("/")


# --- the stand-in itself: it is what was asked, and it answers as the real host did ------------------------

OF_A_REAL_HOST: Final[dict[tuple[str, ...], Any]] = {
    ("nvmlSystemGetDriverVersion",): "999.88.77",
    ("nvmlSystemGetNVMLVersion",): "13.999.88.77",
    ("nvmlSystemGetCudaDriverVersion_v2",): 13000,
    ("nvmlDeviceGetCount",): 4,
    ("nvmlDeviceGetUUID", "3"): "GPU-fe9fe092-b6d9-30e0-f53e-c37d6660619d",
    ("nvmlDeviceGetName", "0"): "NVIDIA H200",
    ("nvmlDeviceGetPciInfo", "2"): {
        "busIdLegacy": "0000:00:08.0", "domain": 0, "bus": 0, "device": 8,
        "pciDeviceId": 590680286, "pciSubSystemId": 415174878, "busId": "00000000:00:08.0",
    },
    ("nvmlDeviceGetCudaComputeCapability", "0"): [9, 0],
    ("nvmlDeviceGetMemoryInfo", "0"): {"total": 150754820096, "free": 150109880320, "used": 644939776},
    ("nvmlDeviceGetMemoryInfo", "0", "33554472"): {
        "version": 33554472, "total": 150754820096, "reserved": 644939776, "free": 150109880320, "used": 0,
    },
    ("nvmlDeviceGetMigMode", "0"): [0, 0],
    ("nvmlDeviceGetEccMode", "0"): [1, 1],
    ("nvmlDeviceGetPersistenceMode", "0"): 1,
    ("nvmlDeviceGetComputeMode", "0"): 0,
    ("nvmlDeviceGetVirtualizationMode", "0"): 1,
    ("nvmlDeviceGetDriverModel", "0"): "3",
    ("nvmlDeviceGetCurrPcieLinkGeneration", "0"): 5,
    ("nvmlDeviceGetCurrPcieLinkWidth", "0"): 16,
    ("nvmlDeviceGetMaxPcieLinkGeneration", "0"): 5,
    ("nvmlDeviceGetMaxPcieLinkWidth", "0"): 16,
    ("nvmlDeviceGetComputeRunningProcesses", "0"): [],
    ("nvmlDeviceGetGraphicsRunningProcesses", "0"): [],
    ("nvmlDeviceGetMPSComputeRunningProcesses", "0"): [],
    ("nvmlDeviceGetMemoryAffinity", "0", "4", "0"): [1, 0, 0, 0],
    ("nvmlDeviceGetGpuFabricInfoV", "0"): {
        "version": 33554468, "clusterUuid": [0] * 16, "status": 0, "cliqueId": 0, "state": 3, "healthMask": 0,
    },
    ("nvmlDeviceGetFieldValues", "0", "91", "0", "90", "0", "165", "17", "166", "17", "164", "17"): [
        {"field": 91, "scope": 0, "code": 0, "value": 18},
        {"field": 90, "scope": 0, "code": 3, "value": None},
        {"field": 165, "scope": 17, "code": 0, "value": 1},
        {"field": 166, "scope": 17, "code": 0, "value": 6},
        {"field": 164, "scope": 17, "code": 0, "value": 26562},
    ],
    ("nvmlDeviceGetNvLinkState", "0", "17"): 1,
    ("nvmlDeviceGetNvLinkState", "0", "18"): "2",
    ("nvmlDeviceGetNvLinkVersion", "0", "17"): 6,
    ("nvmlDeviceGetNvLinkRemoteDeviceType", "0", "17"): 2,
    ("nvmlDeviceGetNvLinkRemotePciInfo", "0", "17"): {
        "busIdLegacy": "FFFFFFF:FF:FF.0", "domain": 2**32 - 1, "bus": 255, "device": 255,
        "pciDeviceId": 2**32 - 1, "pciSubSystemId": 0, "busId": "FFFFFFFF:FF:FF.0",
    },
    ("nvmlDeviceGetP2PStatus", "0", "3", "0"): 0,
    ("nvmlDeviceGetP2PStatus", "0", "3", "4"): 5,
    ("nvmlDeviceGetTopologyCommonAncestor", "0", "3"): 30,
}  # fmt: skip
"""Each query, with the value or (as text) the error code that a host with four H200 gave to it; the version apart."""


@pytest.mark.parametrize("compiler", compilers())
def test_the_stand_in_answers_as_a_real_host_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str
) -> None:
    for name, value in Drivers(tmp_path, compilers()[compiler]).world("healthy").items():
        monkeypatch.setenv(name, value)
    with LiveHost() as host:
        answers = {asked: host.ask("nvml", asked)[1] for asked in OF_A_REAL_HOST}
    got = {asked: a.value if isinstance(a, Gave) else getattr(a, "code", a) for asked, a in answers.items()}
    assert got == OF_A_REAL_HOST


def test_a_healthy_host_gives_every_fact(surveys: Surveys) -> None:
    said = surveys["healthy"].result().said
    subjects: dict[str, set[str]] = {
        "gpu": set(GPUS),
        "pair": {f"{one}→{other}" for one in GPUS for other in GPUS if one != other},
        "link": {f"{gpu}/link{n}" for gpu in GPUS for n in LINKS},
    }
    probed = [one.fact for one in catalogue.probes() if one.fact.KIND.name in subjects]
    assert {fact.KIND.name for fact in probed} == set(subjects)
    for fact in probed:
        known = {key[1] for key, value in said.items() if key[0] == fact_name(fact) and isinstance(value, Fact)}
        assert known == subjects[fact.KIND.name], fact
    assert said["nvml_library", HOST].version == said["cuda_library", HOST].version == "999.88.77"
    assert said["gpus", HOST].ids[3] == "GPU-fe9fe092-b6d9-30e0-f53e-c37d6660619d"
    assert (said["gpus", HOST].nvml, said["gpus", HOST].silent) == ((0, 1, 2, 3), {})
    assert "cuda" not in said["gpus", HOST].seen, "NVML names them all, so that nobody has to wait for cuInit"
    assert said["cuda_devices", HOST].count == 4
    assert said["gpu_identity", "gpu3"].name == "NVIDIA H200"
    assert said["pair_topology", "gpu3→gpu0"].label == "NV18"
    assert said["cuda_init", HOST].name == "SUCCESS"


# --- every world -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORLDS)
def test_every_survey_ends_in_time_and_says_why(surveys: Surveys, name: str) -> None:
    seen = surveys[name].result()
    assert (seen.code, seen.stderr) == (0, "")
    assert all(isinstance(r, Known) or (r.cause and r.detail) for _, r in seen.snapshot.readings.items())
    calls = seen.snapshot.transcript
    slow = [call for call in calls if call.took_s >= DEADLINE_S]
    hung = [call for call in calls if isinstance(call.answer, Failed) and call.answer.detail.startswith(NO_ANSWER)]
    assert len(hung) == ("hang" in name), "what hung once is not asked again"
    if name == "cuinit hangs":
        assert slow == [], "its time runs from the start, while others are asked"
    else:
        assert slow == hung


@pytest.mark.parametrize("name", WORLDS)
def test_no_fault_makes_a_verdict_better(surveys: Surveys, name: str) -> None:
    healthy, seen = (ranks(surveys[world].result()) for world in ("healthy", name))
    better = {place: rank for place, rank in seen.items() if rank > healthy.get(place, 0)}
    assert better == {}


def ranks(seen: Seen) -> dict[tuple[str, str], int]:
    """The rank of every track, and of the layers of those that are no NO-GO: behind one, a layer may not arise."""

    def rank(state: State | None) -> int:
        return 2 if state is None else state.verdict.rank

    tracks = judge(seen.snapshot.readings, catalogue.tracks()).tracks
    open_ones = [track for track in tracks if track.state.verdict is not Verdict.NO_GO]
    layers = {(track.id, layer.layer.value): rank(layer.state) for track in open_ones for layer in track.layers}
    return {**{(track.id, ""): rank(track.state) for track in tracks}, **layers}


# --- NVML --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cause", "words"),
    [
        ("nvml hangs at init", Cause.TIMEOUT, NO_ANSWER),
        ("nvml crashes when loaded", Cause.CRASHED, "SIGSEGV"),
        ("nvml of another driver", Cause.INVALID, "mismatch"),
    ],
)
def test_without_nvml_cuda_still_speaks(surveys: Surveys, name: str, cause: Cause, words: str) -> None:
    seen = changed(surveys, name)
    gpus, before = seen.pop(("gpus", HOST)), surveys["healthy"].result().said["gpus", HOST]
    assert (gpus.ids, gpus.pci, gpus.nvml) == (before.ids, before.pci, (None,) * 4)
    assert {library: absent((one.cause, one.detail), cause, words) for library, one in gpus.silent.items()} == {
        "nvml": True
    }
    assert ("nvml" in gpus.seen, gpus.seen["cuda"]) == (False, 4)
    library = seen.pop(("nvml_library", HOST))
    assert absent(library, cause, words) or (library.code, library.version) == ("18", None)
    seen.pop(("driver", HOST), None)  # where a kernel module tells its version, NVML's silence takes nothing away
    assert {key for key in seen if key[0].startswith("cuda")} == set()
    assert {key: said for key, said in seen.items() if not (said is None or absent(said, cause, words))} == {}
    assert {key[0] for key, said in seen.items() if said is None} == {"nv_link"}


def test_nvml_that_hangs_at_one_gpu_costs_the_facts_of_that_gpu(surveys: Surveys) -> None:
    seen, healthy = changed(surveys, "nvml hangs at one gpu"), surveys["healthy"].result().said
    gpus, before = seen.pop(("gpus", HOST)), healthy["gpus", HOST]
    assert (gpus.ids, gpus.nvml, gpus.pci) == (before.ids, before.nvml, before.pci), "CUDA names the one that is left"
    assert set(seen) == of_gpu2(healthy) - {("cuda_attributes", "gpu2")}
    left = {key: said for key, said in seen.items() if not absent(said, Cause.TIMEOUT, NO_ANSWER)}
    assert left == {("nv_link", f"gpu2/link{n}"): None for n in LINKS}


def test_nvml_that_hangs_late_at_one_gpu_costs_what_is_asked_after(surveys: Surveys) -> None:
    seen = changed(surveys, "nvml hangs late at one gpu")
    assert set(seen) == {("gpu_memory", "gpu2"), ("gpu_processes", "gpu2")}
    assert all(absent(said, Cause.TIMEOUT, NO_ANSWER) for said in seen.values())


def test_nvml_that_crashes_in_a_call_costs_one_fact(surveys: Surveys) -> None:
    (seen,) = changed(surveys, "nvml crashes in a call").items()
    assert seen[0] == ("mig", "gpu3")
    assert absent(seen[1], Cause.CRASHED, "SIGSEGV")


def test_an_old_nvml_says_what_it_can(surveys: Surveys) -> None:
    seen = changed(surveys, "an old driver")
    for library in ("nvml_library", "cuda_library"):
        assert seen.pop((library, HOST)).version == "470.88.77"
    assert ("gpus", HOST) not in seen
    seen.pop(("driver", HOST), None)  # its version
    for gpu in GPUS:
        memory = seen.pop(("gpu_memory", gpu))
        assert (memory.total_mib, memory.reserved_mib) == (143771, None)
        assert memory.used_mib > 0, "what later drivers tell apart as reserved"
    assert {fact for fact, _ in seen} <= {"fabric"}, "the older calls serve for all the rest"
    told = {key: said for key, said in seen.items() if not isinstance(said, Fact)}
    assert {key: said for key, said in told.items() if not absent(said, Cause.INVALID, "Function Not Found")} == {}


@pytest.mark.parametrize("name", ["a gpu that cannot be opened", "a gpu lost behind its handle"])
def test_a_gpu_off_the_bus_keeps_its_place_and_takes_only_its_own_facts(surveys: Surveys, name: str) -> None:
    seen, healthy = changed(surveys, name), surveys["healthy"].result().said
    gpus, before = seen.pop(("gpus", HOST)), healthy["gpus", HOST]
    assert gpus.seen == {**before.seen, "cuda": 4}, "CUDA is asked who it might be"
    assert gpus.ids == (*before.ids[:2], "nvml:2", before.ids[3])
    assert gpus.pci == (*before.pci[:2], None, before.pci[3])
    assert gpus.nvml == before.nvml
    assert set(seen) == of_gpu2(healthy)
    assert absent(seen.pop(("cuda_attributes", "gpu2")), Cause.INVALID, "CUDA")
    left = {key: said for key, said in seen.items() if not absent(said, Cause.INVALID, "GPU is lost")}
    assert left == {("nv_link", f"gpu2/link{n}"): None for n in LINKS}


def test_a_gpu_that_nvml_cannot_open_is_the_one_that_only_cuda_names(surveys: Surveys) -> None:
    seen, healthy = changed(surveys, "a gpu that only cuda opens"), surveys["healthy"].result().said
    gpus, before = seen.pop(("gpus", HOST)), healthy["gpus", HOST]
    assert (gpus.ids, gpus.nvml, gpus.pci) == (before.ids, before.nvml, before.pci)
    assert set(seen) == of_gpu2(healthy) - {("cuda_attributes", "gpu2")}
    left = {key: said for key, said in seen.items() if not absent(said, Cause.INVALID, "GPU is lost")}
    assert left == {("nv_link", f"gpu2/link{n}"): None for n in LINKS}


def of_gpu2(said: dict[Key, Any]) -> set[Key]:
    """The facts about this GPU, its links, and pairs with it, but for what is no question to it with a Linux driver."""
    facts = {key for key, value in said.items() if is_about(key, "gpu2") and isinstance(value, Fact)}
    return facts - {("driver_model", "gpu2")}


# --- links and pairs ---------------------------------------------------------------------------------------

PAIRS_OF_GPU1: Final = {f"gpu1→{gpu}" for gpu in GPUS if gpu != "gpu1"} | {
    f"{gpu}→gpu1" for gpu in GPUS if gpu != "gpu1"
}


@pytest.mark.parametrize("name", ["a link down", "a link down and silent"])
def test_a_link_that_is_down_is_known_to_be(surveys: Surveys, name: str) -> None:
    seen = changed(surveys, name)
    link = seen.pop(("nv_link", "gpu1/link7"))
    assert (link.state, link.gb_per_s, link.remote, link.remote_pci) == ("inactive", None, "unknown", None)
    up = seen.pop(("nv_links_up", "gpu1"))
    assert (up.numbers, up.of, up.gb_per_s) == (tuple(n for n in LINKS if n != 7), 18, 451.554)
    assert {key: said.label for key, said in seen.items()} == {("pair_topology", p): "NV17" for p in PAIRS_OF_GPU1}


def test_a_link_that_sleeps_is_not_down(surveys: Surveys) -> None:
    (seen,) = changed(surveys, "a link asleep").items()
    assert (seen[0], seen[1].state) == (("nv_link", "gpu1/link7"), "sleeping")


def test_a_link_that_cannot_be_read_leaves_the_others(surveys: Surveys) -> None:
    seen = changed(surveys, "a link unreadable")
    of_all_links = {("nv_links_up", "gpu1"), *(("pair_topology", pair) for pair in PAIRS_OF_GPU1)}
    assert set(seen) == {("nv_link", "gpu1/link7"), *of_all_links}
    assert {key: said for key, said in seen.items() if not absent(said, Cause.INVALID, "999")} == {}


def test_a_pair_that_is_refused_in_one_direction(surveys: Surveys) -> None:
    (seen,) = changed(surveys, "one way of a pair").items()
    assert seen[0] == ("peer_access", "gpu0→gpu1")
    assert {seen[1].read, seen[1].write, seen[1].nvlink, seen[1].atomics} == {"chipset"}


def test_a_pair_that_cannot_be_read_in_one_direction(surveys: Surveys) -> None:
    (seen,) = changed(surveys, "one way of a pair unreadable").items()
    assert seen[0] == ("peer_access", "gpu0→gpu1")
    assert absent(seen[1], Cause.INVALID, "Unknown Error")


# --- CUDA --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cause", "words"),
    [
        ("cuinit hangs", Cause.TIMEOUT, NO_ANSWER),
        ("libcuda hangs when loaded", Cause.TIMEOUT, NO_ANSWER),
        ("libcuda crashes in cuinit", Cause.CRASHED, "SIGSEGV"),
        ("libcuda crashes when loaded", Cause.CRASHED, "SIGSEGV"),
    ],
)
def test_without_cuda_nvml_still_speaks(surveys: Surveys, name: str, cause: Cause, words: str) -> None:
    seen = changed(surveys, name)
    of_loading = {"cuda_library"} if "loaded" in name else set()
    assert {key[0] for key in seen} == {"cuda_init", "cuda_devices", "cuda_attributes", *of_loading}
    assert {key[1] for key in seen} == {HOST, *GPUS}
    assert {key: said for key, said in seen.items() if not absent(said, cause, words)} == {}


def test_a_fabric_that_is_not_ready_is_named(surveys: Surveys) -> None:
    seen = changed(surveys, "cuinit says 802")
    assert (seen["cuda_init", HOST].code, seen["cuda_init", HOST].name) == (802, "SYSTEM_NOT_READY")
    assert {key[0] for key in seen} == {"cuda_init", "cuda_devices", "cuda_attributes"}
    assert all(absent(seen["cuda_attributes", gpu], Cause.INVALID, "802") for gpu in GPUS)
    assert absent(seen["cuda_devices", HOST], Cause.INVALID, "802")


def test_a_gpu_that_the_system_keeps_is_told_from_802(surveys: Surveys) -> None:
    seen = changed(surveys, "blocked by the system")
    assert (seen["cuda_init", HOST].code, seen["cuda_init", HOST].name) == (304, "OPERATING_SYSTEM")
    assert (seen["nvml_library", HOST].code, seen["nvml_library", HOST].found) == ("17", True)
    assert "blocked" in seen["nvml_library", HOST].refusal
    assert absent(seen["gpus", HOST], Cause.INVALID, "blocked"), "that it names none is no sign that there is none"


def test_a_driver_without_checkpoint_functions_lacks_just_these(surveys: Surveys) -> None:
    (seen,) = changed(surveys, "no checkpoint functions").items()
    assert (seen[0], seen[1].version) == (("cuda_library", HOST), "535.88.77")
    assert len(seen[1].checkpoint_missing) == 6
    assert seen[1].vmm_missing == ()
