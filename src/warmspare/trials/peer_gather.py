"""All other GPUs write to one at the same time: what its links carry in all, and whether all of it arrives."""

from __future__ import annotations

import secrets
from typing import ClassVar, Self

import msgspec

from warmspare.control.cuda import Buffer, Context, Driver, Event, Stream
from warmspare.control.kernels import POISON, Kernels
from warmspare.model.facts import Cause, Count, GbPerS, Kind, Outcome, Proof, Readings, Seconds
from warmspare.probes import gpus
from warmspare.trials import bandwidth
from warmspare.trials.api import NotTried, Steps, trial
from warmspare.trials.given import Gpu, May
from warmspare.trials.on_gpu import shown
from warmspare.trials.peer_copy import BLIND, PeerCopy, proven
from warmspare.trials.peer_speed import LEAST

SIZE = 128 * 2**20


class PeerGather(Proof, frozen=True, kw_only=True):
    """How fast all peers together write to one GPU, in decimal GB/s, with every share checked on that GPU."""

    KIND: ClassVar[Kind] = gpus.GPU

    gb_per_s: GbPerS | None = None
    spread: Seconds | None = None
    peers: Count | None = None


class Hub(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU, and those that were seen to copy to it by peer access."""

    RESTS_ON: ClassVar[tuple[type[Proof], ...]] = (PeerCopy,)

    target: Gpu
    peers: tuple[Gpu, ...]

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that the trial uses."""
        return (self.target, *self.peers)

    @classmethod
    def of(cls, readings: Readings, subject: str, _may: May | None = None) -> Self:
        """The GPU that is the subject, with its peers.

        Raises:
            NotTried: fewer than two of them copy to it: then all to one is one to one.
        """
        peers = [peer for peer in gpus.GPU.subjects(readings) if peer != subject and _sends(readings, peer, subject)]
        if len(peers) < 2:  # noqa: PLR2004 # several
            raise NotTried(Cause.SKIPPED, f"{len(peers)} of its peers copy to it: peer_copy says how fast")
        return cls(target=Gpu.of(readings, subject), peers=tuple(Gpu.of(readings, peer) for peer in peers))


def _sends(readings: Readings, peer: str, target: str) -> bool:
    return proven(readings.get(PeerCopy, f"{peer}→{target}"))


@trial(
    deadline=60,
    touches="all GPUs: 128 MiB of each, on one of them as much for every other, at most a tenth of the free memory",
    quick=True,
)
def peer_gather(steps: Steps, hub: Hub) -> PeerGather:
    """Each peer writes its own pattern to its own place on the target, all at once; the target checks them all."""
    target, checker, room, senders = steps.prepare("make contexts", _ready, hub)
    share = room.size // len(senders)
    for sender, peer in zip(senders, hub.peers, strict=True):
        steps(f"enable peer access from {peer.subject}", sender.context.enable_peer, target)
    seeds = [secrets.randbits(63) for _ in senders]
    target.set_words(room.pointer, POISON, room.size // 4)
    target.synchronize()
    for sender, seed in zip(senders, seeds, strict=True):
        sender.fill(seed)
    begun, stream = Event(target), Stream(target)
    speed = steps("send from all", bandwidth.measure, stream, lambda: _send(stream, begun, senders))
    for number, seed in enumerate(seeds):
        name = f"check what {hub.peers[number].subject} sent"
        found = steps(name, checker.check, room.pointer + number * share, share, seed)
        if found.wrong:
            steps.wrong(f"{found.wrong} words are wrong, the first at byte {8 * (found.first or 0)}")
    return PeerGather(
        outcome=Outcome(kind="done"),
        gb_per_s=speed.gb_per_s(room.size),
        spread=round(speed.spread, 4),
        peers=len(senders),
    )


class _Sender:
    """One peer, with its share of the target's memory."""

    def __init__(self, context: Context, place: Buffer) -> None:
        self.context, self.place = context, place
        self.kernels, self.stream, self.ended = Kernels(context), Stream(context), Event(context)
        self.own = context.allocate(place.size)

    def fill(self, seed: int) -> None:
        """Write the pattern that it sends."""
        self.kernels.fill(self.own.pointer, self.own.size, seed, self.stream)
        self.stream.synchronize()


def _ready(hub: Hub) -> tuple[Context, Kernels, Buffer, list[_Sender]]:
    driver = Driver()
    target, *peers = (Context(shown(driver, gpu)) for gpu in hub.gpus)
    least = min(context.memory().free for context in (target, *peers)) // 10
    share = min(SIZE, least // len(peers)) // LEAST * LEAST
    if not share:
        raise NotTried(Cause.SKIPPED, f"a tenth of the free memory is {least // 2**20} MiB: too little to try with")
    room, checker = target.allocate(share * len(peers)), Kernels(target)
    if not checker.sees_faults(room, secrets.randbits(63)):
        raise NotTried(Cause.INVALID, BLIND)
    places = [Buffer(target, room.pointer + number * share, share) for number in range(len(peers))]
    return target, checker, room, [_Sender(peer, place) for peer, place in zip(peers, places, strict=True)]


def _send(stream: Stream, begun: Event, senders: list[_Sender]) -> None:
    """Everybody starts after the target's stream has come so far, and it goes on when all have ended."""
    begun.record(stream)
    for sender in senders:
        sender.stream.wait(begun)
        sender.context.copy_to_peer(sender.place, sender.own, sender.place.size, sender.stream)
    for sender in senders:
        stream.wait(sender.ended.record(sender.stream))
