"""A request that no room would ever be enough for."""

from schemas.outcomes import OutcomeKind
from schemas.requests import CLASSIFY
from tests.unit.engine.desk import code_of, message_of, open_engine, request, source


async def test_a_request_that_needs_more_than_a_lane_has_is_answered_and_kept_as_evidence() -> None:
    async with open_engine(most_request_bytes=100_000) as engine:
        outcome = await engine.process(request(["a"] * 50), source())

    assert outcome.kind is OutcomeKind.DEAD_LETTER
    assert code_of(outcome) == "resource_exhausted"
    error = message_of(outcome).data.error
    assert error is not None
    assert not error.retryable
    assert "this worker gives a request 100000" in error.message
    assert len(outcome.records) == 2


async def test_a_request_that_fits_is_answered() -> None:
    async with open_engine(most_request_bytes=100_000) as engine:
        outcome = await engine.process(request(["a"] * 20), source())

    assert outcome.kind is OutcomeKind.RESULT


async def test_labels_need_room_as_texts_do() -> None:
    value = request(["a"], type=CLASSIFY, data={"labels": [f"label {n}" for n in range(50)]})

    async with open_engine(most_request_bytes=100_000) as engine:
        outcome = await engine.process(value, source())

    assert code_of(outcome) == "resource_exhausted"
