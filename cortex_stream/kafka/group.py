"""How far a consumer group has come: committed offsets and lag."""

from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition

from cortex_stream.kafka.admin import TopicAdmin
from cortex_stream.kafka.connection import connection_arguments, reaching_brokers
from cortex_stream.settings.tree import Settings


@dataclass(frozen=True, slots=True)
class PartitionProgress:
    """One partition of one topic (catalogue name), as a group sees it.

    Attributes:
        committed: the offset at which the group goes on; None before its first commit.
        beginning: the oldest offset that is still kept.
        end: the offset that the next record will get.
    """

    topic: str
    partition: int
    committed: int | None
    beginning: int
    end: int

    @property
    def lag_records(self) -> int:
        """Return how many records the group has still to read."""
        return max(0, self.end - max(self.beginning, self.committed or 0))


async def read_progress(
    settings: Settings, topics: Sequence[str], *, group: str | None = None
) -> list[PartitionProgress]:
    """Return where a group stands on `topics`; topics that do not exist are left out.

    `group` is its name on the cluster; by default that of the workers.

    Raises:
        BrokerUnavailable: no broker answers.
    """
    names = {settings.topic(topic): topic for topic in topics}
    async with TopicAdmin(settings) as admin:
        present = await admin.describe(names)
    partitions = [
        TopicPartition(name, index)
        for name in names
        if name in present
        for index in range(present[name].partitions)
    ]
    if not partitions:
        return []
    client = AIOKafkaConsumer(
        **connection_arguments(settings), group_id=group or settings.group, enable_auto_commit=False
    )
    try:
        with reaching_brokers(settings):
            await client.start()
            client.assign(partitions)  # assigned, not subscribed: the group is not disturbed
            client.pause(*partitions)  # nothing is read
            committed = {part: await client.committed(part) for part in partitions}
            beginnings = await client.beginning_offsets(partitions)
            ends = await client.end_offsets(partitions)
    finally:
        await client.stop()
    return [
        PartitionProgress(
            topic=names[part.topic],
            partition=part.partition,
            committed=committed[part],
            beginning=beginnings[part],
            end=ends[part],
        )
        for part in partitions
    ]
