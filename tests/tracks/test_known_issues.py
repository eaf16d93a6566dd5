"""The rows of known_issues.toml: each is well formed, and applies only where version and conditions are known."""

from __future__ import annotations

import re
from typing import Final

import pytest
from msgspec.structs import replace

from warmspare import catalogue
from warmspare.model.engine_flags import parse
from warmspare.tracks import known_issues
from warmspare.tracks.issue_conditions import Meant, When, unmet_or_unclear
from warmspare.tracks.known_issues import Issue, Version, all_issues, fixed_before, matching, version_of

ROWS: Final = all_issues()
IDS: Final = [row.id for row in ROWS]
HERE: Final = Meant(
    flags=parse(()), level=1, made=True, platform="vm", rocm=False, pins=False, gpus=("NVIDIA H100 80GB HBM3",)
)
"""A made model without flags on an H100."""


def version(text: str) -> Version:
    found = version_of(text)
    assert found is not None
    return found


def applying(text: str, meant: Meant = HERE) -> set[str]:
    return {match.issue.id for match in matching(ROWS, version(text), meant) if match.applies}


def open_ones(text: str, meant: Meant = HERE) -> dict[str, tuple[str, ...]]:
    return {match.issue.id: match.unclear for match in matching(ROWS, version(text), meant) if not match.applies}


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_a_row_is_well_formed(row: Issue) -> None:
    assert re.fullmatch(r"[a-z0-9-]{5,60}", row.id)
    assert row.affected or row.unclear
    assert row.bears_on in catalogue.rules(catalogue.tracks())
    assert row.what_to_do in catalogue.remedies()
    assert all((row.symptom, row.verified, row.workaround, *row.sources))
    assert not row.symptom.endswith(".")
    for text in ("0.7.3", "0.16.0", "0.26.0", "0.33.0"):
        matching([row], version(text), HERE)  # raises where a range is none


@pytest.mark.parametrize("row", [row for row in ROWS if row.fixed != "none"], ids=lambda row: row.id)
def test_a_fixed_row_neither_applies_nor_may_from_its_fix_on(row: Issue) -> None:
    always = replace(row, when=When())
    assert matching([always], version(row.fixed), HERE) == ()
    assert fixed_before([row], version(row.fixed)) == (row,)


def test_no_two_rows_have_one_id() -> None:
    assert len(set(IDS)) == len(IDS) > 40


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0.26.0", (0, 26, 0, 0)),
        ("0.26", (0, 26, 0, 0)),
        ("0.26.0+cu130", (0, 26, 0, 0)),
        ("0.25.1.post1", (0, 25, 1, 0)),
        ("0.26.0rc1+cu130", (0, 26, 0, -1)),
        ("0.26.1.dev3+g12ab", (0, 26, 1, -1)),
        ("0.26.0+precompiled", (0, 26, 0, -1)),
        ("dev", None),
        ("12345.1", None),
        ("v0.17.0", None),
        ("", None),
        (None, None),
    ],
)
def test_versions(text: str | None, numbers: Version | None) -> None:
    assert version_of(text) == numbers


def test_what_comes_before_the_fix_may_have_the_issue() -> None:
    bare = Issue(
        id="a-row", engine="vllm", symptom="s", class_="crash", affected=">=0.17.0, <0.24.0", fixed="0.24.0",
        verified="v", bears_on="b", workaround="w", sources=("s",),
    )  # fmt: skip
    found = {
        text: tuple(match.unclear for match in matching([bare], version(text), HERE))
        for text in ("0.16.0", "0.17.0rc1", "0.17.0", "0.23.9", "0.24.0rc1", "0.24.0")
    }
    unclear = ("whether this version has it",)
    assert found == {
        "0.16.0": (), "0.17.0rc1": (unclear,), "0.17.0": ((),), "0.23.9": ((),), "0.24.0rc1": (unclear,), "0.24.0": (),
    }  # fmt: skip


