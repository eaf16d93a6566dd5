"""What known issues predict, branch by branch: a paper for each proof, and the note of the others."""

from __future__ import annotations

from typing import Final

from hand_made import Given, Row, holds, not_shown, requirements_of, table
from msgspec.structs import replace

from warmspare.model.engine_flags import parse
from warmspare.model.tracks import Layer
from warmspare.probes.gpu import GpuIdentity
from warmspare.probes.platform import Platform
from warmspare.probes.software import PythonPackages
from warmspare.tracks import known_issue_requirements as known
from warmspare.tracks.known_issues import all_issues
from warmspare.tracks.sleep_mode import TRACK
from warmspare.trials.engine_plan import EnginePlan

MET, UNMET, UNDECIDED, NOT_HERE = "met", "unmet", "undecided", "not_applicable"
NATIVE: Final = Platform(kind="bare-metal", hypervisor=None, signals=())
WSL2: Final = Platform(kind="wsl2", hypervisor="hyper-v", signals=("dxg", "osrelease"))
NOTHING: Final = PythonPackages(
    torch=None, torch_cuda=None, torch_hip=None, torch_nccl=None, vllm=None, cuda_bindings=None, nccl_wheels={},
    broken=(), vllm_pins=False,
)  # fmt: skip
UNSAID: Final = EnginePlan(given=False)
H100: Final = GpuIdentity(name="NVIDIA H100 80GB HBM3", compute_capability="9.0")
GB10: Final = GpuIdentity(name="NVIDIA GB10", compute_capability="12.1")
LOOK, NEWER, PINNING = "see-known-issues", "newer-vllm", "enable-pinning-under-wsl2"

cycles = known.sleep_cycles_hold_by_known_issues
gpu = known.sleep_cycles_hold_by_known_issues_of_the_gpu
requests = known.requests_survive_sleep_by_known_issues
data_parallel = known.data_parallel_sleeps_by_known_issues
tensor_parallel = known.tensor_parallel_sleeps_by_known_issues
level = known.the_level_used_comes_back_by_known_issues
others = known.other_known_issues_do_not_apply


def vllm(version: str | None, plan: EnginePlan = UNSAID, platform: Platform = NATIVE) -> tuple[Given, ...]:
    packages = replace(NOTHING, torch="2.11.0+cu130", torch_cuda="13.0", vllm=version)
    return (packages, platform, plan)


def plan(*flags: str, level: int = 1, model: str | None = None) -> EnginePlan:
    return EnginePlan(given=True, flags=parse(flags), level=level, model=model)  # type: ignore[arg-type]


PINNED: Final = (replace(NOTHING, torch="2.11.0", torch_cuda="13.0", vllm="0.26.0", vllm_pins=True), WSL2, UNSAID)
SERVES: Final = replace(UNSAID, given=True, serves=True)
LORA_2: Final = plan("--enable-lora", level=2)
SPECULATIVE_2: Final = plan("--spec-method", "mtp", level=2)

