"""A record that the Kafka client cannot decode is answered; its neighbours notice nothing."""

from collections.abc import Sequence
from unittest.mock import patch

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.producer import message_accumulator
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from cortex_stream.clock import SystemClock
from cortex_stream.kafka.connection import connection_arguments
from schemas.priority import Lane
from tests.integration.agents.scene import Place, Scene, lanes_of
from topics.names import EVENTS, request_topic

pytestmark = pytest.mark.integration

PARTITION = 0


class NotUtf8(str):
    """A header name as a client in another language may send it."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe"


async def send_batch(scene: Scene, topic: str, names: Sequence[str]) -> None:
    """Send one batch, in which each record named `poison...` has a header that is not UTF-8."""
    codec = {"compression_type": "lz4"}
    producer = AIOKafkaProducer(**connection_arguments(scene.settings), **codec)
    await producer.start()
    try:
        with patch.object(
            message_accumulator, "DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy
        ):
            batch = producer.create_batch()
            for name in names:
                header = NotUtf8("h") if name.startswith("poison") else "h"
                value = orjson.dumps({"id": name})
                _ = batch.append(
                    key=None,
                    value=value,
                    timestamp=SystemClock().unix_ms(),
                    headers=[(header, b"v")],
                )
            batch.close()
            sent = await producer.send_batch(
                batch, scene.settings.topic(topic), partition=PARTITION
            )
            first = await sent
    finally:
        await producer.stop()
    for index, name in enumerate(names):
        scene.sent[name] = Place(first.topic, PARTITION, first.offset + index)


async def answers_of(scene: Scene) -> list[str]:
    return sorted(answer["id"] for answer in await scene.read())


def expected(scene: Scene) -> list[str]:
    """Return the names of the answers to everything that was sent."""
    return sorted(
        f"unreadable-{at.topic}-{at.partition}-{at.offset}" if name.startswith("poison") else name
        for name, at in scene.sent.items()
    )


@pytest.mark.parametrize("topic", [request_topic(Lane.HIGH), EVENTS])
async def test_records_before_and_behind_an_undecodable_one_are_answered_and_so_is_it(
    scene: Scene, topic: str
) -> None:
    await send_batch(scene, topic, ["poison-0", "a-1", "a-2", "poison-3", "poison-4", "a-5"])
    await send_batch(scene, topic, ["b-1", "b-2", "poison-5"])
    await send_batch(scene, topic, ["c-1"])

    worker = scene.worker()
    await scene.answered(expected(scene))
    await scene.everything_committed()

    assert await answers_of(scene) == expected(scene)  # each once
    assert worker.process.poll() is None
    reason = next(a["reason"] for a in scene.answers if a["id"].startswith("unreadable"))
    assert "utf-8" in reason


async def test_an_undecodable_record_costs_other_partitions_and_small_lanes_nothing(
    scene: Scene,
) -> None:
    topic = request_topic(Lane.LOW)
    await scene.ask(300, lanes=Lane)
    poison = [f"poison-{n}" if n % 7 == 3 else f"n-{n}" for n in range(60)]
    await send_batch(scene, topic, poison)
    await scene.ask(300, lanes=Lane)

    worker = scene.worker(**lanes_of(5))  # so that polls end within the batch
    await scene.answered(expected(scene))
    await scene.everything_committed()

    assert await answers_of(scene) == expected(scene)
    assert worker.process.poll() is None
