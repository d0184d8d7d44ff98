"""Which partitions a poll takes from, while their topic has little room."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from aiokafka.structs import ConsumerRecord, TopicPartition

from agents.consumer_thread import EdgeConsumerThread
from cortex_stream.kafka.undecodable import Record
from cortex_stream.scheduling.admission import NO_ROOM, Room

PLENTY = 10**9
ROOM = 50
TOPIC = "cortex.requests.low"


@dataclass
class Consumer:
    """Says how much room there is.

    Attributes:
        full: whether there is none.
    """

    _active_partitions: Collection[TopicPartition]
    full: bool = False

    def room(self, _topic: str, *, beside_bytes: int) -> Room:
        assert beside_bytes == 0
        return NO_ROOM if self.full else Room(ROOM, PLENTY)

    def weigh(self, _record: Record) -> int:
        return 1


@dataclass
class Fetcher:
    """Has fetched more of each partition than anybody takes here."""

    _records: Mapping[TopicPartition, object]
    taken: dict[TopicPartition, int] = field(default_factory=lambda: defaultdict(int))

    async def fetched_records(
        self,
        partitions: Collection[TopicPartition],
        *,
        timeout: int,  # noqa: ASYNC109 (aiokafka's signature)
        max_records: int,
    ) -> dict[TopicPartition, list[Any]]:
        del timeout
        (at,) = partitions
        begin = self.taken[at]
        self.taken[at] += max_records
        offsets = range(begin, self.taken[at])
        return {at: [ConsumerRecord(*at, n, 0, 0, None, b"", None, 0, 0, ()) for n in offsets]}


@pytest.mark.parametrize("looks_in_vain", [0, 1, 2, 3])
@pytest.mark.parametrize("partitions", [1, 2, 3, 4])
async def test_partitions_take_turns_however_often_there_is_no_room(
    partitions: int, looks_in_vain: int
) -> None:
    places = [TopicPartition(TOPIC, number) for number in range(partitions)]
    consumer, fetcher = Consumer(places), Fetcher(dict.fromkeys(places))
    thread = cast("Any", EdgeConsumerThread.__new__(EdgeConsumerThread))
    thread.consumer, thread._turns = consumer, Counter()

    for _ in range(12):
        consumer.full = True
        for _ in range(looks_in_vain):
            assert await thread._take(fetcher) == {}
        consumer.full = False
        (taken,) = (await thread._take(fetcher)).values()
        assert len(taken.records) == ROOM

    assert fetcher.taken == dict.fromkeys(places, 12 * ROOM // partitions)
