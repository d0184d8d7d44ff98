"""A request that no room would ever be enough for."""

from cortex_stream.settings.sections import LimitsSettings
from cortex_stream.testing.stub_runner import StubRunner, stub_model
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


async def test_an_answer_that_would_be_too_large_is_not_worked_out() -> None:
    labels = [f"label {n} {'x' * 400}" for n in range(64)]
    limits = LimitsSettings(outcome_bytes=1_000_000)
    runner = StubRunner()
    model = stub_model(runners=(runner,))

    async with open_engine(model, limits=limits) as engine:
        few, many = [
            await engine.process(
                request(["a"] * texts, type=CLASSIFY, data={"labels": labels}), source()
            )
            for texts in (2, 40)
        ]

    assert few.kind is OutcomeKind.RESULT
    assert code_of(many) == "outcome_too_large"
    assert sum(runner.batches) == 2 + len(labels)
