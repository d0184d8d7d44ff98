import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from cortex_stream.kafka.group import read_progress
from cortex_stream.kafka.producer import KafkaProducer
from cortex_stream.record import OutgoingRecord
from cortex_stream.settings.tree import Settings
from topics.names import INVALIDATIONS, RESULTS

pytestmark = pytest.mark.integration


@pytest.fixture
async def ten_records(applied: Settings) -> TopicPartition:
    producer = KafkaProducer(applied)
    await producer.start()
    await producer.send(*[OutgoingRecord(INVALIDATIONS, b"key", b"value")] * 10)
    await producer.stop()
    return TopicPartition(applied.topic(INVALIDATIONS), 0)


async def commit(settings: Settings, partition: TopicPartition, offset: int) -> None:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_brokers, group_id=settings.group, enable_auto_commit=False
    )
    await consumer.start()
    consumer.assign([partition])
    await consumer.commit({partition: offset})
    await consumer.stop()


async def test_before_the_first_commit_everything_is_still_to_be_read(
    applied: Settings, ten_records: TopicPartition
) -> None:
    (progress,) = await read_progress(applied, [INVALIDATIONS])

    assert ten_records.partition == progress.partition
    assert (progress.topic, progress.committed, progress.end) == (INVALIDATIONS, None, 10)
    assert progress.lag_records == 10


async def test_the_lag_is_what_lies_behind_the_commit(
    applied: Settings, ten_records: TopicPartition
) -> None:
    await commit(applied, ten_records, 7)

    (progress,) = await read_progress(applied, [INVALIDATIONS])

    assert (progress.committed, progress.lag_records) == (7, 3)


async def test_records_that_are_kept_no_longer_are_no_lag(
    applied: Settings, ten_records: TopicPartition, by_hand: AIOKafkaAdminClient
) -> None:
    await commit(applied, ten_records, 2)
    await by_hand.delete_records({ten_records: RecordsToDelete(before_offset=6)})

    (progress,) = await read_progress(applied, [INVALIDATIONS])

    assert (progress.committed, progress.beginning, progress.lag_records) == (2, 6, 4)


async def test_every_partition_of_a_topic_is_reported_and_missing_topics_are_left_out(
    applied: Settings,
) -> None:
    progress = await read_progress(applied, [RESULTS, "no.such.topic"])

    assert [(one.topic, one.partition) for one in progress] == [
        (RESULTS, partition) for partition in range(4)
    ]
    assert await read_progress(applied, ["no.such.topic"]) == []
