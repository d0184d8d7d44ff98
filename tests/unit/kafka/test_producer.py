import pytest

from cortex_stream.errors import BrokerUnavailable, InvariantError
from cortex_stream.kafka.producer import MAX_RECORD_BYTES, KafkaProducer, producer_arguments
from cortex_stream.record import OutgoingRecord
from cortex_stream.settings.tree import Settings
from topics.catalogue import CATALOGUE
from topics.names import RESULTS

NOBODY = Settings(kafka_brokers="127.0.0.1:1")
RECORD = OutgoingRecord(RESULTS, b"key", b"value")


def test_a_record_counts_as_sent_once_every_in_sync_replica_has_it() -> None:
    arguments = producer_arguments(Settings())

    assert arguments["acks"] == "all"
    assert arguments["enable_idempotence"] is True


def test_what_the_producer_lets_through_fits_into_the_topics_of_outcomes() -> None:
    largest = {spec.max_message_bytes for spec in CATALOGUE if spec.log_append_time}

    assert Settings().limits.outcome_bytes < MAX_RECORD_BYTES < min(largest)


async def test_sending_before_the_start_is_a_bug() -> None:
    producer = KafkaProducer(Settings())

    with pytest.raises(InvariantError):
        await producer.send(RECORD)


async def test_starting_without_a_broker_says_where_it_looked() -> None:
    producer = KafkaProducer(NOBODY)

    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1: no broker answers"):
        await producer.start()

    await producer.stop()


async def test_stopping_what_never_started_is_fine() -> None:
    producer = KafkaProducer(Settings())

    await producer.stop()

    with pytest.raises(InvariantError):
        await producer.send(RECORD)
