"""What others and we have seen of suspending CUDA processes: which driver can what, and which programs it loses."""

from __future__ import annotations

from typing import Final

from warmspare.model import restored
from warmspare.model.findings import Finding, met, not_applicable, undecided, unmet
from warmspare.model.requirements import Each
from warmspare.probes.driver import Driver
from warmspare.probes.gpu import GpuIdentity
from warmspare.probes.gpus import Gpus
from warmspare.probes.kernel import IoUring
from warmspare.probes.mps import Mps

FIRST_DRIVER = 570
NEW_ENOUGH = "driver {version} has the checkpoint API"
TOO_OLD = "driver {version} is older than the first with the checkpoint API (570)"
NO_VERSION = "the driver names no version"


def driver_has_checkpoint_api(driver: Driver) -> Finding:
    """Paper: by its version alone, a driver before 570 (CUDA 12.8) cannot suspend a CUDA process.

    Remedy: newer-driver
    Remedy: install-driver
    Source: NVIDIA/cuda-checkpoint README.
    """
    if driver.major is None:
        return undecided(NO_VERSION, remedy="install-driver")
    if driver.major < FIRST_DRIVER:
        return unmet(TOO_OLD, version=driver.kernel_version, remedy="newer-driver")
    return met(NEW_ENOUGH, version=driver.kernel_version)


ABILITIES: Final = {
    570: "suspend and resume",
    580: "move to another GPU",
    610: "programs that share memory by CUDA IPC",
    615: "storage of one's own",
}
CAN = "driver {version}, by its documentation: {abilities}"
CANNOT = "driver {version} has none of it"


def driver_abilities_are_known(driver: Driver) -> Finding:
    """Later drivers can do more with a suspended process: 580 moves it to another GPU, 610 suspends IPC users too.

    Remedy: newer-driver
    Remedy: install-driver
    Source: CUDA driver API, group CUDA_CHECKPOINT; NVIDIA/cuda-checkpoint README.
    """
    major = driver.major
    if major is None:
        return undecided(NO_VERSION, remedy="install-driver")
    abilities = tuple(what for first, what in ABILITIES.items() if major >= first)
    if not abilities:
        return unmet(CANNOT, version=driver.kernel_version, remedy="newer-driver")
    return met(CAN, version=driver.kernel_version, abilities=abilities)


ON_GB10 = "on {name} the calls are there and refuse (801), as others have seen"
NO_OBJECTION = "nothing documented speaks against {name}"


def checkpoint_works_on_this_gpu(identity: Each[GpuIdentity]) -> Finding:
    """Paper: on GPUs that share the host's memory (GB10, DGX Spark) the checkpoint calls are there and refuse.

    Source: NVIDIA/cuda-checkpoint#51.
    """
    if "GB10" in identity.name:
        return unmet(ON_GB10, name=identity.name)
    return met(NO_OBJECTION, name=identity.name)


NO_CLIENT = "no MPS daemon is there whose client a program would become"
CLIENT = "an MPS daemon is there: a program that starts here becomes its client, and cannot be suspended"


def programs_are_no_mps_clients(mps: Mps) -> Finding:
    """Paper: a program that shares its GPU through MPS cannot be suspended by the driver.

    Remedy: restart-mps
    Source: CRIU's CUDA plugin README (no MPS); NVIDIA MPS documentation.
    """
    return unmet(CLIENT, remedy="restart-mps") if mps.daemon else met(NO_CLIENT)


FATES: Final = ("managed memory: refused (801)",)
FATES_OF_SEVERAL: Final = (
    "peer access between GPUs and a block of 512 MiB: lost on restore",
    "NCCL over several GPUs by P2P: lost on restore",
)
NOT_FOR_ALL = "programs that did not survive when we tried them on driver 580.159.04: {fates}"
NO_DRIVER = "there is no driver that could suspend anything"


def not_every_program_survives(driver: Driver, gpus: Gpus) -> Finding:
    """Whether a program survives a suspend depends on what it uses; a checkpoint that succeeds says nothing yet.

    Measured with driver 580.159.04: managed memory is refused and the program goes on; a process with peer access
    between two GPUs and one block of 512 MiB, and two NCCL ranks that share memory, were checkpointed without an error
    and lost when they were restored. Smaller blocks, and ranks with P2P and SHM off, came back whole.

    Remedy: try-the-program-first
    Source: measured on H100 and 2 x H200; NVIDIA/nccl#2350, NVIDIA/nvcf#1183.
    """
    if driver.major is None or driver.major < FIRST_DRIVER:
        return not_applicable(NO_DRIVER)
    fates = FATES + (FATES_OF_SEVERAL if gpus.count > 1 else ())
    return unmet(NOT_FOR_ALL, fates=fates, remedy="try-the-program-first")


MAY_END = "restored processes were ended many times on {version} without harm"
MAY_HANG = "on the open module {version} ending a restored process hung a whole machine"
NOBODY_KNOWS = "nobody has said how {version} takes the end of a restored process"


def restored_processes_can_be_ended(driver: Driver) -> Finding:
    """On one driver, killing a CUDA process that had been restored hung the machine; suspended again, it ends safely.

    Remedy: suspend-before-killing
    Source: NVIDIA/cuda-checkpoint#53 (open module 595.71.05); measured: 580.159.04.
    """
    if driver.kernel_version is None:
        return not_applicable(NO_DRIVER)
    if driver.kernel_version in restored.HUNG and driver.module == "open":
        return unmet(MAY_HANG, version=driver.kernel_version, remedy="suspend-before-killing")
    if driver.kernel_version in restored.ENDED:
        return met(MAY_END, version=driver.kernel_version)
    return undecided(NOBODY_KNOWS, version=driver.kernel_version, remedy="suspend-before-killing")


ALL: Final = 2
"""The setting that turns io_uring off for everybody; 1 leaves it to the privileged."""
RINGS_OFF = "io_uring is off: no program can hold a ring that CRIU could not dump"
RINGS_ON = "io_uring is on: CRIU cannot dump a program that uses it, such as a server on uvloop"
NO_RINGS = "this kernel has no io_uring, or no setting for it"


def programs_hold_no_rings(rings: IoUring) -> Finding:
    """CRIU cannot dump io_uring's rings, which servers on uvloop (vLLM's API server) open.

    Remedy: turn-off-io-uring
    Source: measured: criu dump of vLLM stops at anon_inode:[io_uring]; Documentation/admin-guide/sysctl/kernel.rst.
    """
    if rings.disabled is None:
        return not_applicable(NO_RINGS)
    return met(RINGS_OFF) if rings.disabled == ALL else unmet(RINGS_ON, remedy="turn-off-io-uring")
