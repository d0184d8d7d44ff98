import json
from pathlib import Path
from typing import Any

import pytest

from schemas.export import EXPORTED, json_schemas
from tests.contract.schemas.compatibility import breaking_changes

BASELINE = Path(__file__).parents[1] / "baseline"
"""The schemas as the last release shipped them; copied from `schemas/json/` at each release."""
WRITTEN_BY_US = {"outcome.v1", "lake-vector.v1", "invalidation.v1"}


def fields(*demanded: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(demanded)}


TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0, "maximum": 10}
OPTIONAL = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}


@pytest.mark.parametrize("path", sorted(BASELINE.glob("*.json")), ids=lambda path: path.stem)
def test_nobody_who_relies_on_the_last_release_breaks(path: Path) -> None:
    released = json.loads(path.read_text(encoding="utf-8"))

    current = json_schemas()[path.stem]

    assert breaking_changes(released, current, promised=path.stem in WRITTEN_BY_US) == []


def test_every_schema_has_a_released_copy() -> None:
    assert {path.stem for path in BASELINE.glob("*.json")} == set(EXPORTED)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (fields("a", a=TEXT), fields("a", a=TEXT)),
        (fields("a", a=TEXT), fields("a", a=TEXT, b=OPTIONAL)),
        (fields("a", a=TEXT), fields(a=TEXT)),
        (fields(a=COUNT), fields(a={**COUNT, "minimum": -1, "maximum": 11})),
        (fields(a=COUNT), fields(a={"type": "number"})),
        (fields(a=TEXT), fields(a={"anyOf": [TEXT, {"type": "null"}]})),
        (fields(a={"const": "x"}), fields(a={"enum": ["x", "y"]})),
        (fields(a={**TEXT, "pattern": "a"}), fields(a=TEXT)),
        ({**fields(a=TEXT), "additionalProperties": False}, fields(a=TEXT)),
        (fields(a=TEXT), fields(a={**TEXT, "description": "explained"})),
        (
            {**fields(a={"$ref": "#/$defs/A"}), "$defs": {"A": TEXT}},
            {**fields(a={"$ref": "#/$defs/B"}), "$defs": {"B": TEXT}},
        ),
    ],
)
def test_widening_breaks_nobody(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert breaking_changes(old, new, promised=False) == []


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (fields(a=TEXT), fields(), "/a: removed"),
        (fields(a=TEXT), fields("a", a=TEXT), "/a: is demanded now"),
        (fields(), fields("b", b=TEXT), "/b: is demanded now"),
        (fields(a=TEXT), fields(a=COUNT), "/a: type string became integer"),
        (fields(a={}), fields(a=TEXT), "/a: type any became string"),
        (fields(a=OPTIONAL), fields(a={**TEXT, "default": None}), "/a: no longer takes null"),
        (
            fields(a={"enum": ["x", "y"]}),
            fields(a={"const": "x"}),
            "/a: no longer takes 'y'",
        ),
        (fields(a=TEXT), fields(a={**TEXT, "enum": ["x"]}), "/a: no longer takes any other value"),
        (fields(a=COUNT), fields(a={**COUNT, "minimum": 1}), "/a: minimum rose to 1"),
        (fields(a=COUNT), fields(a={**COUNT, "maximum": 9}), "/a: maximum fell to 9"),
        (fields(a=TEXT), fields(a={**TEXT, "maxLength": 9}), "/a: maxLength fell to 9"),
        (fields(a=TEXT), fields(a={**TEXT, "pattern": "a"}), "/a: pattern changed"),
        (fields(a=OPTIONAL), fields(a={**OPTIONAL, "default": ""}), "/a: no longer takes string"),
        (fields(a={**TEXT, "default": "x"}), fields(a=TEXT), "/a: default changed from 'x'"),
        (
            fields(a=TEXT),
            {**fields(a=TEXT), "additionalProperties": False},
            "/: no longer takes unknown fields",
        ),
        (
            fields(a={"type": "array", "items": COUNT}),
            fields(a={"type": "array", "items": {**COUNT, "maximum": 9}}),
            "/a/*: maximum fell to 9",
        ),
        (
            {**fields(a={"$ref": "#/$defs/A"}), "$defs": {"A": fields(b=TEXT)}},
            {**fields(a={"$ref": "#/$defs/A"}), "$defs": {"A": fields()}},
            "/a/b: removed",
        ),
        (
            fields(a=TEXT),
            fields(a={**TEXT, "not": {}}),
            "/a: not changed, which this comparison does not understand",
        ),
    ],
)
def test_narrowing_is_named(old: dict[str, Any], new: dict[str, Any], text: str) -> None:
    assert breaking_changes(old, new, promised=False)[0] == text


def test_readers_of_ours_may_rely_on_what_was_demanded() -> None:
    old, new = fields("a", a=TEXT), fields(a=TEXT)

    assert breaking_changes(old, new, promised=True) == ["/a: is no longer promised"]


def test_we_may_promise_readers_more() -> None:
    old, new = fields("a", a=TEXT), fields("a", "b", a=TEXT, b=TEXT)

    assert breaking_changes(old, new, promised=True) == []
