"""Suspects end although the last of them are no records: what is there no more is never delivered."""

from collections.abc import Awaitable, Mapping
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from cortex_stream.kafka.connection import connection_arguments
from schemas.priority import Lane
from tests.integration.agents.scene import Place, Scene
from topics.names import request_topic

pytestmark = pytest.mark.integration

AT_ONCE = {"CORTEX_KAFKA__INSTANCE_ID": "one"}
"""A static member is given its partitions back at once; a dead dynamic one, after 6 s."""
HANGING = {"id": "hanging", "do": "hang"}
SLOW = {"id": "slow", "ms": 3000}


async def killed_by(scene: Scene, sending: Awaitable[object]) -> None:
    """Kill a worker once it may have begun what is sent."""
    worker = scene.worker(**AT_ONCE)
    await worker.is_ready()
    await sending
    await scene.has_begun()
    worker.kill()


async def send_in_a_transaction(scene: Scene, asked: Mapping[str, Any], *, topic: str) -> None:
    """Send one record whose transaction ends with a marker behind it."""
    arguments = connection_arguments(scene.settings)
    producer = AIOKafkaProducer(**arguments, transactional_id=scene.settings.group)
    async with producer, producer.transaction():
        await producer.send_and_wait(scene.settings.topic(topic), orjson.dumps(asked))


async def delete(scene: Scene, at: Place) -> None:
    """Delete the records of a partition, as retention does, that of `at` included."""
    admin = AIOKafkaAdminClient(**connection_arguments(scene.settings))
    await admin.start()
    partition = TopicPartition(at.topic, at.partition)
    await admin.delete_records({partition: RecordsToDelete(before_offset=at.offset + 1)})
    await admin.close()


async def test_suspects_end_at_the_marker_of_a_transaction(scene: Scene) -> None:
    # given
    topic = request_topic(Lane.HIGH)
    await killed_by(scene, send_in_a_transaction(scene, SLOW, topic=topic))

    # when
    worker = scene.worker(**AT_ONCE)

    # then
    await scene.answered(["slow"])
    (found,) = await worker.says("suspects.found")
    assert found["records"] == 2, "the record and the marker"
    await worker.says("suspects.ended")


async def test_suspects_end_where_they_were_deleted(scene: Scene) -> None:
    # given
    await killed_by(scene, scene.send([(request_topic(Lane.HIGH), HANGING)]))
    await delete(scene, scene.sent["hanging"])

    # when
    worker = scene.worker(**AT_ONCE)

    # then
    await worker.says("suspects.found")
    await worker.says("suspects.ended")
    await scene.answered(await scene.ask(20))
