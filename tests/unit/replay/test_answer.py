"""What a report reads from an outcome; and which of several outcomes counts."""

import base64

import numpy as np
import orjson
import pytest

from cortex_stream.delivery.outcome import OutcomeFields, outcome_record
from cortex_stream.errors import StuckRun
from cortex_stream.replay.answer import Answer, kind_or_none, read_answer, take_first
from schemas.outcomes import ModelIdentity, OutcomeKind

ROWS = np.array([[0.6, 0.8], [1, 0]], np.float32)


def outcome(kind: OutcomeKind = OutcomeKind.RESULT, **changed: object) -> Answer:
    fields: dict[str, object] = {
        "outcome_id": "0" * 32,
        "request_id": "1",
        "request_type": "t",
        "traceparent": None,
        "reinjection": None,
        "output": None,
        "error": None,
        "model": ModelIdentity(name="m", version="2", digest=f"sha256:{'0' * 64}"),
        "timings_ms": {"queue": 5.0, "embedding": 1.5, "inference": 0.5, "total": 9.0},
        "attempt": 1,
    }
    record = outcome_record(kind, OutcomeFields(**{**fields, **changed}), now_unix_ms=0)  # type: ignore[arg-type]
    return read(record.value)


def read(value: bytes | None) -> Answer:
    parsed = orjson.loads(value or b"")
    kind = kind_or_none(parsed)
    assert kind is not None
    return read_answer(parsed, kind)


@pytest.mark.parametrize(
    ("encoding", "encoded"),
    [
        ("base64", [base64.b64encode(row.tobytes()).decode() for row in ROWS]),
        ("float", ROWS.tolist()),
    ],
)
def test_vectors_are_read_in_both_encodings(encoding: str, encoded: list[object]) -> None:
    found = outcome(
        output={"encoding_format": encoding, "dims": 2, "vectors": encoded, "tokens": [3, 4]}
    )

    assert found.vectors is not None
    np.testing.assert_array_equal(found.vectors, ROWS)
    assert (found.tokens, found.model, found.labels) == (7, "m@2", None)
    assert (found.total_ms, found.model_ms) == (9.0, 2.0)


def test_the_best_label_of_each_text_is_read() -> None:
    scores = [[{"label": "x", "score": 0.9}, {"label": "y", "score": 0.1}], [{"label": "y"}]]

    found = outcome(output={"classifications": scores, "tokens": [1, 1]})

    assert found.labels == ("x", "y")
    assert found.vectors is None


def test_a_failure_is_read_with_its_code() -> None:
    found = outcome(OutcomeKind.DEAD_LETTER, error=StuckRun("slow"), model=None, timings_ms={})

    assert (found.code, found.model, found.total_ms, found.answered) == (
        "stuck_run",
        None,
        0,
        False,
    )


def test_what_is_no_outcome_has_no_kind() -> None:
    assert kind_or_none({}) is None
    assert kind_or_none({"type": "cortex.outcome.delayed.v9"}) is None


def test_the_first_outcome_counts_and_a_result_supersedes_what_is_none() -> None:
    late, dead, result = (
        outcome(kind) for kind in (OutcomeKind.EXPIRED, OutcomeKind.DEAD_LETTER, OutcomeKind.RESULT)
    )
    found: dict[str, Answer] = {}

    kept = []
    for answer in (late, dead, result, dead, outcome()):
        take_first(found, "x", answer)
        kept.append(found["x"])

    assert [
        each is wanted
        for each, wanted in zip(kept, (late, late, result, result, result), strict=True)
    ] == [True] * 5
