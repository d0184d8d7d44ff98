import base64
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from schemas.export import EXPORTED, json_schemas

SCHEMAS = json_schemas()
VECTOR = base64.b64encode(struct.pack("<2f", 0.5, -0.5)).decode()
MODEL = {"name": "minilm", "version": "1", "digest": "sha256:" + "0" * 64}
EMBED = {"id": "1", "type": "cortex.nlp.embed.v1", "data": {"texts": ["hello"]}}
CLASSIFY = {"id": "1", "type": "cortex.nlp.classify.v1", "data": {"texts": ["hello"]}}
DOCUMENT = {
    "id": "1",
    "type": "lake.document.changed.v1",
    "subject": "doc-1",
    "data": {"collection": "manuals", "document_id": "doc-1"},
}
OUTCOME: dict[str, Any] = {
    "specversion": "1.0",
    "id": "0123456789abcdef0123456789abcdef",
    "source": "//cortex-stream",
    "type": "cortex.outcome.result.v1",
    "time": "2026-01-31T12:00:00.000Z",
    "subject": "1",
    "datacontenttype": "application/json",
    "data": {
        "request_id": "1",
        "request_type": "cortex.nlp.embed.v1",
        "output": {
            "encoding_format": "base64",
            "dims": 2,
            "vectors": [VECTOR],
            "tokens": [3],
            "truncated": [False],
        },
        "error": None,
        "model": MODEL,
        "timings_ms": {"queue": 1.2, "embedding": 4.0, "total": 6.1},
        "attempt": 1,
        "cache": "miss",
        "replay_id": None,
    },
}
INVALIDATION = {
    "scope": "tag",
    "value": "collection:manuals",
    "at": "2026-01-31T12:00:00.000Z",
    "source_instance": "worker-0",
}
LAKE_VECTOR = {
    "schema_version": "lake.vector.v1",
    "subject": "doc-1",
    "request_id": "1",
    "outcome_id": "0123456789abcdef0123456789abcdef",
    "source": "//unknown",
    "tenant": "//unknown",
    "model": MODEL,
    "dims": 2,
    "vectors": [VECTOR],
    "time": "2026-01-31T12:00:00.000Z",
}


