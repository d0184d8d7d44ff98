"""What the intake holds back: retries until their time, events until those before are durable."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import pytest
from aiokafka.structs import ConsumerRecord
from structlog.testing import capture_logs

from agents.intake import Batch, Intake
from agents.suspects import Counts
from agents.track import Partition, Track, Tracks
from cortex_stream.delivery.outcome import Answering, Outcome
from cortex_stream.errors import (
    BrokerUnavailable,
    InvariantError,
    OutcomeTooLarge,
    ProducerFatal,
)
from cortex_stream.record import OutgoingRecord, RecordSource
from cortex_stream.routing.hosting import Feed
from cortex_stream.scheduling.admission import Admission, Bound
from topics.names import VALIDATION

PLENTY = 10**9
TOPIC = "cortex.retries.1"
RETRIES = Feed(TOPIC, None, VALIDATION)


@dataclass
class Echo:
    """Answers each record with itself; retries are due as it is told.

    Attributes:
        began: the values of the requests that it was asked to answer.
        broken: whether events make it fail.
    """

    due_s: float = 0.0
    broken: bool = False
    began: list[bytes | None] = field(default_factory=list)

    def due_in_s(self, _source: RecordSource) -> float:
        return self.due_s

    def begin(self, value: bytes | None, _source: RecordSource) -> Answering:
        return partial(self._answer, value)

    async def _answer(self, value: bytes | None) -> Outcome:
        self.began.append(value)
        return _echo(value)

    def process_event(self, value: bytes | None, _source: RecordSource) -> Outcome:
        if self.broken:
            raise InvariantError("a bug")
        return _echo(value)

    def unreadable(self, source: RecordSource, reason: str) -> Outcome:
        raise NotImplementedError

    def poisonous(
        self, value: bytes | None, source: RecordSource, *, deliveries: int, readable: bool
    ) -> Outcome:
        raise NotImplementedError

    def too_large(
        self, outcome: Outcome, value: bytes | None, source: RecordSource, error: OutcomeTooLarge
    ) -> Outcome:
        raise NotImplementedError


@dataclass
class OneEngine:
    busy = False

    engine: Echo
    settled_offsets: list[int] = field(default_factory=list)

    def settled(self, _outcome: Outcome, source: RecordSource) -> None:
        self.settled_offsets.append(source.offset)


@dataclass
class Log:
    """What became durable, once the broker is there.

    Attributes:
        away: so often nothing is taken.
        broken: whether it can never be used again.
        refused: the value that is never taken, nor what is sent with it.
    """

    away: int = 0
    broken: bool = False
    refused: bytes | None = None
    values: list[bytes | None] = field(default_factory=list)

    async def send(self, *records: OutgoingRecord) -> None:
        if self.broken:
            raise ProducerFatal("fenced")
        if self.refused in {record.value for record in records}:
            raise BrokerUnavailable("the partition has no leader")
        if self.away:
            self.away -= 1
            raise BrokerUnavailable("the broker is away")
        self.values += [record.value for record in records]

    async def post(self, *records: OutgoingRecord) -> asyncio.Future[None]:
        return asyncio.ensure_future(self.send(*records))


def _echo(value: bytes | None) -> Outcome:
    return Outcome(None, None, None, "echo", (OutgoingRecord("out", None, value),))


async def no_counts() -> Counts:
    return {}


async def intake_of(engine: Echo, log: Log) -> tuple[Intake, OneEngine]:
    admission = Admission({TOPIC: Bound(PLENTY, PLENTY)}, total_bytes=PLENTY)
    core = OneEngine(engine)
    intake = Intake(core, log, Tracks(admission), drain_timeout_s=5, read_counts=no_counts)
    await intake.start()
    return intake, core


def batch_of(
    intake: Intake, values: Sequence[bytes], *, first: int = 0, partition: int = 0
) -> Batch:
    records = [
        ConsumerRecord(TOPIC, partition, first + n, 0, 0, None, value, None, 0, len(value), ())
        for n, value in enumerate(values)
    ]
    weights = [(record.offset, 10) for record in records]
    return Batch(intake.tracks.deliver(Partition(TOPIC, partition), weights), records, 0.0)


async def finished(track: Track) -> None:
    async with asyncio.timeout(5):
        while track.unfinished:
            await asyncio.sleep(0.001)


async def test_a_retry_begins_at_its_time_and_not_before() -> None:
    engine, loop = Echo(due_s=0.1), asyncio.get_running_loop()
    intake, core = await intake_of(engine, Log())
    batch = batch_of(intake, [b"a", b"b"])

    began_s = loop.time()
    await intake.take_requests(batch, RETRIES)
    await asyncio.sleep(0)
    early = list(engine.began)
    await finished(batch.track)
    took_s = loop.time() - began_s
    await intake.drain()

    assert early == []
    assert (engine.began, core.settled_offsets) == ([b"a", b"b"], [0, 1])
    assert took_s >= 0.1


async def test_a_retry_that_is_due_begins_at_once() -> None:
    engine = Echo(due_s=-5.0)
    intake, _ = await intake_of(engine, Log())
    batch = batch_of(intake, [b"a"])

    await intake.take_requests(batch, RETRIES)
    await finished(batch.track)
    await intake.drain()

    assert engine.began == [b"a"]


async def test_retries_that_wait_hold_up_no_drain_and_stay_unfinished() -> None:
    engine, loop = Echo(due_s=3600.0), asyncio.get_running_loop()
    intake, _ = await intake_of(engine, Log())
    batch = batch_of(intake, [b"a", b"b"], first=7)
    await intake.take_requests(batch, RETRIES)

    began_s = loop.time()
    intake.tracks.close()
    await intake.drain()

    assert loop.time() - began_s < 2
    assert engine.began == []
    assert intake.tracks.positions() == {Partition(TOPIC, 0): 7}


async def test_while_an_event_cannot_be_published_no_later_one_of_its_partition_is() -> None:
    log = Log(away=1)
    intake, core = await intake_of(Echo(), log)

    for first, values in enumerate(([b"subject-1", b"subject-2"], [b"subject-3"])):
        intake.take_events(batch_of(intake, values, first=2 * first))
    async with asyncio.timeout(5):
        while log.away:
            assert log.values == []
            await asyncio.sleep(0.001)
    await intake.drain()

    assert log.values == [b"subject-1", b"subject-2", b"subject-3"]
    assert core.settled_offsets == [0, 1, 2]


@pytest.mark.parametrize("suspects", [range(0), range(40)], ids=["none", "all"])
async def test_an_event_that_cannot_be_published_holds_up_no_other_partition(
    suspects: range,
) -> None:
    log = Log(refused=b"stuck")
    intake, _ = await intake_of(Echo(), log)
    intake.begin({Partition(TOPIC, partition): suspects for partition in (0, 1)})
    stuck = batch_of(intake, [b"stuck", b"behind"])
    other = batch_of(intake, [b"a", b"b", b"c"], partition=1)

    intake.take_events(stuck)
    intake.take_events(other)
    await finished(other.track)
    intake.tracks.close()
    await intake.drain()

    assert [value for value in log.values if value in {b"a", b"b", b"c"}] == [b"a", b"b", b"c"]
    assert b"behind" not in log.values
    assert stuck.track.position == 0


@pytest.mark.parametrize("suspects", [range(0), range(5)], ids=["none", "all"])
@pytest.mark.parametrize("broken", ["engine", "log"])
async def test_a_record_is_named_where_the_engine_fails_and_not_where_publishing_does(
    broken: str, suspects: range
) -> None:
    engine, log = Echo(broken=broken == "engine"), Log()
    intake, _ = await intake_of(engine, log)
    intake.begin({Partition(TOPIC, 0): suspects})
    batch = batch_of(intake, [b"a", b"b"], first=2)

    with capture_logs() as logs:
        log.broken = broken == "log"
        intake.take_events(batch)
        with pytest.raises((InvariantError, ProducerFatal)):
            await intake.wait_failed()
    log.broken = False
    intake.tracks.close()
    await intake.drain()

    named = [said["offset"] for said in logs if said["event"] == "engine.failed"]
    assert named == ([2] if broken == "engine" else [])
