"""A commit belongs to one membership of the group: it never takes effect beyond it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import TopicPartition

from cortex_stream.kafka.commits import read_commits, read_membership, seek_to, try_commit
from cortex_stream.kafka.connection import connection_arguments
from cortex_stream.settings.tree import Settings
from cortex_stream.task_scope import TaskScope
from schemas.priority import Lane
from topics.names import request_topic

pytestmark = pytest.mark.integration

PATIENCE_S = 30.0


@asynccontextmanager
async def member(settings: Settings) -> AsyncIterator[Any]:
    """Return a consumer that has joined the group."""
    consumer: Any = AIOKafkaConsumer(
        settings.topic(request_topic(Lane.HIGH)),
        **connection_arguments(settings),
        group_id=settings.group,
        enable_auto_commit=False,
        heartbeat_interval_ms=200,
        auto_offset_reset="earliest",
    )
    async with asyncio.timeout(PATIENCE_S):
        await consumer.start()
        while not consumer.assignment():
            await asyncio.sleep(0.05)
    try:
        yield consumer
    finally:
        await consumer.stop()


async def rebalanced(consumer: Any, other: Any) -> None:
    """Wait until the two have shared out the partitions."""
    async with asyncio.timeout(PATIENCE_S):
        while len(consumer.assignment()) != 2 or len(other.assignment()) != 2:
            await asyncio.sleep(0.05)


async def committed(consumer: Any) -> dict[int, tuple[int, str]]:
    """Return what the group has committed, by partition."""
    (topic,) = consumer.subscription()
    commits = await read_commits(consumer, [(topic, partition) for partition in range(4)])
    return {partition: commit for (_, partition), commit in commits.items() if commit[0] >= 0}


def commits_of(consumer: Any) -> dict[tuple[str, int], tuple[int, str]]:
    return {(at.topic, at.partition): (0, "until=9") for at in consumer.assignment()}


async def test_a_commit_of_the_present_membership_is_there_with_its_text(applied: Settings) -> None:
    async with member(applied) as consumer:
        membership = await read_membership(consumer)

        assert await try_commit(consumer, membership, commits_of(consumer))

        assert await committed(consumer) == dict.fromkeys(range(4), (0, "until=9"))


async def test_a_commit_that_comes_after_its_membership_is_refused(applied: Settings) -> None:
    async with member(applied) as consumer:
        membership, commits = await read_membership(consumer), commits_of(consumer)
        async with member(applied) as other:
            await rebalanced(consumer, other)

            assert not await try_commit(consumer, membership, commits)

            assert await committed(other) == {}


async def test_a_commit_that_waits_for_its_coordinator_ends_with_its_membership(
    applied: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    async with member(applied) as consumer:
        membership, commits = await read_membership(consumer), commits_of(consumer)
        coordinator = consumer._coordinator
        waits = asyncio.Event()

        async def wait_for_it() -> None:
            waits.set()
            await asyncio.Event().wait()

        async with TaskScope() as scope:
            with monkeypatch.context() as patch:  # for this commit alone
                patch.setattr(coordinator, "ensure_coordinator_known", wait_for_it)
                commit = try_commit(consumer, membership, commits)
                committing = scope.start(commit, name="commit")
                await waits.wait()

            # when
            async with member(applied) as other:
                await rebalanced(consumer, other)

                # then
                async with asyncio.timeout(PATIENCE_S):
                    assert not await committing
                assert await committed(other) == {}


async def test_it_reads_on_from_where_it_is_told_whatever_the_client_thinks(
    applied: Settings,
) -> None:
    topic = applied.topic(request_topic(Lane.HIGH))
    async with AIOKafkaProducer(**connection_arguments(applied)) as producer:
        for number in range(3):
            await producer.send_and_wait(topic, b"%d" % number, partition=0)

    async with member(applied) as consumer:
        at = TopicPartition(topic, 0)
        assert await consumer.position(at) == 0  # the group has committed nothing, so the beginning

        await seek_to(consumer, {(topic, 0): 2, ("elsewhere", 0): 5})

        async with asyncio.timeout(PATIENCE_S):
            record = await consumer.getone(at)
        assert (record.offset, record.value) == (2, b"2")
