import base64
from typing import Any

import numpy as np
import orjson
import pytest

from cortex_stream.errors import InvariantError
from cortex_stream.loadtest.ledger import Ledger
from cortex_stream.loadtest.load import LoadRequest
from schemas.outcomes import OutcomeKind
from schemas.priority import Lane


def request(
    request_id: str, *, lane: Lane = Lane.LOW, tenant: str = "", traffic: str = ""
) -> LoadRequest:
    return LoadRequest(request_id, lane, b"", tenant, traffic)


def event(
    request_id: str | None, *, outcome_id: str = "a", kind: OutcomeKind = OutcomeKind.RESULT
) -> bytes:
    vector = base64.b64encode(np.array([3, 4], "<f4").tobytes()).decode()
    data: dict[str, Any] = {"output": {"encoding_format": "base64", "dims": 2, "vectors": [vector]}}
    return orjson.dumps({"id": outcome_id, "type": kind.type, "subject": request_id, "data": data})


def test_a_request_is_missing_until_its_outcome_arrives() -> None:
    ledger = Ledger()
    ledger.sent(request("r-1", traffic="one"), at_ms=0)
    ledger.sent(request("r-2", traffic="two"), at_ms=0)

    arrived = ledger.arrived(event("r-2"), append_ms=5)

    assert arrived == "r-2"
    assert ledger.missing() == ["r-1"]
    assert (ledger.waiting("one"), ledger.waiting("two")) == (1, 0)
    assert not ledger.complete
    assert ledger.unresolved() == 1


def test_a_second_delivery_counts_as_a_repetition_and_changes_nothing() -> None:
    ledger = Ledger()
    ledger.sent(request("r"), at_ms=0)
    ledger.arrived(event("r"), append_ms=5)

    assert ledger.arrived(event("r"), append_ms=900) is None

    assert (ledger.repetitions, ledger.contradictions) == (1, [])
    assert ledger.answers["r"].append_ms == 5
    assert ledger.unresolved() == 0


@pytest.mark.parametrize(
    "second", [event("r", outcome_id="b"), event("r", kind=OutcomeKind.EXPIRED)]
)
def test_another_outcome_of_the_same_request_is_a_contradiction(second: bytes) -> None:
    ledger = Ledger()
    ledger.sent(request("r"), at_ms=0)
    ledger.arrived(event("r"), append_ms=5)

    ledger.arrived(second, append_ms=6)

    assert ledger.contradictions == ["r"]
    assert ledger.kinds() == {OutcomeKind.RESULT: 1}
    assert ledger.unresolved() == 1


def test_an_outcome_that_is_no_result_leaves_its_request_unresolved() -> None:
    ledger = Ledger()
    ledger.sent(request("r"), at_ms=0)

    ledger.arrived(event("r", kind=OutcomeKind.EXPIRED), append_ms=5)

    assert ledger.complete
    assert ledger.unresolved() == 1


def test_what_peers_answer_is_a_result_of_the_request_that_the_key_names() -> None:
    ledger = Ledger()
    ledger.sent(request("r"), at_ms=0)

    ledger.arrived(b'{"data": {}}', append_ms=5, key=b"r")
    ledger.arrived(b'{"subject": "r", "data": {}}', append_ms=6, key=None)

    assert ledger.kinds() == {OutcomeKind.RESULT: 1}
    assert (ledger.repetitions, ledger.contradictions) == (1, [])


def test_outcomes_of_other_people_are_ignored() -> None:
    ledger = Ledger()

    assert ledger.arrived(event("theirs"), append_ms=5) is None
    assert ledger.arrived(event(None), append_ms=5) is None

    assert ledger.complete
    assert ledger.answers == {}


def test_latency_is_from_produce_time_to_append_time_by_lane() -> None:
    ledger = Ledger()
    for index in range(100):
        ledger.sent(request(f"c{index}", lane=Lane.CRITICAL, tenant=f"{index % 2}"), at_ms=1000)
        ledger.arrived(event(f"c{index}"), append_ms=1001 + index)
    ledger.sent(request("low"), at_ms=1000)
    ledger.arrived(event("low", kind=OutcomeKind.EXPIRED), append_ms=3000)

    latencies = ledger.latencies()
    of_tenants = ledger.latencies_by(lambda asked: asked.tenant, kinds=[OutcomeKind.RESULT])

    assert list(latencies) == [Lane.CRITICAL, Lane.LOW]
    critical = latencies[Lane.CRITICAL]
    assert (critical.p50_ms, critical.p95_ms, critical.p99_ms, critical.max_ms) == (50, 95, 99, 100)
    assert ledger.elapsed_s() == 2.0
    assert {tenant: latency.count for tenant, latency in of_tenants.items()} == {"0": 50, "1": 50}


def test_lateness_is_how_long_after_its_moment_a_request_was_sent() -> None:
    ledger = Ledger()
    assert ledger.lateness_ms() is None
    ledger.sent(request("in time"), at_ms=1000)
    ledger.sent(request("late"), at_ms=1000, due_ms=970.0)

    late = ledger.lateness_ms()

    assert late is not None
    assert (late.p50_ms, late.max_ms) == (0, 30)


def test_nothing_sent_or_nothing_answered_took_no_time() -> None:
    ledger = Ledger()
    assert ledger.elapsed_s() == 0

    ledger.sent(request("r"), at_ms=1000)

    assert ledger.elapsed_s() == 0


def test_vectors_come_in_the_order_of_the_texts() -> None:
    ledger = Ledger(keep_events=True)
    ledger.sent(request("run-0"), at_ms=0)
    ledger.arrived(event("run-0"), append_ms=1)

    np.testing.assert_array_equal(ledger.vectors("run", 1), [[3, 4]])


def test_a_ledger_that_keeps_no_events_has_no_vectors() -> None:
    ledger = Ledger()
    ledger.sent(request("run-0"), at_ms=0)
    ledger.arrived(event("run-0"), append_ms=1)

    with pytest.raises(InvariantError):
        ledger.vectors("run", 1)
