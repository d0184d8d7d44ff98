"""A replay may choose the model: it answers in place of the one that the request names."""

from typing import Any

import orjson

from cortex_stream.delivery.outcome import Outcome
from cortex_stream.testing.stub_runner import stub_model
from schemas.handovers import Reinjection
from schemas.outcomes import OutcomeKind
from tests.unit.engine.desk import open_engine, put_back, request

PLAIN = Reinjection(replay_id="r", publish_to="replays")
NEWER = PLAIN.model_copy(update={"model": "newer@2"})


async def answer(again: Reinjection, **data: object) -> Outcome:
    """Return the outcome of a request put back so, where two models are served."""
    models = (stub_model(name="older"), stub_model(name="newer", version="2"))
    async with open_engine(*models) as engine:
        return await engine.process(request(data={"texts": ["hello"], **data}), put_back(again))


def said(outcome: Outcome) -> dict[str, Any]:
    data: dict[str, Any] = orjson.loads(outcome.records[0].value or b"")["data"]
    return data


async def test_the_replays_model_answers_instead_of_the_requests_and_of_the_default() -> None:
    named, unnamed = await answer(NEWER, model="older"), await answer(NEWER)

    assert said(named)["model"]["name"] == said(unnamed)["model"]["name"] == "newer"


async def test_without_one_the_request_is_answered_as_it_asks() -> None:
    assert said(await answer(PLAIN, model="older"))["model"]["name"] == "older"


async def test_the_question_stays_the_same_so_its_outcome_id_does_not_depend_on_the_model() -> None:
    assert (await answer(NEWER, model="older")).outcome_id == (
        await answer(PLAIN, model="older")
    ).outcome_id


async def test_a_model_that_nobody_serves_is_refused_where_the_replay_publishes() -> None:
    outcome = await answer(NEWER.model_copy(update={"model": "gone@9"}), model="older")

    assert outcome.kind is OutcomeKind.REJECTED
    assert said(outcome)["error"]["code"] == "unknown_model"
    assert [record.topic for record in outcome.records] == ["cortex.replays"]