ROWS: Final = (
    Row(requests, vllm("0.16.0"), UNMET, NEWER, "a request to a sleeping server reads memory that is gone"),
    Row(requests, vllm("0.16.0"), UNMET, NEWER, "(request-while-asleep-crashes)"),
    Row(requests, vllm("0.17.0"), MET, None, "no known issue of vLLM 0.17.0 speaks against it"),
    Row(requests, vllm("0.22.1", plan("--kv-offloading-size", "8")), UNMET, LOOK, "native KV offloading"),
    Row(requests, vllm("0.26.0", plan("--kv-offloading-size", "8")), MET, None, "native-kv-offload-dies"),
    Row(requests, vllm(None), NOT_HERE, None, "vLLM is not installed"),
    Row(requests, vllm("dev"), UNDECIDED, LOOK, "is not understood: dev"),
    Row(cycles, vllm("0.29.0", platform=WSL2), UNMET, PINNING, "under WSL2 vLLM does not start"),
    Row(cycles, vllm("0.24.0", platform=WSL2), UNMET, PINNING, "Qwen3, Llama and Mistral"),
    Row(cycles, vllm("0.23.0", platform=WSL2), UNMET, NEWER, "first-models-do-not-start-under-wsl2"),
    Row(cycles, vllm("0.30.0", platform=WSL2), MET, None, "no known issue of vLLM 0.30.0"),
    Row(cycles, vllm("0.29.0"), MET, None, "no known issue of vLLM 0.29.0"),
    Row(cycles, PINNED, MET, None, "no known issue of vLLM 0.26.0"),
    Row(cycles, vllm("0.28.0", plan("--enable-lora", model="m")), MET, None, "lora-lost-on-wake"),
    Row(cycles, vllm("0.7.2"), UNMET, NEWER, "no Sleep Mode, or none that an HTTP server can be asked for"),
    Row(
        cycles, vllm("0.8.5", plan("--distributed-executor-backend", "external_launcher")), UNMET, LOOK,
        "segmentation fault",
    ),
    Row(
        cycles, vllm("0.26.0", plan("--kv-cache-dtype", "fp8", model="m")), MET, None,
        "depend on more than is known here: calibrated-kv-scales-reset, hybrid-model-with-quantized-kv-cannot-wake",
    ),
    Row(cycles, vllm(None), NOT_HERE, None, "vLLM is not installed"),
    Row(cycles, vllm("0.16.0", SERVES), NOT_HERE, None, "whatever vLLM is installed here"),
    Row(requests, vllm("0.16.0", SERVES), NOT_HERE, None, "whatever vLLM is installed here"),
    Row(others, vllm("0.26.0", SERVES), NOT_HERE, None, "whatever vLLM is installed here"),
    Row(gpu, (*vllm("0.25.1"), GB10), UNMET, LOOK, "waking ends the engine (unified-memory-dies-on-wake)"),
    Row(gpu, (*vllm("0.26.0"), GB10), MET, None, "unified-memory-dies-on-wake"),
    Row(gpu, (*vllm("0.25.1"), H100), MET, None, "no known issue of vLLM 0.25.1"),
    Row(gpu, (*vllm(None), H100), NOT_HERE, None, "vLLM is not installed"),
    Row(data_parallel, vllm("0.23.0", plan("-dp", "2")), UNMET, NEWER, "an idle rank computes a dummy batch"),
    Row(data_parallel, vllm("0.29.0", plan("-dp", "2")), MET, None, "no known issue of vLLM 0.29.0"),
    Row(data_parallel, vllm("0.23.0"), NOT_HERE, None, "data parallelism is not what is to be run"),
    Row(data_parallel, vllm("odd", plan("-dp", "2")), UNDECIDED, LOOK, "is not understood: odd"),
    Row(tensor_parallel, vllm("0.14.0", plan("-tp", "2")), MET, None, "sleep-frees-a-third"),
    Row(tensor_parallel, vllm("odd", plan("-tp", "2")), UNDECIDED, LOOK, "is not understood: odd"),
    Row(tensor_parallel, vllm("0.26.0", plan("-tp", "2")), MET, None, "custom-all-reduce-and-expandable-segments"),
    Row(level, vllm("0.25.1", LORA_2), UNMET, NEWER, "KeyError"),
    Row(level, vllm("0.33.0", SPECULATIVE_2), UNMET, LOOK, "the draft's weights stay lost"),
    Row(level, vllm("0.33.0", LORA_2), MET, None, "no known issue of vLLM 0.33.0"),
    Row(level, vllm("0.33.0"), NOT_HERE, None, "level 2 is not what is to be run"),
    Row(others, vllm("0.26.0"), UNMET, LOOK, "vLLM 0.26.0 has other known issues: requests-wait-without-limit"),
    Row(others, vllm(None), NOT_HERE, None, "vLLM is not installed"),
    Row(others, vllm("odd"), UNDECIDED, LOOK, "is not understood: odd"),
)  # fmt: skip


@table(*ROWS)
def test_what_is_said(row: Row) -> None:
    assert holds(row)


def test_every_requirement_and_each_of_its_remedies_is_shown() -> None:
    assert not_shown(ROWS, known) == {}


def test_a_row_that_bears_on_a_proof_that_weighs_is_in_a_paper_of_that_proof() -> None:
    weighing = {w.rule.id: w for w in TRACK.weighed if w.rule.is_proof and w.weight != "notes"}
    assert weighing.keys() == known.WEIGHING
    papers = {w.rule.id: {p.rule.id for p in w.papers if p.layer is Layer.ENGINE} for w in weighing.values()}
    for row in all_issues():
        if row.bears_on in weighing:
            suffix = "_by_known_issues_of_the_gpu" if row.when.gpu else "_by_known_issues"
            assert row.bears_on + suffix in papers[row.bears_on], row.id


def test_a_paper_is_called_by_its_name_and_names_what_rows_of_its_name_as_remedies() -> None:
    made = {rule.id: rule for rule in requirements_of(known)}
    assert all(getattr(known, name).__name__ == name for name in made)
    for row in all_issues():
        if row.bears_on in known.WEIGHING and row.when.gpu is None:
            assert row.what_to_do in made[f"{row.bears_on}_by_known_issues"].remedies