def changed(message: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return `message` with another value at the dotted `path`."""
    step, _, rest = path.partition(".")
    return {**message, step: changed(message.get(step, {}), rest, value) if rest else value}


def without(message: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name != key}


def accepted_by_schema(name: str, message: object) -> bool:
    return bool(Draft202012Validator(SCHEMAS[name]).is_valid(message))


def accepted_by_model(name: str, message: object) -> bool:
    try:
        EXPORTED[name].model_validate(message)
    except ValidationError:
        return False
    return True


AUDIT: dict[str, Any] = {
    "schema_version": "cortex.audit.v1",
    "at": "2026-01-31T12:00:00.000Z",
    "principal": "ann@desk",
    "action": "dead_letter.redrive",
    "subject": "cortex.dead-letters/0/42",
    "details": {"replay_id": "redrive-0123-1", "turn": 1, "edited": False, "request_id": None},
}
CUT_OVER: dict[str, Any] = {
    "schema_version": "cortex.cut_over.v1",
    "name": "minilm",
    "version": "2",
    "at": "2026-01-31T12:00:00.000Z",
    "principal": "ann@desk",
    "replay_id": "try-2",
}

VALID = [
    ("embed-request.v1", EMBED),
    ("embed-request.v1", {**EMBED, "comment": "an extension attribute that we do not know"}),
    ("embed-request.v1", {**EMBED, "priority": "low", "deadlinems": 500, "tenant": "acme"}),
    ("embed-request.v1", {**EMBED, "time": "2026-01-31T12:00:00Z", "specversion": "1.0"}),
    ("embed-request.v1", changed(EMBED, "data.model", "minilm@1")),
    ("embed-request.v1", changed(EMBED, "data.encoding_format", "float")),
    ("classify-request.v1", CLASSIFY),
    ("classify-request.v1", changed(CLASSIFY, "data.labels", ["praise", "complaint"])),
    ("document-changed.v1", DOCUMENT),
    ("document-deleted.v1", {**DOCUMENT, "type": "lake.document.deleted.v1"}),
    (
        "model-published.v1",
        {**EMBED, "type": "forge.model.published.v1", "data": {"name": "m", "version": "2"}},
    ),
    ("stream-event.v1", {**EMBED, "type": "stream.clicks.v1", "data": {"any": ["thing", 1, None]}}),
    ("outcome.v1", OUTCOME),
    ("outcome.v1", without(OUTCOME, "subject")),
    (
        "outcome.v1",
        changed(
            changed(OUTCOME, "data.output", None),
            "data.error",
            {"code": "invalid_json", "message": "no", "field": None, "retryable": False},
        ),
    ),
    ("invalidation.v1", INVALIDATION),
    ("lake-vector.v1", LAKE_VECTOR),
    ("audit.v1", AUDIT),
    ("cut-over.v1", CUT_OVER),
    ("cut-over.v1", {**CUT_OVER, "replay_id": None}),
]
INVALID = [
    ("embed-request.v1", without(EMBED, "id")),
    ("embed-request.v1", without(EMBED, "type")),
    ("embed-request.v1", without(EMBED, "data")),
    ("embed-request.v1", {**EMBED, "id": ""}),
    ("embed-request.v1", {**EMBED, "id": 1}),
    ("embed-request.v1", {**EMBED, "id": "a\x00b"}),
    ("embed-request.v1", {**EMBED, "type": "cortex.nlp.classify.v1"}),
    ("embed-request.v1", {**EMBED, "specversion": "0.3"}),
    ("embed-request.v1", {**EMBED, "priority": "urgent"}),
    ("embed-request.v1", {**EMBED, "deadlinems": -1}),
    ("embed-request.v1", {**EMBED, "deadlinems": 2**53 + 1}),
    ("embed-request.v1", {**EMBED, "deadlinems": "500"}),
    ("embed-request.v1", changed(EMBED, "data.modle", "minilm")),
    ("embed-request.v1", changed(EMBED, "data.texts", [])),
    ("embed-request.v1", changed(EMBED, "data.texts", [""])),
    ("embed-request.v1", changed(EMBED, "data.texts", "hello")),
    ("embed-request.v1", changed(EMBED, "data.model", "../minilm")),
    ("embed-request.v1", changed(EMBED, "data.encoding_format", "int8")),
    ("classify-request.v1", changed(CLASSIFY, "data.labels", [])),
    ("classify-request.v1", changed(CLASSIFY, "data.multi_label", "yes")),
    ("classify-request.v1", changed(CLASSIFY, "data.input_type", "query")),
    ("document-changed.v1", {**DOCUMENT, "type": "lake.document.deleted.v1"}),
    ("document-changed.v1", {**DOCUMENT, "data": {"collection": "manuals"}}),
    ("document-deleted.v1", DOCUMENT),
    ("model-published.v1", {**EMBED, "type": "forge.model.published.v1", "data": {"name": "m"}}),
    ("stream-event.v1", {**EMBED, "type": "lake.clicks.v1"}),
    ("stream-event.v1", {**EMBED, "type": "stream.clicks.v1", "data": None}),
    ("outcome.v1", without(OUTCOME, "data")),
    ("outcome.v1", {**OUTCOME, "id": "short"}),
    ("outcome.v1", {**OUTCOME, "type": "cortex.outcome.unknown.v1"}),
    ("outcome.v1", changed(OUTCOME, "data.model.digest", "md5:0")),
    ("outcome.v1", changed(OUTCOME, "data.cache", "maybe")),
    ("invalidation.v1", {**INVALIDATION, "scope": "everything"}),
    ("invalidation.v1", {**INVALIDATION, "value": ""}),
    ("lake-vector.v1", {**LAKE_VECTOR, "schema_version": "lake.vector.v2"}),
    ("lake-vector.v1", without(LAKE_VECTOR, "model")),
    ("audit.v1", without(AUDIT, "principal")),
    ("audit.v1", {**AUDIT, "details": {"turn": 1.5}}),
    ("cut-over.v1", without(CUT_OVER, "version")),
    ("cut-over.v1", {**CUT_OVER, "name": ""}),
]


@pytest.mark.parametrize(("name", "message"), VALID)
def test_a_valid_message_is_valid_for_model_and_schema(name: str, message: object) -> None:
    assert accepted_by_model(name, message)
    assert accepted_by_schema(name, message)


@pytest.mark.parametrize(("name", "message"), INVALID)
def test_an_invalid_message_is_invalid_for_model_and_schema(name: str, message: object) -> None:
    assert not accepted_by_model(name, message)
    assert not accepted_by_schema(name, message)


def test_every_exported_message_has_a_valid_example_here() -> None:
    assert {name for name, _ in VALID} == set(EXPORTED)


@pytest.mark.parametrize("name", EXPORTED)
def test_a_schema_is_json_schema_2020_12_under_its_own_address(name: str) -> None:
    schema = SCHEMAS[name]

    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:cortex-stream:schema:{name.removesuffix('.v1')}:v1"


def integers_in(schema: object) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if schema.get("type") == "integer":
            yield schema
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from integers_in(part)


def test_integers_of_messages_stay_within_what_a_double_holds_exactly() -> None:
    integers = list(integers_in(list(SCHEMAS.values())))

    assert len(integers) > 5
    for integer in integers:
        assert -(2**53) <= integer["minimum"] < integer["maximum"] <= 2**53


@pytest.mark.parametrize(
    ("name", "message"),
    [("outcome.v1", OUTCOME), ("lake-vector.v1", LAKE_VECTOR), ("audit.v1", AUDIT)],
)
def test_readers_of_ours_do_not_stop_at_a_field_of_a_later_release(
    name: str, message: dict[str, Any]
) -> None:
    later = {**message, "added_later": True}

    assert accepted_by_schema(name, later)


def test_a_field_added_deep_in_an_outcome_does_not_stop_readers_either() -> None:
    later = changed(OUTCOME, "data.output.added_later", value=1)

    assert accepted_by_schema("outcome.v1", later)
