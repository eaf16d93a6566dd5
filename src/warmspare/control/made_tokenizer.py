"""A small byte-level BPE tokenizer with merges, made on the spot: what every engine's loader takes.

Tokens up to the size of a model's vocabulary that no merge leads to are only ever written, never read.

Source: huggingface/tokenizers, models/bpe and pre_tokenizers/byte_level (the alphabet, and the pattern of words).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec

END: Final = "<|endoftext|>"
BYTES: Final = 256
MERGES: Final = 200
TEXT: Final = (
    "A server that holds a model answers many people at once, and each of them waits for the next word. When another "
    "model is wanted on the same machine, the first one has to leave: its weights are copied to the memory of the "
    "host, what it kept of earlier questions is dropped, and its place on the device is free. Later the weights are "
    "copied back to where they were, and the server goes on as if nothing had happened. Whether nothing happened is "
    "seen when the same question is asked before and after: the answer must be the same, word for word, number for "
    "number. A machine that passes once has passed once; a machine that passes every time can be relied on."
)
PROMPT: Final = (
    "The same question is asked before and after: when the weights were copied to the memory of the host and back, "
    "the server must go on as if nothing had happened. What is the next word?"
)
_WORD: Final = re.compile(r" ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+")
"""The pattern of words as it is for plain ASCII text."""

Pair = tuple[str, str]


class Tokenizer(msgspec.Struct, frozen=True):
    """Its tokens in the order of their numbers, and its merges in the order in which they are tried."""

    tokens: tuple[str, ...]
    merges: tuple[Pair, ...]

    def encode(self, text: str) -> tuple[int, ...]:
        """The numbers of a plain ASCII text, as an engine would have them."""
        numbers = {token: number for number, token in enumerate(self.tokens)}
        rank = {pair: number for number, pair in enumerate(self.merges)}
        return tuple(numbers[symbol] for word in _words(text) for symbol in _split(word, rank))

    def write(self, folder: Path) -> None:
        """Put `tokenizer.json` and `tokenizer_config.json` into a model's folder."""
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "clean_up_tokenization_spaces": False}
        for name, content in (("tokenizer.json", _content(self)), ("tokenizer_config.json", config)):
            (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


@cache
def make(vocabulary: int) -> Tokenizer:
    """One of that many tokens, learnt from a text of ours: always the same.

    Raises:
        ValueError: fewer than the bytes, the merges and the end of a text take.
    """
    merges = _learnt(_words(TEXT), MERGES)
    tokens = [END, *_alphabet(), *("".join(pair) for pair in merges)]
    if len(tokens) > vocabulary:
        message = f"a vocabulary of {vocabulary} is smaller than {len(tokens)}"
        raise ValueError(message)
    tokens += [f"<{number}>" for number in range(len(tokens), vocabulary)]
    return Tokenizer(tuple(tokens), merges)


def _alphabet() -> list[str]:
    """A character that can be shown for each byte, in the order of the bytes."""
    shown = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(BYTES, 2 * BYTES))
    return [chr(byte if byte in shown else next(others)) for byte in range(BYTES)]


def _words(text: str) -> list[tuple[str, ...]]:
    alphabet = _alphabet()
    return [tuple(alphabet[byte] for byte in word.encode()) for word in _WORD.findall(text)]


def _learnt(words: Iterable[tuple[str, ...]], most: int) -> tuple[Pair, ...]:
    """The merges that shorten a text most, one after the other; of equals the first in order."""
    counted, merges = Counter(words), list[Pair]()
    while len(merges) < most:
        pairs = Counter[Pair]()
        for word, times in counted.items():
            for pair in pairwise(word):
                pairs[pair] += times
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        counted = Counter({_merged(word, best): times for word, times in counted.items()})
    return tuple(merges)


def _split(word: tuple[str, ...], rank: dict[Pair, int]) -> tuple[str, ...]:
    while known := [pair for pair in pairwise(word) if pair in rank]:
        word = _merged(word, min(known, key=rank.__getitem__))
    return word


def _merged(word: tuple[str, ...], pair: Pair) -> tuple[str, ...]:
    merged, place = list[str](), 0
    while place < len(word):
        step = 2 if word[place : place + 2] == pair else 1
        merged.append("".join(word[place : place + step]))
        place += step
    return tuple(merged)


def _content(tokenizer: Tokenizer) -> dict[str, Any]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    end = {"id": 0, "content": END, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {**end, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False},
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: number for number, token in enumerate(tokenizer.tokens)},
            # As text, which older readers take as well as newer ones.
            "merges": [" ".join(pair) for pair in tokenizer.merges],
        },
    }
