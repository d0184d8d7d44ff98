"""Fetches within a session bring each record once, and leave out what has nothing new."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.structs import TopicPartition

from cortex_stream.kafka.connection import connection_arguments
from cortex_stream.kafka.fetch_sessions import FetchSessions
from cortex_stream.settings.tree import Settings
from schemas.priority import Lane
from topics.names import request_topic

pytestmark = pytest.mark.integration

PATIENCE_S = 30.0
PARTITIONS = 4


class Seen:
    """The answers to fetches, below the sessions."""

    def __init__(self, send: Any) -> None:
        self._send = send
        self.answers: list[Any] = []
        self.spoil: dict[str, int] = {}  # what the next fetch says in place of what it should

    async def send(self, node_id: int, request: Any, **options: Any) -> Any:
        if isinstance(request, FetchRequest):
            request.__dict__.update(self.spoil)
            self.spoil = {}
        response = await self._send(node_id, request, **options)
        if isinstance(request, FetchRequest):
            self.answers.append(response)
        return response

    def partitions(self) -> list[int]:
        """Return how many partitions each answer had."""
        return [sum(len(each) for _, each in answer.topics) for answer in self.answers]


class Desk:
    """A reader of all partitions of a topic in sessions, and a writer to it."""

    def __init__(self, settings: Settings, consumer: Any, producer: Any) -> None:
        self.topic = settings.topic(request_topic(Lane.HIGH))
        self.consumer = consumer
        self._producer = producer
        client = consumer._client
        self.seen = Seen(client.send)
        self.sessions = FetchSessions(self.seen.send, consumer._subscription)
        client.send = self.sessions.send

    def at(self, partition: int) -> TopicPartition:
        return TopicPartition(self.topic, partition)

    async def write(self, text: str, *, partition: int) -> None:
        await self._producer.send_and_wait(self.topic, text.encode(), partition=partition)

    async def read(self, count: int) -> list[str]:
        """Return the next records, in the order of their texts."""
        async with asyncio.timeout(PATIENCE_S):
            return sorted([(await self.consumer.getone()).value.decode() for _ in range(count)])

    async def answered(self, fetches: int) -> None:
        """Wait until so many more fetches were answered."""
        wanted = len(self.seen.answers) + fetches
        async with asyncio.timeout(PATIENCE_S):
            while len(self.seen.answers) < wanted:
                await asyncio.sleep(0.01)


@pytest.fixture
async def desk(applied: Settings) -> AsyncIterator[Desk]:
    async with open_desk(applied) as opened:
        yield opened


@asynccontextmanager
async def open_desk(settings: Settings) -> AsyncIterator[Desk]:
    arguments = connection_arguments(settings)
    producer: Any = AIOKafkaProducer(**arguments)
    consumer: Any = AIOKafkaConsumer(
        **arguments, auto_offset_reset="earliest", fetch_max_wait_ms=50
    )
    opened = Desk(settings, consumer, producer)
    try:
        await producer.start()
        await consumer.start()
        consumer.assign([opened.at(partition) for partition in range(PARTITIONS)])
        yield opened
    finally:
        await consumer.stop()
        await producer.stop()


async def test_after_the_first_answer_only_what_has_records_is_told(desk: Desk) -> None:
    # given
    await desk.answered(2)

    # when
    for partition in (2, 0, 2, 3):
        await desk.write(f"record of {partition}", partition=partition)
        _ = await desk.read(1)
    await desk.answered(2)

    # then
    first, *later = desk.seen.partitions()
    assert first == PARTITIONS
    assert sum(later) == 4
    assert len({answer.session_id for answer in desk.seen.answers}) == 1
    assert desk.seen.answers[0].session_id != 0


async def test_each_record_comes_once_and_in_the_order_of_its_partition(desk: Desk) -> None:
    # given
    texts = [f"{number:03}" for number in range(200)]

    # when
    async def write() -> None:
        for number, text in enumerate(texts):
            await desk.write(text, partition=number % PARTITIONS)

    writing = asyncio.ensure_future(write())
    read: dict[int, list[str]] = {partition: [] for partition in range(PARTITIONS)}
    async with asyncio.timeout(PATIENCE_S):
        for _ in texts:
            record = await desk.consumer.getone()
            read[record.partition].append(record.value.decode())
    await writing
    await desk.answered(2)

    # then
    assert read == {partition: texts[partition::PARTITIONS] for partition in range(PARTITIONS)}
    assert await desk.consumer.getmany(timeout_ms=200) == {}


async def test_what_is_paused_is_forgotten_and_comes_once_when_it_goes_on(desk: Desk) -> None:
    # given
    await desk.answered(1)
    desk.consumer.pause(desk.at(1))
    await desk.answered(2)

    # when
    await desk.write("while paused", partition=1)
    await desk.write("beside it", partition=0)

    # then
    assert await desk.read(1) == ["beside it"]
    desk.consumer.resume(desk.at(1))
    assert await desk.read(1) == ["while paused"]
    assert await desk.consumer.getmany(timeout_ms=200) == {}


async def test_a_new_assignment_learns_of_idle_partitions_too(desk: Desk) -> None:
    # given
    await desk.write("before", partition=1)
    assert await desk.read(1) == ["before"]
    await desk.answered(2)

    # when: the same partitions, of which nothing has changed
    ends = {at: desk.consumer.highwater(at) for at in desk.consumer.assignment()}
    offsets = {at: await desk.consumer.position(at) for at in ends}
    desk.consumer.assign(list(ends))
    for at, offset in offsets.items():
        desk.consumer.seek(at, offset)
    await desk.answered(3)

    # then
    assert {at: desk.consumer.highwater(at) for at in ends} == ends
    assert sorted(ends.values()) == [0, 0, 0, 1]


async def test_what_is_left_out_counts_as_answered(desk: Desk) -> None:
    # given
    await desk.answered(1)
    before = {at: desk.consumer.last_poll_timestamp(at) for at in desk.consumer.assignment()}

    # when
    await desk.answered(3)

    # then
    for at, timestamp in before.items():
        assert desk.consumer.last_poll_timestamp(at) > timestamp
    assert desk.seen.partitions()[-1] == 0


async def test_a_seek_back_is_told(desk: Desk) -> None:
    # given
    await desk.write("again", partition=3)
    assert await desk.read(1) == ["again"]

    # when
    desk.consumer.seek(desk.at(3), 0)

    # then
    assert await desk.read(1) == ["again"]


@pytest.mark.parametrize(
    ("wrong", "refused"),
    [
        pytest.param({"_session_id": 4711, "_epoch": 1}, 70, id="no such session"),
        pytest.param({"_epoch": 4711}, 71, id="another epoch"),
    ],
)
async def test_a_session_that_the_broker_does_not_know_is_begun_anew(
    desk: Desk, wrong: dict[str, int], refused: int
) -> None:
    # given
    await desk.answered(2)

    # when: as after a restart of the broker, or an answer that was lost
    desk.seen.spoil = wrong
    await desk.answered(4)
    await desk.write("after it", partition=2)

    # then
    assert await desk.read(1) == ["after it"]
    errors = [answer.error_code for answer in desk.seen.answers]
    assert [error for error in errors if error] == [refused]
    assert desk.seen.partitions()[errors.index(refused) + 1] == PARTITIONS


async def test_a_fetch_whose_answer_was_lost_is_followed_by_one_that_tells_all(desk: Desk) -> None:
    # given
    await desk.answered(2)
    (node_id,) = desk.sessions._sessions
    told = len(desk.seen.answers)

    # when: the connection breaks under a fetch that waits
    for (node, _), connection in desk.consumer._client._conns.items():
        if node == node_id:
            connection.close()
    await desk.answered(2)
    await desk.write("after it", partition=2)

    # then
    assert await desk.read(1) == ["after it"]
    assert desk.seen.partitions()[told] == PARTITIONS
    assert desk.seen.answers[told].session_id != desk.seen.answers[0].session_id
