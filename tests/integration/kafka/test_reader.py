import asyncio

import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from cortex_stream.errors import BrokerUnavailable, TopicsMismatch
from cortex_stream.kafka.producer import KafkaProducer
from cortex_stream.kafka.reader import TopicReader
from cortex_stream.record import OutgoingRecord
from cortex_stream.settings.tree import Settings
from topics.names import EVENTS, INVALIDATIONS, RESULTS

pytestmark = pytest.mark.integration


async def produce(settings: Settings, *values: bytes, topic: str = INVALIDATIONS) -> None:
    """Write `values` in order; the topic of invalidations has one partition."""
    producer = KafkaProducer(settings)
    await producer.start()
    await producer.send(*(OutgoingRecord(topic, b"key", value) for value in values))
    await producer.stop()


async def test_to_end_yields_what_is_there_and_goes_on_from_there(applied: Settings) -> None:
    await produce(applied, b"1", b"2")

    async with TopicReader(applied, [INVALIDATIONS]) as reader:
        first = [record.value async for record in reader.to_end()]
        await produce(applied, b"3")
        second = [record.value async for record in reader.to_end()]
        third = [record.value async for record in reader.to_end()]

    assert (first, second, third) == ([b"1", b"2"], [b"3"], [])


async def test_several_topics_are_read_together_under_their_catalogue_names(
    applied: Settings,
) -> None:
    await produce(applied, b"1", topic=RESULTS)
    await produce(applied, b"2", topic=EVENTS)

    async with TopicReader(applied, [RESULTS, EVENTS]) as reader:
        found = {(record.topic, record.value) async for record in reader.to_end()}

    assert found == {(RESULTS, b"1"), (EVENTS, b"2")}


async def test_follow_from_the_end_yields_only_what_comes_later(applied: Settings) -> None:
    await produce(applied, b"before")

    async with TopicReader(applied, [INVALIDATIONS], start="end") as reader:
        await produce(applied, b"1", b"2")
        found = []
        async with asyncio.timeout(10):
            async for record in reader.follow():
                found.append(record)
                if len(found) == 2:
                    break

    assert [(record.offset, record.value) for record in found] == [(1, b"1"), (2, b"2")]
    assert all(record.timestamp_ms > 1_700_000_000_000 for record in found)


async def test_reading_may_begin_at_given_offsets(applied: Settings) -> None:
    await produce(applied, b"0", b"1", b"2")

    async with TopicReader(applied, [INVALIDATIONS], start={(INVALIDATIONS, 0): 2}) as reader:
        found = [record.value async for record in reader.to_end()]

    assert found == [b"2"]


async def test_records_that_are_kept_no_longer_are_skipped(
    applied: Settings, by_hand: AIOKafkaAdminClient
) -> None:
    await produce(applied, b"0", b"1", b"2")
    partition = TopicPartition(applied.topic(INVALIDATIONS), 0)
    await by_hand.delete_records({partition: RecordsToDelete(before_offset=1)})

    async with TopicReader(applied, [INVALIDATIONS], start={(INVALIDATIONS, 0): 0}) as reader:
        found = [record.value async for record in reader.to_end()]

    assert found == [b"1", b"2"]


async def test_a_missing_topic_is_named_and_not_created(settings: Settings) -> None:
    for _ in range(2):
        with pytest.raises(TopicsMismatch, match=settings.topic(RESULTS)) as caught:
            async with TopicReader(settings, [RESULTS]):
                pass
        assert caught.value.repair == "cortex-stream topics apply"


async def test_no_broker_is_an_error_that_says_where_we_looked() -> None:
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1: no broker answers"):
        async with TopicReader(Settings(kafka_brokers="127.0.0.1:1"), [RESULTS]):
            pass
