from collections.abc import AsyncIterator

import orjson
import pytest

from cortex_stream.clock import ManualClock
from cortex_stream.engine.engine import Engine
from schemas.invalidations import Invalidation, InvalidationScope
from tests.unit.engine.desk import code_of, letter_of, message_of, open_engine, source

DOCUMENT = {"collection": "wiki", "document_id": "42"}
MODEL = {"name": "minilm", "version": "2"}


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with open_engine(clock=ManualClock(unix_ms=1_700_000_000_000)) as engine:
        yield engine


def event(event_type: str, data: object, **attributes: object) -> bytes:
    return orjson.dumps({"id": "e1", "type": event_type, "data": data, **attributes})


@pytest.mark.parametrize(
    ("event_type", "data", "scope", "value"),
    [
        ("lake.document.changed.v1", DOCUMENT, InvalidationScope.TAG, "document:wiki/42"),
        ("lake.document.deleted.v1", DOCUMENT, InvalidationScope.TAG, "document:wiki/42"),
        ("forge.model.published.v1", MODEL, InvalidationScope.MODEL, "minilm"),
    ],
)
async def test_an_event_makes_every_cache_forget_what_it_is_about(
    engine: Engine, event_type: str, data: object, scope: InvalidationScope, value: str
) -> None:
    outcome = engine.process_event(event(event_type, data, subject="wiki/42"), source(lane=None))

    [record] = outcome.records
    message = Invalidation.model_validate_json(record.value or b"", strict=True)
    assert (record.topic, record.key) == ("cortex.invalidations", f"{scope}:{value}".encode())
    assert message == Invalidation(
        scope=scope, value=value, at="2023-11-14T22:13:20.000Z", source_instance="worker-0"
    )
    assert (outcome.outcome_id, outcome.kind, outcome.type) == (None, None, event_type)


@pytest.mark.parametrize("data", [{"any": ["thing"]}, 5, "text", [], False])
async def test_events_of_stream_are_accepted_whatever_their_data(
    engine: Engine, data: object
) -> None:
    outcome = engine.process_event(event("stream.click.v1", data), source(lane=None))

    assert (outcome.records, outcome.kind, outcome.type) == ((), None, "stream.*")


async def test_an_unknown_event_is_refused_with_those_that_are_handled(engine: Engine) -> None:
    value = event("lake.document.sung.v1", {})

    outcome = engine.process_event(value, source(lane=None))

    error = message_of(outcome).data.error
    assert error is not None
    assert (error.code, error.field) == ("unknown_event", "type")
    assert "lake.document.changed.v1" in error.message
    assert "stream.*" in error.message
    assert outcome.type == "unknown"
    assert letter_of(outcome).value == value


@pytest.mark.parametrize(
    ("value", "code", "field"),
    [
        (event("lake.document.changed.v1", {"collection": "wiki"}), "invalid_field", "data.document_id"),
        (event("lake.document.changed.v1", {**DOCUMENT, "x": 1}), "invalid_field", "data.x"),
        (event("lake.document.changed.v1", "wiki/42"), "invalid_field", "data"),
        (event("lake.document.changed.v1", {**DOCUMENT, "collection": 1}), "invalid_field", "data.collection"),
        (event("lake.document.changed.v1", None), "invalid_envelope", "data"),
        (b"junk", "invalid_json", None),
    ],
)  # fmt: skip
async def test_a_wrong_event_ends_like_a_wrong_request(
    engine: Engine, value: bytes, code: str, field: str | None
) -> None:
    outcome = engine.process_event(value, source(lane=None))

    error = message_of(outcome).data.error
    assert error is not None
    assert (code_of(outcome), error.field) == (code, field)
    assert letter_of(outcome).value == value


async def test_an_event_may_come_in_binary_mode(engine: Engine) -> None:
    headers = [("ce_id", b"1"), ("ce_type", b"lake.document.deleted.v1")]

    outcome = engine.process_event(orjson.dumps(DOCUMENT), source(lane=None, headers=headers))

    assert outcome.records[0].key == b"tag:document:wiki/42"
