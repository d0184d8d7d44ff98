"""Read topics without a consumer group: for commands and tests, never for the worker.

Owner: the event loop that entered the `TopicReader`.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from cortex_stream.errors import TopicsMismatch
from cortex_stream.kafka.admin import TopicAdmin
from cortex_stream.kafka.connection import connection_arguments, reaching_brokers
from cortex_stream.settings.tree import Settings

_POLL_MS: Final = 200
_FETCH_BYTES: Final = 8 << 20  # of one partition at once: reads a whole topic in few round trips

Position = tuple[str, int]
"""A topic's name in the catalogue, and a partition."""
Start = Literal["beginning", "end"] | Mapping[Position, int]
"""Where to begin; a mapping gives offsets, partitions it leaves out begin at their beginning."""


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """One record as it stands in the log; `topic` is without the prefix."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class TopicReader:
    """Reads all partitions of some topics; use it as an async context manager.

    Order holds within a partition only.

    Raises:
        BrokerUnavailable: no broker answers.
        TopicsMismatch: on entering, a topic does not exist.
    """

    def __init__(
        self, settings: Settings, topics: Sequence[str], *, start: Start = "beginning"
    ) -> None:
        self._settings = settings
        self._topics = {settings.topic(name): name for name in topics}
        self._start = start
        self._client: Any = None
        self._partitions: list[TopicPartition] = []

    async def __aenter__(self) -> Self:
        """Connect and fix where reading begins: later records count even if read much later."""
        self._client = AIOKafkaConsumer(
            **connection_arguments(self._settings),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=_FETCH_BYTES,
        )
        try:
            with reaching_brokers(self._settings):
                await self._client.start()
                self._partitions = await self._find_partitions()
                self._client.assign(self._partitions)
                await self._seek()
        except BaseException:
            await self._client.stop()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Disconnect."""
        await self._client.stop()

    async def to_end(self) -> AsyncIterator[ReadRecord]:
        """Yield the records up to the ends that the partitions have now.

        The next call goes on where this one stopped.
        """
        with reaching_brokers(self._settings):
            ends = await self._client.end_offsets(self._partitions)
        while not await self._reached(ends):
            for record in await self._poll():
                yield record

    async def follow(self) -> AsyncIterator[ReadRecord]:
        """Yield the records and wait for more, for ever."""
        while True:
            for record in await self._poll():
                yield record

    async def _poll(self) -> list[ReadRecord]:
        with reaching_brokers(self._settings):
            polled = await self._client.getmany(timeout_ms=_POLL_MS)
        return [
            ReadRecord(
                topic=self._topics[record.topic],
                partition=record.partition,
                offset=record.offset,
                timestamp_ms=record.timestamp,
                key=record.key,
                value=record.value,
                headers=tuple(record.headers),
            )
            for records in polled.values()
            for record in records
        ]

    async def _reached(self, ends: Mapping[TopicPartition, int]) -> bool:
        # positions, not the offsets of records: the last offsets may hold no record (compaction)
        return all([await self._client.position(part) >= end for part, end in ends.items()])

    async def _find_partitions(self) -> list[TopicPartition]:
        async with TopicAdmin(self._settings) as admin:
            existing = await admin.describe(self._topics)
        missing = sorted(self._topics.keys() - existing.keys())
        if missing:
            raise TopicsMismatch(
                f"reading {', '.join(missing)}: no such topic at {self._settings.kafka_brokers}",
                repair="cortex-stream topics apply",
            )
        return [
            TopicPartition(topic, partition)
            for topic in self._topics
            for partition in range(existing[topic].partitions)
        ]

    async def _seek(self) -> None:
        match self._start:
            case "beginning":
                offsets = await self._client.beginning_offsets(self._partitions)
            case "end":
                offsets = await self._client.end_offsets(self._partitions)
            case given:
                offsets = await self._client.beginning_offsets(self._partitions)
                for part in self._partitions:
                    offset = given.get((self._topics[part.topic], part.partition))
                    offsets[part] = offsets[part] if offset is None else offset
        for part, offset in offsets.items():
            self._client.seek(part, offset)