def test_a_range_that_is_none_is_refused() -> None:
    row = replace(ROWS[0], affected="0.17 and later")
    with pytest.raises(ValueError, match="not a range of versions"):
        matching([row], version("0.26.0"), HERE)


# --- conditions ------------------------------------------------------------------------------------------------------

NOBODY_SAID: Final = Meant()
OF_FLAGS: Final = [
    (When(tensor_parallel=2), ("-tp", "4"), ("-tp", "1"), ("-tp", "x")),
    (When(pipeline_parallel=2), ("-pp", "2"), (), ("-pp", "x")),
    (When(data_parallel=2), ("-dp", "2"), (), ("-dp", "x")),
    (When(api_server_count=2), ("--api-server-count", "2"), (), ("-dp", "2")),
    (When(lora=True), ("--enable-lora",), (), ("--enable-lora=x",)),
    (When(speculative=("mtp",)), ("--spec-method", "deepseek_mtp"), ("--spec-method", "ngram"), ("--spec-model", "m")),
    (When(kv_cache="quantized"), ("--kv-cache-dtype", "fp8"), ("--kv-cache-dtype", "bfloat16"), ("--kv-cache-dtype",)),
    (When(kv_offload=("native",)), ("--kv-offloading-size", "8"), (), ("--kv-offloading-size", "x")),
    (When(kv_connector=("A",)), ("--kv-transfer-config.kv_connector", "A"), (), ("--kv-transfer-config", "{")),
    (When(executor=("external_launcher",)), ("--distributed-executor-backend", "external_launcher"), (), ("--distr",)),
    (When(sleep_backend=("cumem_tag",)), ("--sleep-mode-backend", "cumem_tag"), (), ("--sleep-mode-backend",)),
    (When(mm_encoder_tp_mode=("data",)), ("--mm-encoder-tp-mode", "data"), (), ("--mm-encoder-tp-mode", "")),
    (When(custom_all_reduce=True), (), ("--disable-custom-all-reduce",), ("--config", "file")),
]


@pytest.mark.parametrize(("when", "yes", "no", "unclear"), OF_FLAGS, ids=lambda value: str(value)[:60])
def test_a_condition_on_flags(when: When, yes: tuple[str, ...], no: tuple[str, ...], unclear: tuple[str, ...]) -> None:
    assert unmet_or_unclear(when, replace(HERE, flags=parse(yes))) == ()
    assert unmet_or_unclear(when, replace(HERE, flags=parse(no))) is None
    for meant in (replace(HERE, flags=parse(unclear)), NOBODY_SAID):
        named = unmet_or_unclear(when, meant)
        assert named is not None
        assert len(named) == 1


@pytest.mark.parametrize(
    ("when", "yes", "no", "unclear"),
    [
        (When(level=2), {"level": 2}, {"level": 1}, {"level": None}),
        (When(model="dense"), {"made": True}, None, {"made": False}),
        (When(model="hybrid"), None, {"made": True}, {"made": None}),
        (When(platform=("wsl2",)), {"platform": "wsl2"}, {"platform": "vm"}, {"platform": None}),
        (When(rocm=True), {"rocm": True}, {"rocm": False}, {"rocm": None}),
        (When(pins=False), {"pins": False}, {"pins": True}, {"pins": None}),
        (When(gpu=("GB10",)), {"gpus": ("NVIDIA GB10",)}, {"gpus": ("NVIDIA H100",)}, {"gpus": None}),
        (When(environment="a setting"), None, None, {}),
        (When(kv_cache="quantized"), None, {"made": True}, {"made": False}),
    ],
)
def test_a_condition_on_the_machine_or_the_model(
    when: When, yes: dict[str, object] | None, no: dict[str, object] | None, unclear: dict[str, object]
) -> None:
    assert yes is None or unmet_or_unclear(when, replace(HERE, **yes)) == ()
    assert no is None or unmet_or_unclear(when, replace(HERE, **no)) is None
    assert len(unmet_or_unclear(when, replace(HERE, **unclear)) or ()) == 1


