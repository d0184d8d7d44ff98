"""A failure that may heal: the request waits in a topic, and its next attempt goes the whole way."""

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.clock import ManualClock
from cortex_stream.delivery.outcome import Outcome
from cortex_stream.engine.engine import Engine
from cortex_stream.errors import InferenceFailed
from cortex_stream.record import RecordSource
from cortex_stream.routing.route import StageName
from cortex_stream.settings.sections import RetriesSettings
from cortex_stream.testing.stub_runner import StubRunner, stub_model
from schemas.handovers import HANDOVER, Handover, Reinjection
from schemas.outcomes import OutcomeKind
from schemas.priority import Lane
from schemas.requests import CLASSIFY
from tests.unit.engine.desk import (
    code_of,
    letter_of,
    message_of,
    open_engine,
    put_back,
    record_of,
    request,
    source,
)
from topics.names import VALIDATION

NOW_MS = 1_700_000_000_000
REDRIVE = Reinjection(replay_id="d1", publish_to="results", redrives=1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(unix_ms=NOW_MS)


@asynccontextmanager
async def failing(
    times: int, *, clock: ManualClock, retries: RetriesSettings | None = None
) -> AsyncIterator[Engine]:
    """Yield an engine whose model fails so often, and which tries once before it waits."""
    failures = itertools.repeat(InferenceFailed("the device is gone"), times)
    model = stub_model(runners=(StubRunner(failures=failures),))
    async with open_engine(model, clock=clock, max_attempts=1, retries=retries) as engine:
        yield engine


def handover_of(outcome: Outcome) -> Handover:
    [record] = outcome.records
    name, header = record.headers[-1]
    assert name == HANDOVER
    return Handover.model_validate_json(header or b"")


def retried(outcome: Outcome, *, timestamp_ms: int) -> RecordSource:
    """Return what is polled of a request that waits for a retry."""
    [record] = outcome.records
    assert outcome.kind is None
    return RecordSource(
        topic=record.topic,
        partition=2,
        offset=55,
        timestamp_ms=timestamp_ms,
        received_s=1000.0,
        lane=None,
        key=record.key,
        headers=record.headers,
        stage=VALIDATION,
    )


async def wait_and_go_on(
    engine: Engine, outcome: Outcome, value: bytes, clock: ManualClock
) -> Outcome:
    place = retried(outcome, timestamp_ms=clock.unix_ms())
    clock.advance_s(engine.due_in_s(place))
    return await engine.process(value, place)


async def test_a_failure_that_may_heal_waits_in_the_first_retry_topic_as_it_came(
    clock: ManualClock,
) -> None:
    value, headers = request(priority="low"), [("mine", b"1")]

    async with failing(1, clock=clock) as engine:
        outcome = await engine.process(value, source(lane=Lane.HIGH, headers=headers))

    [record] = outcome.records
    assert (record.topic, record.key, record.value) == ("cortex.retries.1", b"key", value)
    assert list(record.headers[:-1]) == headers
    assert (outcome.kind, str(outcome.error)) == (None, "the device is gone")
    handover = handover_of(outcome)
    assert (handover.stage, handover.attempt, handover.progress) == (VALIDATION, 2, None)
    assert (handover.topic, handover.offset) == ("cortex.requests.medium", 7)
    waiting = outcome.waiting
    assert handover.waiting == waiting
    assert waiting is not None
    assert (waiting.retry, waiting.lane, waiting.code) == (1, Lane.LOW, "inference_failed")
    assert (waiting.due_unix_ms, waiting.first_failed_unix_ms) == (NOW_MS + 10_000, NOW_MS)


async def test_it_is_answered_by_the_attempt_that_succeeds(clock: ManualClock) -> None:
    value = request(subject="doc")
    async with open_engine(clock=clock) as sound:
        at_once = await sound.process(value, source())

    async with failing(3, clock=clock) as engine:
        outcome = await engine.process(value, source(received_s=clock.monotonic_s()))
        topics = []
        while outcome.kind is None:
            topics.append(outcome.records[0].topic)
            outcome = await wait_and_go_on(engine, outcome, value, clock)

    assert topics == ["cortex.retries.1", "cortex.retries.2", "cortex.retries.3"]
    message = message_of(outcome)
    assert (message.data.attempt, outcome.outcome_id) == (4, at_once.outcome_id)
    assert message.data.output == message_of(at_once).data.output
    assert outcome.records[1].topic == "lake.vectors"
    assert message.data.timings_ms["total"] == 10_000 + 15_000 + 22_500
    assert message.data.timings_ms["retry"] == 22_500


async def test_one_that_always_fails_ends_as_a_dead_letter_of_the_first_record(
    clock: ManualClock,
) -> None:
    value = request()

    async with failing(99, clock=clock) as engine:
        outcome = await engine.process(value, source())
        while outcome.kind is None:
            outcome = await wait_and_go_on(engine, outcome, value, clock)

    assert (outcome.kind, code_of(outcome)) == (OutcomeKind.DEAD_LETTER, "inference_failed")
    assert message_of(outcome).data.attempt == 4
    headers = dict(letter_of(outcome).headers)
    assert headers["cortex_dlt-attempts"] == b"4"
    assert headers["cortex_dlt-first-time"] == str(NOW_MS).encode()
    assert headers["cortex_dlt-last-time"] == str(NOW_MS + 47_500).encode()
    assert headers["cortex_dlt-original-topic"] == b"cortex.requests.medium"
    assert headers["cortex_dlt-original-offset"] == b"7"
    assert HANDOVER not in headers
    assert letter_of(outcome).value == value


async def test_a_single_attempt_fails_for_the_first_and_the_last_time_at_once(
    clock: ManualClock,
) -> None:
    clock.advance_s(5)

    async with failing(1, clock=clock, retries=RetriesSettings(most=0)) as engine:
        outcome = await engine.process(request(), source(received_s=1000.0))

    headers = dict(letter_of(outcome).headers)
    assert headers["cortex_dlt-first-time"] == headers["cortex_dlt-last-time"]


async def test_it_does_not_wait_beyond_its_deadline(clock: ManualClock) -> None:
    value = request(deadlinems=20_000)

    async with failing(99, clock=clock) as engine:
        waits = await engine.process(value, source())
        ends = await wait_and_go_on(engine, waits, value, clock)  # 10 s left, and 15 to wait

    assert waits.waiting is not None
    assert (ends.kind, code_of(ends)) == (OutcomeKind.DEAD_LETTER, "inference_failed")


async def test_one_that_is_read_after_its_deadline_is_expired_and_does_not_run(
    clock: ManualClock,
) -> None:
    value = request(deadlinems=20_000)

    async with failing(1, clock=clock) as engine:
        waits = await engine.process(value, source())
        place = retried(waits, timestamp_ms=clock.unix_ms())
        clock.advance_s(21)
        outcome = await engine.process(value, place)

    assert (outcome.kind, message_of(outcome).data.attempt) == (OutcomeKind.EXPIRED, 2)


async def test_it_goes_on_in_the_lane_it_came_from(clock: ManualClock) -> None:
    async with failing(2, clock=clock) as engine:
        first = await engine.process(request(), source(lane=Lane.CRITICAL))
        second = await wait_and_go_on(engine, first, request(), clock)

    assert second.waiting is not None
    assert second.waiting.lane is Lane.CRITICAL


async def test_a_redrive_stays_one_through_its_retries(clock: ManualClock) -> None:
    value = request()

    async with failing(1, clock=clock) as engine:
        waits = await engine.process(value, put_back(REDRIVE, lane=Lane.HIGH))
        outcome = await wait_and_go_on(engine, waits, value, clock)

    assert waits.outcome_id == outcome.outcome_id
    assert message_of(outcome).data.replay_id == "d1"
    assert record_of(outcome).topic == "cortex.results"


async def test_where_stages_are_split_it_begins_again_at_validation_and_is_counted_on(
    clock: ManualClock,
) -> None:
    value = request(type=CLASSIFY, data={"labels": ["a"]})

    async def handed_to_embedding(place: RecordSource) -> RecordSource:
        model = stub_model()
        async with open_engine(model, clock=clock, stages=()) as way_in:
            handed = await way_in.process(value, place)
        [record] = handed.records
        assert record.topic == "cortex.stages.embedding.medium"
        return replace(
            source(timestamp_ms=clock.unix_ms()), headers=record.headers, stage="embedding"
        )

    async with failing(2, clock=clock) as engine:
        first = await engine.process(value, await handed_to_embedding(source()))
        place = retried(first, timestamp_ms=clock.unix_ms())
        clock.advance_s(10)
        second = await engine.process(value, await handed_to_embedding(place))

    assert first.waiting is not None
    assert second.waiting is not None
    assert (first.waiting.retry, second.waiting.retry) == (1, 2)
    assert second.waiting.first_failed_unix_ms == first.waiting.first_failed_unix_ms
    assert handover_of(second).attempt == 3


# ---- the budget ----------------------------------------------------------------------------------


async def test_when_the_budget_is_used_up_a_failure_is_a_dead_letter_that_says_so(
    clock: ManualClock,
) -> None:
    async with failing(9999, clock=clock) as engine:
        outcomes = [await engine.process(request(id=str(n)), source()) for n in range(500)]

    waiting = [each for each in outcomes if each.waiting is not None]
    spent = [each for each in outcomes if each.waiting is None]
    assert 100 <= len(waiting) <= 100 + 0.2 * len(outcomes)
    assert {code_of(each) for each in spent} == {"retry_budget_spent"}
    error = message_of(spent[0]).data.error
    assert error is not None
    assert error.message.startswith("inference_failed: the device is gone; not tried again")
    assert "20%" in error.message
    assert not error.retryable


async def test_attempts_at_once_are_paid_for_like_those_that_wait(clock: ManualClock) -> None:
    failures = itertools.repeat(InferenceFailed("no"))
    model = stub_model(runners=(StubRunner(failures=failures),))

    async with open_engine(model, clock=clock, max_attempts=3) as engine:
        before = engine.retry_budget.left(now_s=clock.monotonic_s())
        await engine.process(request(), source())
        after = engine.retry_budget.left(now_s=clock.monotonic_s())

    assert before - after == 3


# ---- when it is due ------------------------------------------------------------------------------


@given(written_ms=st.integers(0, 10_000), read_ms=st.integers(-100_000_000, 100_000_000))
async def test_it_is_due_at_its_time_and_never_held_longer_than_was_decided(
    written_ms: int, read_ms: int
) -> None:
    clock = ManualClock(unix_ms=NOW_MS)
    async with failing(1, clock=clock) as engine:
        outcome = await engine.process(request(), source())
    place = retried(outcome, timestamp_ms=NOW_MS + written_ms)

    reader = ManualClock(unix_ms=NOW_MS + read_ms)
    async with open_engine(clock=reader) as engine:
        due_in_s = engine.due_in_s(place)

    wanted_s = (10_000 - read_ms) / 1000
    assert due_in_s <= wanted_s
    if read_ms >= written_ms:  # the clocks agree
        assert due_in_s == pytest.approx(wanted_s)
    else:
        assert due_in_s == pytest.approx((10_000 - written_ms) / 1000)


NEVER = {"retry": 1, "lane": "low", "due_unix_ms": 10**400, "first_failed_unix_ms": 0, "code": ""}


@pytest.mark.parametrize("waiting", [None, {"retry": 0}, NEVER])
async def test_a_record_of_a_retry_topic_that_nobody_made_wait_is_a_dead_letter_at_once(
    waiting: object, clock: ManualClock
) -> None:
    async with failing(1, clock=clock) as engine:
        outcome = await engine.process(request(), source())
        place = retried(outcome, timestamp_ms=clock.unix_ms())
        *client, (name, header) = place.headers
        changed = json.dumps(json.loads(header or b"") | {"waiting": waiting}).encode()
        spoilt = replace(place, headers=[*client, (name, changed)])

        assert engine.due_in_s(spoilt) == 0
        assert code_of(await engine.process(request(), spoilt)) == "invalid_handover"


async def test_workers_of_the_release_before_can_read_what_did_not_wait(
    clock: ManualClock,
) -> None:
    model = stub_model()
    async with open_engine(model, clock=clock, stages=[StageName.INFERENCE]) as engine:
        outcome = await engine.process(request(), source())

    [record] = outcome.records
    assert not {"waiting", "reinjection"} & orjson.loads(record.headers[-1][1] or b"").keys()
