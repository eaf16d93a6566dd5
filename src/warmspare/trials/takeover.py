"""Kill the owner of a replicated state in mid-write, and see a whole version taken over on the other GPU."""

from __future__ import annotations

import secrets
import statistics
from typing import Final

from warmspare.control.cuda import Context, Driver
from warmspare.control.kernels import Kernels
from warmspare.model.facts import Cause, Count, Outcome, Proof, Seconds, Text
from warmspare.trials.api import LeverFailed, NotTried, Steps, trial
from warmspare.trials.best_pair import BestPair
from warmspare.trials.takeover_plants import sees_torn
from warmspare.trials.takeover_session import SLOTS, Kill, Session

KILLS: Final = 3
LARGEST_BYTES: Final = 2**30
STATE_BYTES: Final = 2**20
"""What a state is a multiple of."""
_PLANTED_BYTES: Final = 65_536


class Takeover(Proof, frozen=True, kw_only=True):
    """The owner of a replicated buffer is killed; a whole, verified version is read on the peer.

    `takeover_s` is the median from just before kill() to the first verified read: `detect_s` until the reader heard
    of it, `verify_s` from then on; `slowest_s` is the longest. `lag_s` is the median from a publish to its acceptance.
    Of all kills together: `published` versions were queued and `taken_over` is the sum of the last whole ones. `lost`
    is the most that one kill lost (at most those in flight), `unsealed` how many slots were being written when the
    writers died (0: no kill came in mid-write), `torn` how many had a seal and not its bytes: there must be none.
    """

    pair: Text | None = None
    takeover_s: Seconds | None = None
    slowest_s: Seconds | None = None
    detect_s: Seconds | None = None
    verify_s: Seconds | None = None
    lag_s: Seconds | None = None
    state_mib: Count | None = None
    kills: Count | None = None
    published: Count | None = None
    taken_over: Count | None = None
    lost: Count | None = None
    unsealed: Count | None = None
    torn: Count | None = None


@trial(
    deadline=60,
    touches="a tenth of the free memory of two GPUs, at most 1 GiB and 4 GiB, and processes of its own, which it kills",
    quick=True,
)
def takeover(steps: Steps, given: BestPair) -> Takeover:
    """The reader is here, on the target; its writers are processes of their own, on the source."""
    driver = steps.prepare("load the driver", Driver)
    size = steps.prepare("check the checks", _sound_size, driver, given)
    kills = [_killed(steps, n, given, size) for n in range(1, KILLS + 1)]
    return Takeover(
        outcome=Outcome(kind="done"),
        pair=f"{given.source.subject}→{given.target.subject}",
        takeover_s=_median([kill.takeover_s for kill in kills]),
        slowest_s=round(max(kill.takeover_s for kill in kills), 6),
        detect_s=_median([kill.detect_s for kill in kills]),
        verify_s=_median([kill.verify_s for kill in kills]),
        lag_s=_median([kill.lag_s for kill in kills]),
        state_mib=size // 2**20,
        kills=len(kills),
        published=sum(kill.published for kill in kills),
        taken_over=sum(kill.version for kill in kills),
        lost=max(kill.lost for kill in kills),
        unsealed=sum(kill.unsealed for kill in kills),
        torn=sum(kill.torn for kill in kills),
    )


def _sound_size(driver: Driver, given: BestPair) -> int:
    """How large a state may be, once the checks have been seen to fail where they must, on both GPUs."""
    sizes = [LARGEST_BYTES]
    for gpu, shares in ((given.source, 1), (given.target, SLOTS)):
        context = Context(driver.device(gpu.id))
        sizes.append(context.memory().free // 10 // shares)
        kernels, seed = Kernels(context), secrets.randbits(63)
        planted = context.allocate(_PLANTED_BYTES)
        if not kernels.sees_faults(planted, seed):
            raise NotTried(Cause.INVALID, "the check kernel did not see a planted fault")
        if not sees_torn(context, kernels, seed):
            raise NotTried(Cause.INVALID, "a takeover did not refuse what was planted torn or stale for it")
        planted.free()
        kernels.close()
        context.release()
    size = min(sizes) // STATE_BYTES * STATE_BYTES
    if not size:
        raise NotTried(Cause.SKIPPED, "a tenth of the GPUs' free memory is too little for a replica")
    return size


def _killed(steps: Steps, n: int, given: BestPair, size: int) -> Kill:
    """One kill. Only a session that went well is closed: a driver that failed may not let go, and the process ends."""
    session = steps.prepare(f"start writer {n}", Session, given.source.id, given.target.id, size)
    try:
        steps(f"open the replica {n}", session.be_ready, steps.patience_s)
        wrong = steps(f"write {n}", session.run, steps.patience_s)
    except TimeoutError as stuck:
        raise LeverFailed(Outcome(kind="hung", step=steps.current, detail=str(stuck))) from stuck
    if wrong:
        steps.wrong(wrong)
    if not steps(f"kill and take over {n}", session.kill, steps.patience_s):
        steps.wrong(f"nothing was taken over within {steps.patience_s:g} s of the kill")
    kill = steps(f"verify again {n}", session.verify_again, steps.patience_s)
    if kill.wrong:
        steps.wrong(kill.wrong)
    session.close()
    return kill


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 6)