def test_every_condition_is_shown_here() -> None:
    of_flags = {name for when, *_ in OF_FLAGS for name in when.__struct_fields__ if getattr(when, name) is not None}
    assert of_flags | {"level", "model", "platform", "rocm", "pins", "gpu", "environment"} == set(
        When.__struct_fields__
    )


# --- rows that matter ------------------------------------------------------------------------------------------------


def meant(*flags: str, level: int = 1) -> Meant:
    return replace(HERE, flags=parse(flags), level=level, made=False)


@pytest.mark.parametrize(
    ("text", "row", "engine"),
    [
        ("0.16.0", "request-while-asleep-crashes", HERE),
        ("0.16.0", "data-parallel-sleep-crashes", meant("-dp", "2")),
        ("0.23.0", "idle-rank-runs-while-asleep", meant("-dp", "2")),
        ("0.28.0", "coordinator-believes-ranks-run", meant("-dp", "2")),
        ("0.31.0", "is-sleeping-is-the-word-of-one-rank", meant("-dp", "2")),
        ("0.24.0", "sleep-races-the-running-batch", meant("-tp", "2", "-pp", "2")),
        ("0.7.2", "no-sleep-over-http", HERE),
        ("0.25.1", "lora-breaks-reload-weights", meant("--enable-lora", level=2)),
        ("0.11.2", "fp8-kv-scales-lost-at-level-2", meant("--kv-cache-dtype", "fp8", level=2)),
        ("0.26.0", "draft-buffers-lost-at-level-2", meant("--spec-method", "eagle3", level=2)),
        ("0.33.0", "draft-weights-not-reloaded", meant("--spec-method", "deepseek_mtp", level=2)),
        ("0.33.0", "level-2-without-reload-answers-garbage", meant(level=2)),
        ("0.9.2", "no-way-to-reload-weights", meant(level=2)),
        ("0.27.1", "failed-wake-wedges", HERE),
        ("0.27.1", "blocks-released-twice", HERE),
        ("0.31.0", "a-bad-level-drops-everything", HERE),
        ("0.29.0", "no-start-under-wsl2", replace(HERE, platform="wsl2")),
        ("0.24.0", "some-models-do-not-start-under-wsl2", replace(HERE, platform="wsl2")),
        ("0.22.0", "first-models-do-not-start-under-wsl2", replace(HERE, platform="wsl2")),
        ("0.25.1", "unified-memory-dies-on-wake", replace(HERE, gpus=("NVIDIA GB10",))),
        ("0.33.0", "connectors-that-refuse-sleep-mode", meant("--kv-transfer-config.kv_connector", "MoRIIOConnector")),
    ],
)
def test_a_row_applies_to_the_last_version_that_has_it(text: str, row: str, engine: Meant) -> None:
    assert row in applying(text, engine)
    issue = next(one for one in ROWS if one.id == row)
    if issue.fixed != "none":
        assert row not in applying(issue.fixed, engine) | set(open_ones(issue.fixed, engine))


def test_a_row_whose_model_is_not_known_only_may_apply() -> None:
    engine = meant("--kv-cache-dtype", "fp8")
    assert "hybrid-model-with-quantized-kv-cannot-wake" not in applying("0.26.0", engine)
    assert open_ones("0.26.0", engine)["hybrid-model-with-quantized-kv-cannot-wake"] == ("whether the model is hybrid",)


def test_a_plain_engine_of_today_has_nothing_that_weighs() -> None:
    weighing = {row.id for row in ROWS if row.bears_on in ("sleep_cycles_hold", "requests_survive_sleep")}
    for text in ("0.26.0", "0.33.0"):
        assert not applying(text) & weighing


def test_the_rows_are_read_once() -> None:
    assert known_issues.all_issues() is ROWS
