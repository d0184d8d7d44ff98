"""Reading what Kafka has and does not give."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from cortex_stream.errors import BrokerUnavailable
from cortex_stream.kafka.reader import TopicReader
from cortex_stream.settings.tree import Settings
from topics.names import DEAD_LETTERS

AT = TopicPartition(DEAD_LETTERS, 0)
RECORDS = 5


class Client:
    """Has five records; a poll takes one after so many that took none."""

    def __init__(self, *, polls_in_vain: int) -> None:
        self._polls_in_vain = polls_in_vain
        self._polls = 0
        self._position = 0

    async def end_offsets(self, _parts: object) -> dict[TopicPartition, int]:
        return {AT: RECORDS}

    async def position(self, _part: TopicPartition) -> int:
        return self._position

    def assignment(self) -> set[TopicPartition]:
        return {AT}

    def assign(self, _parts: object) -> None:
        pass

    def seek(self, _part: TopicPartition, offset: int) -> None:
        self._position = offset

    def pause(self, _part: TopicPartition) -> None:
        pass

    async def getmany(self, *, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        del timeout_ms
        self._polls += 1
        if self._polls % (self._polls_in_vain + 1):
            return {}
        record = SimpleNamespace(
            topic=AT.topic,
            partition=0,
            offset=self._position,
            timestamp=0,
            key=None,
            value=None,
            headers=(),
        )
        self._position += 1
        return {AT: [record]}


def reader_of(client: Client) -> TopicReader:
    reader = TopicReader(Settings(), [DEAD_LETTERS])
    reader._client, reader._partitions = client, [AT]
    return reader


@pytest.fixture(autouse=True)
def _a_poll_takes_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(1000))
    loop = SimpleNamespace(time=lambda: float(next(seconds)))
    monkeypatch.setattr(
        "cortex_stream.kafka.reader.asyncio", SimpleNamespace(get_running_loop=lambda: loop)
    )
    monkeypatch.setattr("cortex_stream.kafka.reader._MOST_SILENT_S", 4.0)


@pytest.mark.parametrize("way", ["to_end", "between"])
async def test_a_broker_that_gives_nothing_of_what_it_has_is_an_error(way: str) -> None:
    reader = reader_of(Client(polls_in_vain=1000))
    reading = reader.to_end() if way == "to_end" else reader.between({(DEAD_LETTERS, 0): (0, 5)})

    with pytest.raises(BrokerUnavailable, match="has given nothing"):
        _ = [record async for record in reading]


async def test_a_broker_that_is_slow_is_none() -> None:
    reader = reader_of(Client(polls_in_vain=3))

    assert [record.offset async for record in reader.to_end()] == list(range(RECORDS))
