"""Read topics without a consumer group: for commands, tests, and what a worker reads at its start.

Owner: the event loop that entered the `TopicReader`.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from cortex_stream.errors import BrokerUnavailable, TopicsMismatch
from cortex_stream.kafka.connection import connected, connection_arguments, reaching_brokers
from cortex_stream.kafka.undecodable import (
    Record,
    UndecodableRecord,
    keep_fetched_bytes,
    salvage,
)
from cortex_stream.settings.tree import Settings

_POLL_MS: Final = 200
_FETCH_BYTES: Final = 8 << 20  # of one partition at once: reads a whole topic in few round trips
_FETCH_WAIT_S: Final = 0.05  # at the end of a partition; what is asked for next waits for it
_STEP_RECORDS: Final = 500
_MOST_SILENT_S: Final = 60.0  # a broker's restart takes 20 s

V = TypeVar("V")

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

    Order holds within a partition only. Records that the client cannot decode are left out.

    Attributes:
        undecodable: how many those were so far.

    Raises:
        BrokerUnavailable: no broker answers.
        TopicsMismatch: on entering, a topic does not exist.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Sequence[str],
        *,
        start: Start = "beginning",
        fetch_wait_s: float = _FETCH_WAIT_S,
    ) -> None:
        """Read `topics`; a broker without new records may answer after `fetch_wait_s`."""
        self._settings = settings
        self._fetch_wait_s = fetch_wait_s
        self._topics = {settings.topic(name): name for name in topics}
        self._start = start
        self.undecodable = 0
        self._silent_s = 0.0  # that polls took since the last one that got on
        self._client: Any = None
        self._opened = AsyncExitStack()
        self._partitions: list[TopicPartition] = []
        self._next: dict[TopicPartition, int] = {}

    async def __aenter__(self) -> Self:
        """Connect and fix where reading begins: later records count even if read much later."""
        keep_fetched_bytes()
        client = AIOKafkaConsumer(
            **connection_arguments(self._settings),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=_FETCH_BYTES,
            fetch_max_wait_ms=round(1000 * self._fetch_wait_s),
        )
        async with AsyncExitStack() as opened:
            self._client = await opened.enter_async_context(connected(self._settings, client))
            with reaching_brokers(self._settings):
                self._partitions = await self._find_partitions()
                self._client.assign(self._partitions)
                await self._seek()
            self._opened = opened.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Disconnect."""
        await self._opened.aclose()

    async def to_end(self) -> AsyncIterator[ReadRecord]:
        """Yield the records up to the ends that the partitions have now.

        The next call goes on where this one stopped.
        """
        with reaching_brokers(self._settings):
            ends = await self._client.end_offsets(self._partitions)
        while not await self._reached(ends):
            for record in await self._poll_on():
                yield record

    async def begins(self) -> dict[Position, int]:
        """Return the oldest offset of each partition that is still kept."""
        with reaching_brokers(self._settings):
            return self._named(await self._client.beginning_offsets(self._partitions))

    async def ends(self) -> dict[Position, int]:
        """Return the offset that the next record of each partition will get."""
        with reaching_brokers(self._settings):
            return self._named(await self._client.end_offsets(self._partitions))

    async def first_since(self, unix_ms: int) -> dict[Position, tuple[int, int]]:
        """Return offset and timestamp of the first record at or after a moment, where there is one."""
        asked = dict.fromkeys(self._partitions, unix_ms)
        with reaching_brokers(self._settings):
            found = await self._client.offsets_for_times(asked)
        return self._named(
            {part: (each.offset, each.timestamp) for part, each in found.items() if each}
        )

    async def follow(self) -> AsyncIterator[ReadRecord]:
        """Yield the records and wait for more, for ever."""
        while True:
            for record in await self._poll():
                yield record

    async def between(
        self, ranges: Mapping[Position, tuple[int, int]]
    ) -> AsyncIterator[ReadRecord]:
        """Yield the records of `ranges`, from the first offset up to, not including, the second.

        Nothing else is fetched, then or later.
        """
        if not ranges:
            return  # the client does not stop that is assigned nothing
        names = {name: topic for topic, name in self._topics.items()}
        parts = {TopicPartition(names[topic], number): at for (topic, number), at in ranges.items()}
        self._client.assign(list(parts))
        self._next = {part: begin for part, (begin, _) in parts.items()}
        for part, begin in self._next.items():
            self._client.seek(part, begin)
        left = {part: end for part, (_, end) in parts.items()}
        while left:
            for record in await self._poll_on():
                if record.offset < ranges[record.topic, record.partition][1]:
                    yield record
            for part in [part for part, end in left.items() if await self._reached({part: end})]:
                self._client.pause(part)
                del left[part]

    async def _poll_on(self) -> list[ReadRecord]:
        """Poll for records that are there; the client waits for ever for brokers that are not."""
        clock = asyncio.get_running_loop()
        began_s, before = clock.time(), await self._positions()
        records = await self._poll()
        moved = await self._positions() != before
        self._silent_s = 0.0 if moved else self._silent_s + clock.time() - began_s
        if self._silent_s >= _MOST_SILENT_S:
            raise BrokerUnavailable(
                f"reading {', '.join(self._topics.values())}: for {_MOST_SILENT_S:g} s Kafka at"
                f" {self._settings.kafka_brokers} has given nothing of what it has",
                repair="look whether each of its partitions has a leader, and begin again",
            )
        return records

    async def _positions(self) -> list[int]:
        return [await self._client.position(part) for part in self._client.assignment()]

    async def _poll(self) -> list[ReadRecord]:
        with reaching_brokers(self._settings):
            try:
                polled = await self._client.getmany(timeout_ms=_POLL_MS)
            except KafkaError:
                raise
            except Exception:  # raised again unless a record is the reason
                polled = self._step_over()
                if not polled:
                    raise
        self._next |= {part: records[-1].offset + 1 for part, records in polled.items() if records}
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
            if not self._is_undecodable(record)
        ]

    def _step_over(self) -> dict[TopicPartition, list[Record]]:
        """Take what was fetched, past the records that cannot be decoded.

        What the failed poll had taken from other partitions went with it: they are read again.
        """
        fetcher = self._client._fetcher  # noqa: SLF001 (aiokafka is pinned; no public way)
        taken = {
            part: records
            for part in self._next
            if (records := salvage(fetcher, part, most_records=_STEP_RECORDS))
        }
        for part, offset in self._next.items():
            if part not in taken:
                self._client.seek(part, offset)
        return taken

    def _is_undecodable(self, record: Record) -> bool:
        found = isinstance(record, UndecodableRecord)
        self.undecodable += found
        return found

    def _named(self, by_partition: Mapping[TopicPartition, V]) -> dict[Position, V]:
        return {
            (self._topics[part.topic], part.partition): value
            for part, value in by_partition.items()
        }

    async def _reached(self, ends: Mapping[TopicPartition, int]) -> bool:
        # positions, not the offsets of records: the last offsets may hold no record (compaction)
        return all([await self._client.position(part) >= end for part, end in ends.items()])

    async def _find_partitions(self) -> list[TopicPartition]:
        # Asked for all: asking by name would create the missing ones on a cluster with
        # auto-creation.
        cluster = await self._client._client.fetch_all_metadata()  # noqa: SLF001 (pinned; no public way)
        found = {topic: cluster.partitions_for_topic(topic) for topic in self._topics}
        missing = sorted(topic for topic, partitions in found.items() if not partitions)
        if missing:
            raise TopicsMismatch(
                f"reading {', '.join(missing)}: no such topic at {self._settings.kafka_brokers}",
                repair="cortex-stream topics apply",
            )
        return [
            TopicPartition(topic, partition)
            for topic, partitions in found.items()
            for partition in sorted(partitions)
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
        self._next = dict(offsets)
