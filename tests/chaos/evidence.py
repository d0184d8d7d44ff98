"""Everything that is known about a round once it is over: its journals, and its topics to their end."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.chaos.history import (
    Deed,
    Place,
    Probe,
    Sent,
    Snapshot,
    read_deeds,
    read_probes,
    read_sent,
    read_snapshots,
)

_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it lies on its topic. `topic` is without prefix."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()

    @property
    def place(self) -> Place:
        return self.topic, self.partition


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the checker judges. `records` are by topic, in the order of each partition."""

    prefix: str
    sent: list[Sent]
    records: dict[str, list[Record]]
    snapshots: list[Snapshot] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    deeds: list[Deed] = field(default_factory=list)

    def of(self, *topics: str) -> list[Record]:
        return [record for topic in topics for record in self.records.get(topic, [])]


async def read_evidence(brokers: str, prefix: str, topics: Iterable[str], folder: Path) -> Evidence:
    """Read the topics to their end, and the journals in `folder`."""
    return Evidence(
        prefix,
        read_sent(folder / "history.jsonl"),
        await read_topics(brokers, prefix, topics),
        read_snapshots(folder / "snapshots.jsonl"),
        read_probes(folder / "probe.jsonl"),
        read_deeds(folder / "nemesis.jsonl"),
    )


async def read_topics(brokers: str, prefix: str, topics: Iterable[str]) -> dict[str, list[Record]]:
    """Return all records of the topics, each topic's partitions one after the other."""
    found: dict[str, list[Record]] = {topic: [] for topic in topics}
    consumer = AIOKafkaConsumer(
        bootstrap_servers=brokers,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
    )
    await consumer.start()
    try:
        names = [f"{prefix}.{topic}" for topic in found]
        partitions = [
            TopicPartition(name, partition)
            for name in names
            for partition in sorted(await _partitions(consumer, name))
        ]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        async with asyncio.timeout(_PATIENCE_S):
            while not await _at_end(consumer, ends):
                for partition, polled in (await consumer.getmany(timeout_ms=100)).items():
                    topic = partition.topic.removeprefix(f"{prefix}.")
                    found[topic].extend(
                        Record(
                            topic,
                            each.partition,
                            each.offset,
                            each.timestamp,
                            each.key,
                            each.value,
                            tuple(each.headers),
                        )
                        for each in polled
                    )
    finally:
        await consumer.stop()
    for records in found.values():
        records.sort(key=lambda record: (record.partition, record.offset))
    return found


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    async with asyncio.timeout(_PATIENCE_S):
        while not (found := consumer.partitions_for_topic(topic)):
            await consumer._client.force_metadata_update()
            consumer._client.add_topic(topic)
            await asyncio.sleep(0.02)
    return set(found)


async def _at_end(consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> bool:
    for partition, end in ends.items():
        if await consumer.position(partition) < end:
            return False
    return True
