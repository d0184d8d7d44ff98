import base64
from collections.abc import Mapping

import numpy as np
import orjson
import pytest

from cortex_stream.delivery.outcome import (
    OutcomeFields,
    lake_vector_record,
    outcome_record,
    rfc3339,
)
from cortex_stream.errors import CortexError, InferenceFailed, InvalidField
from schemas.handovers import Reinjection
from schemas.outcomes import ModelIdentity, OutcomeKind
from schemas.outcomes import Outcome as OutcomeMessage
from schemas.vectors import LakeVector

MODEL = ModelIdentity(name="minilm", version="1", digest=f"sha256:{'a' * 64}")
EMBEDDED = {
    "encoding_format": "float",
    "dims": 2,
    "vectors": [np.array([0.5, 0.25], np.float32)],
    "tokens": (3,),
    "truncated": (False,),
}
REPLAY = Reinjection(replay_id="r1", publish_to="replays")
REDRIVE = Reinjection(replay_id="r2", publish_to="results", redrives=1)
CLASSIFIED = {
    "classifications": [[{"label": "spam", "score": 0.5}]],
    "tokens": (3,),
    "truncated": (True,),
}


def fields(
    *,
    request_id: str | None = "42",
    error: CortexError | None = None,
    output: Mapping[str, object] | None = None,
    reinjection: Reinjection | None = None,
) -> OutcomeFields:
    return OutcomeFields(
        outcome_id="0" * 32,
        request_id=request_id,
        request_type="cortex.nlp.embed.v1",
        traceparent="00-1-2-01" if output else None,
        reinjection=reinjection,
        output=output,
        error=error,
        model=MODEL if output else None,
        timings_ms={"total": 1.5},
        attempt=1,
    )


@pytest.mark.parametrize(
    ("kind", "given_fields"),
    [
        (OutcomeKind.RESULT, fields(output=EMBEDDED)),
        (OutcomeKind.RESULT, fields(output=CLASSIFIED)),
        (OutcomeKind.REJECTED, fields(error=InvalidField("wrong", field="data.texts"))),
        (OutcomeKind.REJECTED, fields(error=InvalidField("wrong"), request_id=None)),
        (OutcomeKind.EXPIRED, fields(error=InferenceFailed("late"))),
        (OutcomeKind.DEAD_LETTER, fields(error=InferenceFailed("bad"), reinjection=REPLAY)),
    ],
)
def test_what_is_encoded_is_what_the_schema_promises(
    kind: OutcomeKind, given_fields: OutcomeFields
) -> None:
    record = outcome_record(kind, given_fields, now_unix_ms=1_700_000_000_123)

    message = OutcomeMessage.model_validate_json(record.value or b"", strict=True)
    assert message.type == kind.type == f"cortex.outcome.{kind}.v1"
    assert message.time == "2023-11-14T22:13:20.123Z"
    assert message.subject == message.data.request_id == given_fields.request_id
    assert (message.data.error is None) == (given_fields.error is None)
    assert (message.data.output is None) == (given_fields.output is None)


def test_an_error_on_the_wire_is_code_message_field_and_whether_a_retry_may_help() -> None:
    refused = fields(error=InvalidField("wrong", field="data.texts"))
    failed = fields(error=InferenceFailed("broke"))

    errors = [
        orjson.loads(outcome_record(OutcomeKind.REJECTED, each, now_unix_ms=0).value or b"")[
            "data"
        ]["error"]
        for each in (refused, failed)
    ]

    assert errors == [
        {"code": "invalid_field", "message": "wrong", "field": "data.texts", "retryable": False},
        {"code": "inference_failed", "message": "broke", "field": None, "retryable": True},
    ]


def test_an_outcome_is_keyed_by_the_request_id_and_a_replay_says_where_it_goes() -> None:
    live, replay, redrive = (
        outcome_record(OutcomeKind.RESULT, fields(output=EMBEDDED, reinjection=each), now_unix_ms=0)
        for each in (None, REPLAY, REDRIVE)
    )

    assert (live.topic, live.key) == ("cortex.results", b"42")
    assert (replay.topic, replay.key) == ("cortex.replays", b"42")
    assert (redrive.topic, redrive.key) == ("cortex.results", b"42")


def test_an_unreadable_request_id_is_null_and_the_subject_absent() -> None:
    refused = fields(error=InvalidField("x"), request_id=None)

    record = outcome_record(OutcomeKind.REJECTED, refused, now_unix_ms=0)

    event = orjson.loads(record.value or b"")
    assert record.key == refused.outcome_id.encode()
    assert "subject" not in event
    assert event["data"]["request_id"] is None


def test_a_lake_vector_is_what_its_schema_promises() -> None:
    vectors = np.array([[0.5, -1.0], [0.0, 2.0]], "<f4")

    record = lake_vector_record(
        subject="doc-1",
        outcome_id="0" * 32,
        request_id="42",
        source="//lake",
        tenant="acme",
        model=MODEL,
        vectors=[row.tobytes() for row in vectors],
        now_unix_ms=0,
    )

    message = LakeVector.model_validate_json(record.value or b"", strict=True)
    assert (record.topic, record.key) == ("lake.vectors", b"doc-1")
    assert message.dims == 2
    decoded = [np.frombuffer(base64.b64decode(vector), "<f4") for vector in message.vectors]
    assert np.array_equal(decoded, vectors)


@pytest.mark.parametrize(
    ("unix_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000_999, "2023-11-14T22:13:20.999Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
    ],
)
def test_moments_are_rfc_3339_in_utc_with_milliseconds(unix_ms: int, text: str) -> None:
    assert rfc3339(unix_ms) == text
