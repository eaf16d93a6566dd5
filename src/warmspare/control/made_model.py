"""A model made on the spot, whose answers tell when its weights are not what they were.

Its weights are N(0, 0.02), its norms 1: then every layer moves every answer. Weights that an engine makes itself
(`--load-format dummy`, within ±0.001) leave whole layers without effect.

Source: transformers, models/qwen3 (names and shapes of tensors); huggingface/safetensors, the format.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import struct
from pathlib import Path
from typing import BinaryIO, Final, Literal

import msgspec

from warmspare.control import made_tokenizer

SIGMA: Final = 0.02
LEVELS: Final = 256
"""How many different numbers there are: as many as one random byte can choose from."""
POOL: Final = 2**24
"""How many random numbers are drawn at most; larger models take them again, from places that are drawn too."""
CHUNK: Final = 2**21
"""How many of them are taken from one place."""
NUMBER: Final = 2
"""Bytes of a bfloat16."""
ONE: Final = b"\x80\x3f"
MIB: Final = 2**20
CONTEXT: Final = 4096

Tensors = dict[str, tuple[int, ...]]


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """How large a model is: the numbers of a Qwen3 configuration."""

    name: Literal["tiny", "small", "8b"]
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int

    @property
    def parameters(self) -> int:
        """How many numbers it has."""
        return sum(math.prod(size) for tensors in self.shards() for size in tensors.values())

    def shards(self) -> list[Tensors]:
        """Its tensors by file: what comes before the layers, each layer, what comes after."""
        before: Tensors = {"model.embed_tokens.weight": (self.vocabulary, self.hidden)}
        after: Tensors = {"model.norm.weight": (self.hidden,), "lm_head.weight": (self.vocabulary, self.hidden)}
        return [before, *(self._layer(number) for number in range(self.layers)), after]

    def _layer(self, number: int) -> Tensors:
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        inside = {
            "input_layernorm": (self.hidden,),
            "self_attn.q_proj": (queries, self.hidden),
            "self_attn.k_proj": (keys, self.hidden),
            "self_attn.v_proj": (keys, self.hidden),
            "self_attn.o_proj": (self.hidden, queries),
            "self_attn.q_norm": (self.head_dim,),
            "self_attn.k_norm": (self.head_dim,),
            "post_attention_layernorm": (self.hidden,),
            "mlp.gate_proj": (self.intermediate, self.hidden),
            "mlp.up_proj": (self.intermediate, self.hidden),
            "mlp.down_proj": (self.hidden, self.intermediate),
        }
        return {f"model.layers.{number}.{name}.weight": size for name, size in inside.items()}

    def config(self) -> dict[str, object]:
        """Its config.json."""
        return {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "torch_dtype": "bfloat16",
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": CONTEXT,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-06,
            "rope_theta": 1_000_000,
            "attention_bias": False,
            "tie_word_embeddings": False,
            "eos_token_id": 0,
        }


TINY: Final = Shape(
    name="tiny", hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, intermediate=128, vocabulary=512
)
"""For tests: 0.3 MiB."""
SMALL: Final = Shape(
    name="small", hidden=1024, layers=8, heads=16, kv_heads=8, head_dim=128, intermediate=3072, vocabulary=2048
)
"""130 million parameters, 248 MiB."""
EIGHT_B: Final = Shape(
    name="8b", hidden=4096, layers=36, heads=32, kv_heads=8, head_dim=128, intermediate=12_288, vocabulary=151_936
)
"""The shape of Qwen3-8B, vocabulary included: 8.2 billion parameters, 15.3 GiB."""


class MadeModel:
    """One in its folder."""

    def __init__(self, folder: Path, shape: Shape, seed: int) -> None:
        """Take it as it was made."""
        self.folder = folder
        self.weights_mib = -(-shape.parameters * NUMBER // MIB)
        """What its weights take, in MiB."""
        self.prompt = made_tokenizer.make(shape.vocabulary).encode(made_tokenizer.PROMPT)
        """What it is asked, by token."""
        self._shape, self._seed = shape, seed
        # In the middle: what it writes passes other layers, and others have passed to it.
        self._perturbed = 1 + shape.layers // 2

    def perturb(self) -> None:
        """Put other numbers in the place of one layer: what reads the weights from now on gets them."""
        other = self.folder / "other" / self._name()
        if not other.exists():
            other.parent.mkdir(exist_ok=True)
            tensors = self._shape.shards()[self._perturbed]
            _write(other, tensors, _Numbers(self._seed + 1, self._shape.parameters), f"other {self._perturbed}")
        self._point(other)

    def restore(self) -> None:
        """Put its own numbers back."""
        self._point(self.folder / "own" / self._name())

    def _name(self) -> str:
        return shard_name(self._perturbed, self._shape)

    def _point(self, shard: Path) -> None:
        """Replace the link at once: who reads meanwhile gets the one or the other whole."""
        link, new = self.folder / self._name(), self.folder / "new"
        new.unlink(missing_ok=True)
        new.symlink_to(shard.relative_to(self.folder))
        new.replace(link)


def shard_name(number: int, shape: Shape) -> str:
    """The name of one of its files."""
    return f"model-{number + 1:05}-of-{shape.layers + 2:05}.safetensors"


def make(folder: Path, shape: Shape, seed: int) -> MadeModel:
    """Make one in a folder that is not there yet; the same for the same seed.

    Raises:
        OSError: the folder is there, or there is no room.
    """
    folder.mkdir(mode=0o700)
    own = folder / "own"
    own.mkdir()
    numbers = _Numbers(seed, shape.parameters)
    placed = {}
    for number, tensors in enumerate(shape.shards()):
        name = shard_name(number, shape)
        _write(own / name, tensors, numbers, str(number))
        (folder / name).symlink_to(Path("own", name))
        placed.update(dict.fromkeys(tensors, name))
    index = {"metadata": {"total_size": shape.parameters * NUMBER}, "weight_map": placed}
    for name, content in (("config.json", shape.config()), ("model.safetensors.index.json", index)):
        (folder / name).write_text(json.dumps(content, indent=1), encoding="ascii")
    made_tokenizer.make(shape.vocabulary).write(folder)
    return MadeModel(folder, shape, seed)


class _Numbers:
    """Random bfloat16, drawn once and taken from many places: 15 GiB are made as fast as they are written."""

    def __init__(self, seed: int, wanted: int) -> None:
        self._seed = seed
        drawn = random.Random(seed).randbytes(min(POOL, max(wanted, CHUNK)))  # noqa: S311 # no secret
        normal = statistics.NormalDist(0, SIGMA)
        levels = [_bfloat16(normal.inv_cdf((level + 0.5) / LEVELS)) for level in range(LEVELS)]
        pool = bytearray(NUMBER * len(drawn))
        pool[0::2] = drawn.translate(bytes(low for low, _ in levels))
        pool[1::2] = drawn.translate(bytes(high for _, high in levels))
        self._pool = memoryview(pool)

    def put(self, file: BinaryIO, name: str, count: int) -> None:
        """Write that many; which ones, the name decides."""
        places = random.Random(f"{self._seed} {name}")  # noqa: S311 # no secret
        total = len(self._pool) // NUMBER
        while count:
            taken = min(count, CHUNK)
            place = NUMBER * places.randrange(total - taken + 1)
            file.write(self._pool[place : place + NUMBER * taken])
            count -= taken


def _bfloat16(value: float) -> tuple[int, int]:
    """The low and the high byte of the nearest one."""
    bits = struct.unpack("<I", struct.pack("<f", value))[0]
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return rounded & 0xFF, rounded >> 8


def _write(path: Path, tensors: Tensors, numbers: _Numbers, salt: str) -> None:
    """One safetensors file: the length of a header, the header, the numbers."""
    header, end = {}, 0
    for name, size in tensors.items():
        begin, end = end, end + NUMBER * math.prod(size)
        header[name] = {"dtype": "BF16", "shape": size, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, size in tensors.items():
            if _is_norm(name):
                file.write(ONE * math.prod(size))
            else:
                numbers.put(file, f"{salt} {name}", math.prod(size))


def _is_norm(name: str) -> bool:
    return name.removesuffix(".weight").endswith("norm")
