"""What the proofs of CUDA itself say, branch by branch."""

from __future__ import annotations

from typing import Final

from hand_made import Row, holds, not_shown, table
from msgspec.structs import replace

from warmspare.model.facts import Outcome
from warmspare.tracks import cuda_proofs as proofs
from warmspare.trials.cuda_compute import CudaCompute
from warmspare.trials.cuda_vmm import CudaVmm
from warmspare.trials.host_copy import HostCopy
from warmspare.trials.managed_memory import ManagedMemory
from warmspare.trials.pinned_memory import PinnedMemory

MET, UNMET, UNDECIDED = "met", "unmet", "undecided"
DONE: Final = Outcome(kind="done")
NOT_READY: Final = Outcome(kind="refused", step="start CUDA", code="802 CUDA_ERROR_SYSTEM_NOT_READY", detail="cuInit")
WRONG: Final = Outcome(kind="wrong", step="copy in, pinned", detail="on the GPU: 7 words arrived wrong")
LOST: Final = Outcome(kind="hung", step="pin", detail="after 512 MiB")
FULL: Final = Outcome(kind="refused", step="allocate", code="2 CUDA_ERROR_OUT_OF_MEMORY", detail="cuMemAlloc_v2")
NO_PIN: Final = replace(FULL, step="pin", detail="not even 16 MiB could be pinned")
NO_RANGE: Final = replace(FULL, step="reserve 32 GiB", detail="cuMemAddressReserve")
COMPUTED: Final = CudaCompute(outcome=DONE, init_s=0.41, context_s=0.2, compile_s=0.03)
REFUSED: Final = CudaCompute(outcome=NOT_READY)
COPIED: Final = HostCopy(
    outcome=DONE, pinned_h2d_gb_per_s=55.3, pinned_d2h_gb_per_s=54.9, pageable_h2d_gb_per_s=8.7,
    pageable_d2h_gb_per_s=15.5, link_gb_per_s=63.0, block_mib=256, nodes=(0,), near=True,
)  # fmt: skip
PINNED: Final = PinnedMemory(outcome=DONE, budget_mib=8192, bounded=True, refusal=None, pin_s=1.94)
WALL: Final = PinnedMemory(outcome=DONE, budget_mib=480, bounded=False, refusal="2 CUDA_ERROR_OUT_OF_MEMORY", pin_s=0.2)
MAPPED: Final = CudaVmm(
    outcome=DONE, reserved_gib=141, mib_freed=512, freed_by="nvml", sleep_s_per_gib=0.021, wake_s_per_gib=0.031
)
SHARED: Final = ManagedMemory(outcome=DONE, concurrent=True, pageable=False, size_mib=64)

UNPINNED: Final = HostCopy(outcome=DONE, pageable_h2d_gb_per_s=8.7, pageable_d2h_gb_per_s=15.5, pinned_refusal="2 OOM")

PROOFS: Final = (
    Row(proofs.cuda_computes, (COMPUTED,), MET, None, "started in 0.41 s, kernels were compiled in 0.03 s"),
    Row(proofs.cuda_computes, ({"gpu0": REFUSED, "gpu1": COMPUTED},), MET, None, "their results were right"),
    Row(proofs.cuda_computes, ({"gpu0": REFUSED, "gpu1": CudaCompute},), UNDECIDED, None, "no answer"),
    Row(proofs.cuda_computes, (CudaCompute(outcome=FULL),), UNDECIDED, None, "no memory left at allocate"),
    Row(proofs.pinned_memory_works, (PinnedMemory(outcome=NO_PIN),), UNMET, None, "not even 16 MiB"),
    Row(proofs.cuda_vmm_works, (CudaVmm(outcome=NO_RANGE),), UNMET, None, "refused at reserve 32 GiB"),
    Row(proofs.cuda_computes, (REFUSED,), UNMET, None, "refused at start CUDA (802 CUDA_ERROR_SYSTEM_NOT_READY)"),
    Row(proofs.every_gpu_computes, ({"gpu0": COMPUTED, "gpu1": COMPUTED},), MET, None, "results were right"),
    Row(proofs.every_gpu_computes, ({"gpu0": COMPUTED, "gpu1": REFUSED},), UNMET, None, "gpu1: refused at start"),
    Row(proofs.every_gpu_computes, ({"gpu0": COMPUTED, "gpu1": CudaCompute},), UNDECIDED, None, "no answer"),
    Row(proofs.pinned_memory_works, (PINNED,), MET, None, "8192 MiB were pinned in 1.9 s, as much as was tried"),
    Row(proofs.pinned_memory_works, (replace(WALL, bounded=True),), MET, None, "480 MiB were pinned in 0.2 s; a la"),
    Row(proofs.pinned_memory_works, (WALL,), MET, None, "480 MiB could be pinned, and then no more (2 CUDA_ERR"),
    Row(proofs.pinned_memory_works, (PinnedMemory(outcome=LOST),), UNMET, None, "hung at pin (no code): after 512"),
    Row(
        proofs.host_copies_arrive, (COPIED,), MET, None,
        "pinned 55.3 and 54.9 (88% and 87% of the PCIe link) from memory near the GPU, pageable 8.7 and 15.5",
    ),
    Row(proofs.host_copies_arrive, (replace(COPIED, near=False),), MET, None, "from memory far from the GPU"),
    Row(proofs.host_copies_arrive, (replace(COPIED, near=None, link_gb_per_s=None),), MET, None, "54.9, pageab"),
    Row(proofs.host_copies_arrive, (replace(COPIED, link_gb_per_s=31.5),), MET, None, "more than its PCIe link"),
    Row(proofs.host_copies_arrive, (UNPINNED,), MET, None, "pageable 8.7 and 15.5; nothing could be pinned (2 OOM)"),
    Row(proofs.host_copies_arrive, (HostCopy(outcome=WRONG),), UNMET, None, "wrong at copy in, pinned"),
    Row(proofs.cuda_vmm_works, (MAPPED,), MET, None, "512 MiB went (seen by NVML) and came back"),
    Row(proofs.cuda_vmm_works, (replace(MAPPED, freed_by="cuda"),), MET, None, "went (by CUDA's own word: NVML does"),
    Row(proofs.cuda_vmm_works, (MAPPED,), MET, None, "(of 141 GiB; per GiB 0.02 s to go, 0.03 s to come back)"),
    Row(
        proofs.cuda_vmm_works, (replace(MAPPED, reserved_gib=32, reserve_refusal="2 OOM"),), MET, None,
        "(of 32 GiB, the GPU's whole size was refused: 2 OOM; per",
    ),
    Row(proofs.cuda_vmm_works, (CudaVmm(outcome=NOT_READY),), UNMET, None, "refused at start CUDA"),
    Row(proofs.managed_memory_works, (SHARED,), MET, None, "at the same time"),
    Row(proofs.managed_memory_works, (replace(SHARED, concurrent=False),), UNMET, None, "but not from CPU and GPU"),
    Row(proofs.managed_memory_works, (ManagedMemory(outcome=NOT_READY),), UNMET, None, "refused at start CUDA"),
)  # fmt: skip


@table(*PROOFS)
def test_a_proof_says_what_was_tried(row: Row) -> None:
    assert holds(row)


def test_every_one_of_them_is_asked_and_none_names_a_remedy() -> None:
    assert not_shown(PROOFS, proofs) == {}
