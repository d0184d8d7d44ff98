"""The dead letter of a record that ended its worker each time it ran."""

from dataclasses import replace

import pytest

from cortex_stream.clock import ManualClock
from cortex_stream.delivery.outcome import Outcome
from cortex_stream.record import RecordSource
from schemas import dead_letters
from schemas.handovers import HANDOVER, Reinjection
from schemas.priority import Lane
from tests.unit.engine.desk import (
    letter_of,
    message_of,
    open_engine,
    put_back,
    request,
    source,
)
from topics.names import REPLAYS

REDRIVEN = Reinjection(replay_id="again", publish_to="results", redrives=1)


async def give_up(
    value: bytes | None, place: RecordSource, *, deliveries: int = 3, readable: bool = True
) -> Outcome:
    async with open_engine(clock=ManualClock()) as engine:
        return engine.poisonous(value, place, deliveries=deliveries, readable=readable)


@pytest.mark.parametrize("place", [source(), put_back(REDRIVEN)], ids=["asked", "redriven"])
async def test_it_answers_the_same_request_that_could_not_be_run(place: RecordSource) -> None:
    value = request()
    async with open_engine() as engine:
        result = await engine.process(value, place)

    outcome = await give_up(value, place)

    assert outcome.outcome_id == result.outcome_id
    message = message_of(outcome)
    assert (message.type, message.subject) == ("cortex.outcome.dead_letter.v1", "1")
    assert message.data.attempt == 3
    assert message.data.error is not None
    assert (message.data.error.code, message.data.error.retryable) == ("poisonous_record", False)


async def test_its_letter_has_the_original_bytes_and_the_number_of_deliveries() -> None:
    value = request()

    letter = letter_of(await give_up(value, source()))

    assert (letter.key, letter.value) == (b"key", value)
    headers = dict(letter.headers)
    assert headers[dead_letters.ATTEMPTS] == b"3"
    assert headers[dead_letters.ORIGINAL_OFFSET] == b"7"


@pytest.mark.parametrize("value", [request(), b"\xff{", None])
@pytest.mark.parametrize(
    "place", [source(), put_back(REDRIVEN, lane=Lane.MEDIUM)], ids=["asked", "redriven"]
)
async def test_what_must_not_be_read_is_not(
    value: bytes | None, place: RecordSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("cortex_stream.engine.reading.decode")
    monkeypatch.delattr("cortex_stream.engine.reading.read_arrival")

    outcome = await give_up(value, place, deliveries=4, readable=False)

    assert message_of(outcome).data.attempt == 4
    assert letter_of(outcome).value == value


@pytest.mark.parametrize("value", [b"\xff{", None])
async def test_what_cannot_be_read_is_given_up_all_the_same(value: bytes | None) -> None:
    outcome = await give_up(value, put_back(REDRIVEN))

    error = message_of(outcome).data.error
    assert error is not None
    assert error.code == "poisonous_record"


@pytest.mark.parametrize("readable", [True, False])
async def test_of_the_replay_lane_it_disturbs_nobody_where_nothing_says_whose_it_is(
    *, readable: bool
) -> None:
    place = replace(put_back(REDRIVEN), headers=[(HANDOVER, b"{")])

    outcome = await give_up(request(), place, readable=readable)

    assert [record.topic for record in outcome.records] == [REPLAYS]
    assert message_of(outcome).data.replay_id == "unknown"


async def test_what_the_client_cannot_decode_of_the_replay_lane_disturbs_nobody() -> None:
    async with open_engine() as engine:
        outcome = engine.unreadable(put_back(REDRIVEN), "its compression is unknown")

    assert [record.topic for record in outcome.records] == [REPLAYS]
