"""Whether an image would be restored on this machine now, and what speaks against it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from warmspare.runtime import cards as gpus
from warmspare.runtime.cards import Card
from warmspare.runtime.guards import Refusal
from warmspare.runtime.images import Image
from warmspare.runtime.manifest import Made, Manifest, NoImage, differences
from warmspare.runtime.outcomes import NotActed
from warmspare.runtime.restoring import free_pids


def against(
    image: Image, here: Made, shown: Sequence[Card], on: Mapping[str, str], *, new_pidns: bool
) -> tuple[Refusal, ...]:
    """Every reason not to restore it here, those first that no --force takes away."""
    found = [*_differs(image.manifest, here, on), *_no_room(image.manifest, shown, on)]
    if not new_pidns:
        try:
            free_pids(image)
        except NoImage as taken:
            found.append(Refusal(why=str(taken)))
    return tuple(sorted(found, key=lambda one: one.force))


def placed(manifest: Manifest, shown: Sequence[Card], wanted: Sequence[str]) -> dict[str, str]:
    """By UUID which GPU takes which one's place; empty where each stays on its own.

    `wanted` are `GPU`, for an image that used one, or `OLD=NEW`. The driver wants to be told of every GPU that it had.

    Raises:
        NotActed: one of them names no GPU.
    """
    if not wanted:
        return {}
    used = list(manifest.vram_mib)
    pairs: dict[str, str] = {}
    for one in wanted:
        old, has_both, new = one.rpartition("=")
        if not has_both and len(used) != 1:
            message = f"the image used {len(used)} GPUs: say which goes where, --to OLD=NEW"
            raise NotActed(message, "refused")
        source = old if has_both else used[0]
        if source not in {gpu.uuid for gpu in manifest.made.gpus}:
            message = f"the image knows no GPU {source!r}; it was made with {', '.join(used) or 'none'}"
            raise NotActed(message, "refused")
        card = gpus.named(shown, new)
        if card is None:
            names = ", ".join(card.subject for card in shown) or "none"
            message = f"no GPU is called {new!r}; name one by UUID, PCI address, its number in nvidia-smi, or {names}"
            raise NotActed(message, "refused")
        pairs |= {source: card.uuid, card.uuid: source}
    rest = {gpu.uuid: gpu.uuid for gpu in manifest.made.gpus if gpu.uuid not in pairs}
    return {old: new for old, new in (rest | pairs).items() if old in {gpu.uuid for gpu in manifest.made.gpus}}


def _differs(manifest: Manifest, here: Made, on: Mapping[str, str]) -> Iterator[Refusal]:
    found = differences(manifest, here, on)
    if hard := [str(one) for one in found if not one.forgivable]:
        yield Refusal(why=f"the image cannot be restored here: {'; '.join(hard)}")
    if soft := [str(one) for one in found if one.forgivable]:
        proven = f"an image is proven to restore in the {manifest.valid_in} only"
        yield Refusal(why=f"{proven}: {'; '.join(soft)}; --force tries it all the same", force=True)


def _no_room(manifest: Manifest, shown: Sequence[Card], on: Mapping[str, str]) -> Iterator[Refusal]:
    if not manifest.cuda:
        return
    free = gpus.free(shown)
    if free is None:
        yield Refusal(why="nobody tells how much GPU memory is free; --force tries it all the same", force=True)
        return
    for uuid, mib in manifest.vram_mib.items():
        place = on.get(uuid, uuid)
        if place in free and mib > free[place]:
            yield Refusal(why=f"{place} has {free[place]} MiB free, and {mib} MiB are needed")
