"""A model made on the spot: what its files hold, and that a perturbed layer is another one and comes back."""

from __future__ import annotations

import json
import math
import statistics
import struct
from pathlib import Path
from typing import Any

import pytest

from warmspare.control import made_model, made_tokenizer
from warmspare.control.made_model import EIGHT_B, SMALL, TINY, MadeModel, make

ENCODED = (85, 105, 102, 311, 344, 282, 428, 430, 290, 424, 59, 314)
"""The start of the prompt as the tokenizers library 0.23 encodes it with our file; hardly a word is one token."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeModel:
    return make(tmp_path_factory.mktemp("made") / "m", TINY, 7)


def read(path: Path) -> dict[str, tuple[dict[str, Any], bytes]]:
    """Each tensor of a safetensors file: what its header says, and its bytes. Every byte belongs to one."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    assert size % 8 == 0
    header, numbers = json.loads(data[8 : 8 + size]), data[8 + size :]
    ends = [0]
    for told in header.values():
        assert told["data_offsets"][0] == ends[-1]
        ends.append(told["data_offsets"][1])
    assert ends[-1] == len(numbers)
    return {name: (told, numbers[slice(*told["data_offsets"])]) for name, told in header.items()}


def values(data: bytes) -> list[float]:
    """Of bfloat16: the upper half of a float each."""
    halves = struct.unpack(f"<{len(data) // 2}H", data)
    return list(struct.unpack(f"<{len(halves)}f", b"".join(struct.pack("<I", half << 16) for half in halves)))


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def test_every_tensor_is_where_the_index_says(made: MadeModel) -> None:
    index = json.loads((made.folder / "model.safetensors.index.json").read_text())
    found = {name: path.name for path in shards(made.folder) for name in read(path)}
    assert index["weight_map"] == found
    sizes = [len(data) for path in shards(made.folder) for _, data in read(path).values()]
    assert index["metadata"]["total_size"] == sum(sizes) == 2 * TINY.parameters
    for path in shards(made.folder):
        for told, data in read(path).values():
            assert (told["dtype"], 2 * math.prod(told["shape"])) == ("BF16", len(data))


def test_weights_are_normal_and_norms_are_one(made: MadeModel) -> None:
    tensors = {name: data for path in shards(made.folder) for name, (_, data) in read(path).items()}
    norms = {name for name in tensors if "norm" in name}
    assert len(norms) == 4 * TINY.layers + 1
    assert {value for name in norms for value in values(tensors[name])} == {1.0}
    for name in tensors.keys() - norms:
        drawn = values(tensors[name])
        assert abs(statistics.fmean(drawn)) < 0.002
        assert statistics.stdev(drawn) == pytest.approx(0.02, rel=0.1)
        assert len(set(drawn)) > 200


def test_no_two_tensors_are_alike(made: MadeModel) -> None:
    tensors = [told for path in shards(made.folder) for told in read(path).items()]
    starts = [data[:1024] for name, (_, data) in tensors if "norm" not in name]
    assert len(set(starts)) == len(starts)


def test_the_seed_decides(made: MadeModel, tmp_path: Path) -> None:
    def content(folder: Path) -> list[bytes]:
        return [path.read_bytes() for path in shards(folder)]

    assert content(make(tmp_path / "same", TINY, 7).folder) == content(made.folder)
    assert all(a != b for a, b in zip(content(make(tmp_path / "8", TINY, 8).folder), content(made.folder), strict=True))


def test_a_perturbed_layer_is_another_and_comes_back(made: MadeModel) -> None:
    def content() -> list[bytes]:
        return [path.read_bytes() for path in shards(made.folder)]

    before, names = content(), [path.name for path in shards(made.folder)]
    for _ in range(2):
        made.perturb()
        perturbed = content()
        changed = [number for number, (a, b) in enumerate(zip(before, perturbed, strict=True)) if a != b]
        assert len(changed) == 1
        path = shards(made.folder)[changed[0]]
        assert {name.split(".")[1] for name in read(path)} == {"layers"}
        assert len(perturbed[changed[0]]) == len(before[changed[0]])
        made.restore()
        assert content() == before
    assert [path.name for path in shards(made.folder)] == names


def test_what_is_read_before_a_perturbation_stays_what_it_was(made: MadeModel) -> None:
    """An engine may hold the files mapped."""
    with (shards(made.folder)[2]).open("rb") as file:
        made.perturb()
        assert file.read() != shards(made.folder)[2].read_bytes()
        made.restore()


def test_a_folder_that_is_there_is_not_written_to(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        make(tmp_path, TINY, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_nobody_elses(made: MadeModel) -> None:
    assert made.folder.stat().st_mode & 0o077 == 0


def test_its_shapes_are_as_large_as_they_say() -> None:
    assert EIGHT_B.parameters == 8_190_735_360  # Qwen3-8B
    assert (TINY.parameters, SMALL.parameters) == (139_648, 130_042_880)


def test_a_larger_model_takes_its_numbers_from_a_pool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(made_model, "POOL", 4096)
    monkeypatch.setattr(made_model, "CHUNK", 1024)
    first = shards(make(tmp_path / "m", TINY, 1).folder)[0]
    _, embedded = read(first)["model.embed_tokens.weight"]
    pieces = {embedded[place : place + 2048] for place in range(0, len(embedded), 2048)}
    assert len(pieces) == len(embedded) // 2048


def test_its_configuration_is_a_qwen3s(made: MadeModel) -> None:
    config = json.loads((made.folder / "config.json").read_text())
    assert (config["architectures"], config["torch_dtype"], config["tie_word_embeddings"]) == (
        ["Qwen3ForCausalLM"],
        "bfloat16",
        False,
    )
    assert config["vocab_size"] == TINY.vocabulary


def test_its_tokenizer_has_every_byte_and_merges_that_lead_to_tokens(made: MadeModel) -> None:
    content = json.loads((made.folder / "tokenizer.json").read_text())
    vocabulary, merges = content["model"]["vocab"], content["model"]["merges"]
    assert sorted(vocabulary.values()) == list(range(TINY.vocabulary))
    assert len({token for token, number in vocabulary.items() if 1 <= number <= 256 and len(token) == 1}) == 256
    assert len(merges) == made_tokenizer.MERGES
    for merge in merges:
        left, right = merge.split(" ")
        assert {left, right, left + right} <= vocabulary.keys()
    assert vocabulary[content["added_tokens"][0]["content"]] == 0


def test_its_prompt_is_encoded_as_an_engine_would(made: MadeModel) -> None:
    assert made.prompt[: len(ENCODED)] == ENCODED
    assert 40 <= len(made.prompt) <= 60
    tokens = made_tokenizer.make(TINY.vocabulary).tokens
    assert "".join(tokens[token] for token in made.prompt).replace("Ġ", " ") == made_tokenizer.PROMPT


def test_a_larger_vocabulary_has_the_same_words() -> None:
    small, large = made_tokenizer.make(512), made_tokenizer.make(2048)
    assert large.merges == small.merges
    assert len(large.tokens) == len(set(large.tokens)) == 2048
    assert large.encode(made_tokenizer.PROMPT) == small.encode(made_tokenizer.PROMPT)


def test_a_vocabulary_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="smaller than"):
        made_tokenizer.make(300)


def test_what_it_weighs_is_told_in_whole_mib(made: MadeModel) -> None:
    assert made.weights_mib == 1
