"""What Kafka deletes before it is read has no outcome; a worker says so."""

import re
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from cortex_stream.kafka.connection import connection_arguments
from schemas.priority import Lane
from tests.integration.agents.scene import Scene, Worker
from topics.names import request_topic

pytestmark = pytest.mark.integration

TOPIC = request_topic(Lane.HIGH)


async def send(scene: Scene, count: int, **fields: Any) -> list[str]:
    """Send requests to one partition; return their ids."""
    before = len(scene.sent)
    return await scene.send(
        [(TOPIC, {"id": f"one-{before + number}", **fields}) for number in range(count)]
    )


async def delete_before(scene: Scene, name: str) -> None:
    """Delete what lies before a record in its partition, as retention does."""
    at = scene.sent[name]
    admin = AIOKafkaAdminClient(**connection_arguments(scene.settings))
    await admin.start()
    partition = TopicPartition(at.topic, at.partition)
    await admin.delete_records({partition: RecordsToDelete(before_offset=at.offset)})
    await admin.close()


async def deleted_unread(worker: Worker) -> list[tuple[int, int]]:
    """Return what the worker said: first offset and count, each time."""
    lines = await worker.says("records.deleted_unread")
    return [(line["first"], line["count"]) for line in lines]


async def counted(worker: Worker) -> float:
    """Return what the worker's metrics say, over all topics."""
    _, text = await worker.get("/metrics")
    found = re.findall(r"^cortex_records_deleted_unread_total\{.*\} (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))


async def test_a_worker_tells_what_was_deleted_before_it_started(scene: Scene) -> None:
    # given
    first = scene.worker()
    await scene.answered(await send(scene, 3))
    await scene.everything_committed()
    await first.terminate()
    unread = await send(scene, 7)
    left = await send(scene, 2)
    await delete_before(scene, left[0])

    # when
    worker = scene.worker()

    # then
    await scene.answered(left)
    assert await deleted_unread(worker) == [(scene.sent[unread[0]].offset, 7)]
    assert await counted(worker) == 7


async def test_it_tells_so_although_no_record_is_left(scene: Scene) -> None:
    # given
    first = scene.worker()
    await scene.answered(await send(scene, 3))
    await scene.everything_committed()
    await first.terminate()
    unread = await send(scene, 7)
    at = scene.sent[unread[-1]]
    scene.sent["next"] = at._replace(offset=at.offset + 1)
    await delete_before(scene, "next")

    # when
    worker = scene.worker()

    # then
    assert await deleted_unread(worker) == [(scene.sent[unread[0]].offset, 7)]


async def test_it_tells_what_was_deleted_while_it_was_behind(scene: Scene) -> None:
    # given: two requests fill the lane, and of the 4 MB behind them one fetch holds 1 MB
    worker = scene.worker(CORTEX_LANES__HIGH="2")
    await scene.answered(await send(scene, 2))
    slow = await send(scene, 2, ms=6000)
    await scene.has_begun()
    await send(scene, 40, pad="x" * 100_000)
    left = await send(scene, 2)

    # when
    await delete_before(scene, left[0])

    # then
    await scene.answered([*slow, *left])
    await scene.everything_committed()
    lost = await scene.committed_but_unanswered()
    told = await deleted_unread(worker)
    assert lost
    assert sum(count for _, count in told) == len(lost)


async def test_what_was_read_before_it_was_deleted_is_not_told(scene: Scene) -> None:
    # given
    worker = scene.worker()
    await scene.answered(await send(scene, 10))
    scene.sent["next"] = scene.sent["one-9"]._replace(offset=10)

    # when
    await delete_before(scene, "next")

    # then
    del scene.sent["next"]
    await scene.answered(await send(scene, 3))
    assert worker.said("records.deleted_unread") == []
    assert await counted(worker) == 0
