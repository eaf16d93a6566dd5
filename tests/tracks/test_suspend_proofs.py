"""What the proofs of suspending say, branch by branch."""

from __future__ import annotations

from typing import Final

from hand_made import Row, holds, not_shown, table
from msgspec.structs import replace

from warmspare.model.facts import Outcome
from warmspare.tracks import suspend_proofs as proofs
from warmspare.trials.criugpu_roundtrip import CriugpuRoundtrip
from warmspare.trials.gpu_move import GpuMove
from warmspare.trials.gpu_suspend import GpuSuspend

MET, UNMET, UNDECIDED = "met", "unmet", "undecided"
DONE: Final = Outcome(kind="done")
UNSUPPORTED: Final = Outcome(
    kind="refused", step="checkpoint", code="801 CUDA_ERROR_NOT_SUPPORTED", detail="cuCheckpointProcessCheckpoint"
)
NO_HOST_MEMORY: Final = replace(UNSUPPORTED, code="2 CUDA_ERROR_OUT_OF_MEMORY")
NO_VRAM: Final = replace(NO_HOST_MEMORY, step="restore", detail="cuCheckpointProcessRestore")
DENIED: Final = Outcome(kind="refused", step="dump", code="denied", detail="CRIU needs CAP_…")
WRONG: Final = Outcome(kind="wrong", step="see it go on", detail="1024 words on the GPU are wrong")
SURVIVED: Final = GpuSuspend(
    outcome=DONE, bytes_survived=True, mib_freed=774, freed_by="nvml", suspend_s=0.41, resume_s=0.24
)
TO_DISK: Final = CriugpuRoundtrip(outcome=DONE, bytes_survived=True, dump_s=1.5, restore_s=1.25, image_mib=700.4)
MOVED: Final = GpuMove(outcome=DONE, bytes_survived=True, pair="gpu0→gpu1", mib_freed=774, mib_used=780)
CHANGED: Final = "the canary's bytes changed"
NEWER: Final = "newer-driver"

PROOFS: Final = (
    Row(proofs.vram_survives, (SURVIVED,), MET, None, "774 MiB were freed (seen by NVML) in 0.41 s and back in 0.24 s"),
    Row(proofs.vram_survives, (replace(SURVIVED, freed_by="cuda"),), MET, None, "(seen by CUDA in another process)"),
    Row(proofs.vram_survives, ({"gpu0": GpuSuspend(outcome=WRONG), "gpu1": SURVIVED},), MET, None, "774 MiB"),
    Row(proofs.vram_survives, (GpuSuspend(outcome=UNSUPPORTED),), UNMET, None, "refused at checkpoint (801"),
    Row(proofs.vram_survives, (GpuSuspend(outcome=NO_HOST_MEMORY),), UNMET, None, "refused at checkpoint (2"),
    Row(proofs.vram_survives, (GpuSuspend(outcome=NO_VRAM),), UNDECIDED, None, "no memory left at restore"),
    Row(proofs.vram_survives, (GpuSuspend(outcome=WRONG),), UNMET, None, "1024 words on the GPU are wrong"),
    Row(proofs.vram_survives, (replace(SURVIVED, bytes_survived=False),), UNMET, NEWER, CHANGED),
    Row(proofs.vram_survives, (replace(SURVIVED, mib_freed=0),), UNMET, None, "no VRAM was seen freed"),
    Row(proofs.every_gpu_suspends, ({"gpu0": SURVIVED, "gpu1": SURVIVED},), MET, None, "774 MiB"),
    Row(proofs.every_gpu_suspends, ({"gpu0": SURVIVED, "gpu1": GpuSuspend(outcome=WRONG)},), UNMET, None, "gpu1: wr"),
    Row(proofs.every_gpu_suspends, ({"gpu0": SURVIVED, "gpu1": GpuSuspend},), UNDECIDED, None, "no answer"),
    Row(proofs.every_gpu_suspends, (replace(SURVIVED, bytes_survived=False),), UNMET, NEWER, CHANGED),
    Row(proofs.gpu_process_survives_on_disk, (TO_DISK,), MET, None, "dumped in 1.5 s, restored in 1.2 s (700 MiB)"),
    Row(
        proofs.gpu_process_survives_on_disk, (CriugpuRoundtrip(outcome=DENIED),), UNDECIDED, "run-as-root",
        "refused at dump for want of rights",
    ),
    Row(proofs.gpu_process_survives_on_disk, (replace(TO_DISK, bytes_survived=None),), UNMET, NEWER, CHANGED),
    Row(proofs.gpu_moves, (MOVED,), MET, None, "resumed over gpu0→gpu1: 780 MiB were seen there"),
    Row(proofs.gpu_moves, (GpuMove(outcome=replace(UNSUPPORTED, step="restore")),), UNMET, None, "refused at restore"),
    Row(proofs.gpu_moves, (replace(MOVED, bytes_survived=False),), UNMET, NEWER, CHANGED),
)  # fmt: skip


@table(*PROOFS)
def test_a_proof_says_what_was_tried(row: Row) -> None:
    assert holds(row)


def test_every_one_of_them_is_asked() -> None:
    assert not_shown(PROOFS, proofs) == {}
