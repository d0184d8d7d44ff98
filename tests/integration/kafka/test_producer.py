import asyncio
import os
from collections.abc import AsyncIterator, Sequence

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    ProducerClosed,
    TopicAuthorizationFailedError,
)

from cortex_stream.devstack.stack import Stack
from cortex_stream.errors import BrokerUnavailable, OutcomeTooLarge, ProducerFatal
from cortex_stream.kafka.producer import MAX_RECORD_BYTES, KafkaProducer
from cortex_stream.kafka.reader import ReadRecord, TopicReader
from cortex_stream.record import OutgoingRecord
from cortex_stream.settings.tree import Settings
from tests.suspending import suspended
from topics.catalogue import SMALL_BYTES
from topics.names import EVENTS, LAKE_VECTORS, RESULTS

pytestmark = pytest.mark.integration

TOO_LARGE_FOR_EVENTS = OutgoingRecord(EVENTS, b"key", os.urandom(2 * SMALL_BYTES))
SMALL = OutgoingRecord(EVENTS, b"key", b"small")
# aiokafka's upper bound for what surrounds key and value: batch header 61 B, record header 21 B,
# the lengths of key, value and headers 1 + 4 + 1 B
_OVERHEAD_BYTES = 88


@pytest.fixture
async def producer(applied: Settings) -> AsyncIterator[KafkaProducer]:
    producer = KafkaProducer(applied)
    await producer.start()
    yield producer
    await producer.stop()


async def read(settings: Settings, *topics: str) -> list[ReadRecord]:
    async with TopicReader(settings, topics) as reader:
        return [record async for record in reader.to_end()]


async def lose_sequence(client: AIOKafkaProducer, topic: str) -> None:
    """Make `client` one whose next record on the partition of `SMALL` the broker refuses."""
    await client.send_and_wait(topic, key=SMALL.key, value=b"first")  # the broker knows it now
    with pytest.raises(MessageSizeTooLargeError):
        await client.send_and_wait(topic, key=SMALL.key, value=TOO_LARGE_FOR_EVENTS.value)


async def test_records_of_one_call_are_there_in_their_order_when_it_returns(
    producer: KafkaProducer, applied: Settings
) -> None:
    headers = (("traceparent", b"00-1"), ("empty", None))
    records = [OutgoingRecord(RESULTS, b"key", b"%d" % index, headers) for index in range(500)]

    await producer.send(*records)

    found = await read(applied, RESULTS)
    assert [record.value for record in found] == [record.value for record in records]
    assert {record.partition for record in found} == {found[0].partition}
    assert {(record.topic, record.key, record.headers) for record in found} == {
        (RESULTS, b"key", headers)
    }


async def test_equal_keys_of_concurrent_calls_share_a_partition(
    producer: KafkaProducer, applied: Settings
) -> None:
    await asyncio.gather(
        *(producer.send(OutgoingRecord(RESULTS, b"%d" % (i % 5), b"v")) for i in range(100))
    )

    partitions: dict[bytes | None, set[int]] = {}
    for record in await read(applied, RESULTS):
        partitions.setdefault(record.key, set()).add(record.partition)
    assert len(partitions) == 5
    assert all(len(found) == 1 for found in partitions.values())


async def test_a_record_without_a_value_removes_its_key(
    producer: KafkaProducer, applied: Settings
) -> None:
    await producer.send(OutgoingRecord(LAKE_VECTORS, b"doc-1", None))

    (found,) = await read(applied, LAKE_VECTORS)
    assert (found.key, found.value) == (b"doc-1", None)


async def test_the_largest_record_passes_even_if_it_does_not_compress(
    producer: KafkaProducer, applied: Settings
) -> None:
    value = os.urandom(MAX_RECORD_BYTES - _OVERHEAD_BYTES - len(b"key"))

    await producer.send(OutgoingRecord(RESULTS, b"key", value))

    (found,) = await read(applied, RESULTS)
    assert found.value == value


async def test_a_record_that_is_one_byte_too_large_is_refused_before_it_is_sent(
    producer: KafkaProducer, applied: Settings
) -> None:
    value = bytes(MAX_RECORD_BYTES - _OVERHEAD_BYTES - len(b"key") + 1)

    with pytest.raises(OutcomeTooLarge, match=str(MAX_RECORD_BYTES)):
        await producer.send(OutgoingRecord(RESULTS, b"key", value))

    assert await read(applied, RESULTS) == []
    await producer.send(SMALL)


async def test_a_record_that_the_broker_finds_too_large_does_not_block_its_partition(
    producer: KafkaProducer, applied: Settings
) -> None:
    await producer.send(SMALL)

    with pytest.raises(OutcomeTooLarge):
        await producer.send(TOO_LARGE_FOR_EVENTS)
    await producer.send(SMALL)

    assert [record.value for record in await read(applied, EVENTS)] == [SMALL.value] * 2


class UnluckyProducer(KafkaProducer):
    """Its first clients have lost their sequence before they are used."""

    losses = 0
    clients = 0

    async def _connected(self) -> AIOKafkaProducer:
        client = await super()._connected()
        self.clients += 1
        if self.clients <= self.losses:
            await lose_sequence(client, self._settings.topic(EVENTS))
        return client


