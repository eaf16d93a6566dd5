"""The JSON Schema that is published with the package."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest

from warmspare import catalogue
from warmspare.model.snapshot import schema

HOSTS: Final = sorted((Path(__file__).parent.parent / "hosts").glob("*.json"))


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    text = resources.files("warmspare.model").joinpath("snapshot.schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.fixture(scope="module")
def validator(published: dict[str, Any]) -> jsonschema.Draft202012Validator:
    """One for all files: `jsonschema.validate` would check the schema itself anew with each."""
    return jsonschema.Draft202012Validator(published)


def test_it_is_of_this_version(published: dict[str, Any]) -> None:
    told = "run: warmspare snapshot --schema -o src/warmspare/model/snapshot.schema.json"
    assert published == json.loads(json.dumps(schema(catalogue.facts()))), told


def test_it_is_a_schema(published: dict[str, Any]) -> None:
    assert jsonschema.validators.validator_for(published) is jsonschema.Draft202012Validator
    jsonschema.Draft202012Validator.check_schema(published)


@pytest.mark.parametrize("path", HOSTS, ids=lambda path: path.stem)
def test_every_recorded_host_fits_it(validator: jsonschema.Draft202012Validator, path: Path) -> None:
    validator.validate(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"redacted": "yes"}, {"readings": [{}]}, {"more": 1}, {"transcript": [{"verb": "shout"}]}],
    ids=str,
)
def test_what_the_reader_refuses_does_not_fit_it(
    validator: jsonschema.Draft202012Validator, change: dict[str, Any]
) -> None:
    good = json.loads(HOSTS[0].read_text(encoding="utf-8"))
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**good, **change})
