import base64
from typing import Any

import numpy as np
import orjson
import pytest

from cortex_stream.errors import InvariantError
from cortex_stream.loadtest.ledger import Ledger, percentile
from schemas.outcomes import OutcomeKind
from schemas.priority import Lane


def event(
    request_id: str | None, *, outcome_id: str = "a", kind: OutcomeKind = OutcomeKind.RESULT
) -> bytes:
    vector = base64.b64encode(np.array([3, 4], "<f4").tobytes()).decode()
    data: dict[str, Any] = {"output": {"encoding_format": "base64", "dims": 2, "vectors": [vector]}}
    return orjson.dumps({"id": outcome_id, "type": kind.type, "subject": request_id, "data": data})


def test_a_request_is_missing_until_its_outcome_arrives() -> None:
    ledger = Ledger()
    ledger.sent("r-1", lane=Lane.LOW, at_ms=0)
    ledger.sent("r-2", lane=Lane.LOW, at_ms=0)

    arrived = ledger.arrived(event("r-2"), append_ms=5)

    assert arrived == "r-2"
    assert ledger.missing() == ["r-1"]
    assert not ledger.complete


def test_a_second_delivery_counts_as_a_repetition_and_changes_nothing() -> None:
    ledger = Ledger()
    ledger.sent("r", lane=Lane.LOW, at_ms=0)
    ledger.arrived(event("r"), append_ms=5)

    assert ledger.arrived(event("r"), append_ms=900) is None

    assert (ledger.repetitions, ledger.contradictions) == (1, [])
    assert ledger.answers["r"].append_ms == 5


def test_another_outcome_of_the_same_request_is_a_contradiction() -> None:
    ledger = Ledger()
    ledger.sent("r", lane=Lane.LOW, at_ms=0)
    ledger.arrived(event("r"), append_ms=5)

    ledger.arrived(event("r", outcome_id="b", kind=OutcomeKind.REJECTED), append_ms=6)

    assert ledger.contradictions == ["r"]
    assert ledger.kinds() == {OutcomeKind.RESULT: 1}


def test_outcomes_of_other_people_are_ignored() -> None:
    ledger = Ledger()

    assert ledger.arrived(event("theirs"), append_ms=5) is None
    assert ledger.arrived(event(None), append_ms=5) is None

    assert ledger.complete
    assert ledger.answers == {}


def test_latency_is_from_produce_time_to_append_time_by_lane() -> None:
    ledger = Ledger()
    for index in range(100):
        ledger.sent(f"c{index}", lane=Lane.CRITICAL, at_ms=1000)
        ledger.arrived(event(f"c{index}"), append_ms=1001 + index)
    ledger.sent("low", lane=Lane.LOW, at_ms=1000)
    ledger.arrived(event("low"), append_ms=3000)

    latencies = ledger.latencies()

    assert list(latencies) == [Lane.CRITICAL, Lane.LOW]
    critical = latencies[Lane.CRITICAL]
    assert (critical.p50_ms, critical.p95_ms, critical.p99_ms, critical.max_ms) == (50, 95, 99, 100)
    assert ledger.elapsed_s() == 2.0


def test_vectors_come_in_the_order_of_the_texts() -> None:
    ledger = Ledger(keep_events=True)
    ledger.sent("run-0", lane=Lane.LOW, at_ms=0)
    ledger.arrived(event("run-0"), append_ms=1)

    np.testing.assert_array_equal(ledger.vectors("run", 1), [[3, 4]])


def test_a_ledger_that_keeps_no_events_has_no_vectors() -> None:
    ledger = Ledger()
    ledger.sent("run-0", lane=Lane.LOW, at_ms=0)
    ledger.arrived(event("run-0"), append_ms=1)

    with pytest.raises(InvariantError):
        ledger.vectors("run", 1)


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 2), (0.51, 3), (0.99, 4), (1.0, 4)])
def test_a_percentile_is_a_measured_value(share: float, value: float) -> None:
    assert percentile([1, 2, 3, 4], share) == value