class CrowdedProducer(KafkaProducer):
    """Other tasks discard its first clients just before this one sends."""

    discards = 0

    async def _deliver(self, client: AIOKafkaProducer, records: Sequence[OutgoingRecord]) -> None:
        if self.discards:
            self.discards -= 1
            await client.partitions_for(self._settings.topic(EVENTS))  # it was in use
            await self._discard(client)
        await super()._deliver(client, records)


class RefusedOnceProducer(KafkaProducer):
    """The first call fails for what has to do with its topic or partition alone."""

    clients: list[AIOKafkaProducer]
    refusal: type[KafkaError]

    async def _deliver(self, client: AIOKafkaProducer, records: Sequence[OutgoingRecord]) -> None:
        self.clients.append(client)
        if len(self.clients) == 1:
            raise self.refusal(EVENTS)
        await super()._deliver(client, records)


async def test_a_client_that_lost_its_sequence_is_replaced_and_the_records_are_sent_again(
    applied: Settings,
) -> None:
    producer = UnluckyProducer(applied)
    producer.losses = 1
    await producer.start()

    await producer.send(SMALL)

    assert [record.value for record in await read(applied, EVENTS)] == [b"first", SMALL.value]
    assert producer.clients == 2
    await producer.stop()


async def test_a_second_loss_in_a_row_is_fatal(applied: Settings) -> None:
    producer = UnluckyProducer(applied)
    producer.losses = 2
    await producer.start()

    with pytest.raises(ProducerFatal):
        await producer.send(SMALL)

    await producer.stop()


async def test_clients_that_other_tasks_discarded_count_for_no_loss(applied: Settings) -> None:
    producer = CrowdedProducer(applied)
    producer.discards = 3
    await producer.start()

    await producer.send(SMALL)

    assert [record.value for record in await read(applied, EVENTS)] == [SMALL.value]
    await producer.stop()


@pytest.mark.parametrize("refusal", [TopicAuthorizationFailedError, NotLeaderForPartitionError])
async def test_a_place_that_takes_nothing_costs_the_others_no_client(
    applied: Settings, refusal: type[KafkaError]
) -> None:
    producer = RefusedOnceProducer(applied)
    producer.clients, producer.refusal = [], refusal
    await producer.start()

    with pytest.raises(BrokerUnavailable, match=EVENTS):
        await producer.send(SMALL)
    await producer.send(SMALL)

    before, after = producer.clients
    assert after is before
    await producer.stop()


async def test_all_calls_under_way_survive_the_replacement_of_their_client(
    producer: KafkaProducer, applied: Settings
) -> None:
    await producer.send(SMALL)
    values = [b"%d" % index for index in range(50)]
    # linger puts the small ones into batches behind the refused one, on the same partition
    calls = [producer.send(TOO_LARGE_FOR_EVENTS)]
    calls += [producer.send(OutgoingRecord(EVENTS, b"key", value)) for value in values]

    results = await asyncio.gather(*calls, return_exceptions=True)

    assert isinstance(results[0], OutcomeTooLarge)
    assert results[1:] == [None] * len(values)
    found = {record.value for record in await read(applied, EVENTS)}
    assert found >= set(values)


async def test_a_silent_broker_costs_no_more_than_the_timeouts(
    applied: Settings, stack: Stack
) -> None:
    producer = KafkaProducer(applied, delivery_timeout_s=0.5)
    await producer.start()
    await producer.send(SMALL)

    with suspended(stack.pid("kafka")):
        async with asyncio.timeout(3):
            with pytest.raises(BrokerUnavailable, match=r"did not confirm within 0\.5 s"):
                await producer.send(SMALL)
        async with asyncio.timeout(12):
            await producer.stop()


async def test_what_a_stopped_producer_could_not_send_is_told_and_not_left_pending(
    applied: Settings, stack: Stack
) -> None:
    producer = KafkaProducer(applied)
    await producer.start()
    await producer.send(SMALL)

    with suspended(stack.pid("kafka")):
        posted = await producer.post(SMALL)
        async with asyncio.timeout(12):
            await producer.stop()

        assert posted.done()
        assert isinstance(posted.exception(), ProducerClosed)


async def test_a_stop_that_is_cut_off_leaves_no_client_behind(
    applied: Settings, stack: Stack
) -> None:
    producer = KafkaProducer(applied)
    await producer.start()
    await producer.send(SMALL)
    client = producer._client
    assert client is not None
    with suspended(stack.pid("kafka")):
        _ = await producer.post(SMALL)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await producer.stop()
        async with asyncio.timeout(12):
            await producer.stop()

    assert client._sender.sender_task.done()


async def test_what_was_not_confirmed_in_time_may_still_arrive_and_sending_goes_on(
    applied: Settings, stack: Stack
) -> None:
    producer = KafkaProducer(applied, delivery_timeout_s=0.5)
    await producer.start()
    await producer.send(SMALL)
    with suspended(stack.pid("kafka")), pytest.raises(BrokerUnavailable):
        await producer.send(OutgoingRecord(EVENTS, b"key", b"late"))

    await producer.send(OutgoingRecord(EVENTS, b"key", b"after"))

    await producer.stop()
    values = [record.value for record in await read(applied, EVENTS)]
    assert values == [b"small", b"late", b"after"]
