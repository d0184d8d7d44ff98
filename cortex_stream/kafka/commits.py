"""What a group has committed, the texts beside the offsets included.

A text is committed with its offset, in one step, and nobody else can read one without the other.

Owner: the thread that runs the aiokafka consumer; all of these must be awaited there.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

from aiokafka.errors import CommitFailedError, KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition

Place = tuple[str, int]
"""A topic, as the cluster names it, and a partition."""
Commit = tuple[int, str]
"""An offset and a text."""
_ENDS_TIMEOUT_S: Final = 2.0  # of the session timeout, 10 s unless set


async def read_commits(consumer: Any, places: Iterable[Place]) -> dict[Place, Commit]:
    """Return the last commits of the group of `consumer`; places without one are left out.

    Waits for the brokers, however long they are away.
    """
    coordinator = consumer._coordinator  # noqa: SLF001 (`committed` gives no texts)
    committed = await coordinator.fetch_committed_offsets([TopicPartition(*at) for at in places])
    return {tuple(at): (said.offset, said.metadata) for at, said in committed.items()}


async def read_ends(consumer: Any, places: Iterable[Place]) -> dict[Place, int]:
    """Return the offset that the next record of each place will get; none without a quick answer.

    One partition without a leader must not hold up a rebalance: the group would expel the member.
    """
    try:
        async with asyncio.timeout(_ENDS_TIMEOUT_S):
            ends = await consumer.end_offsets([TopicPartition(*at) for at in places])
    except (KafkaError, TimeoutError):
        return {}
    return {tuple(at): end for at, end in ends.items()}


async def try_commit(consumer: Any, commits: Mapping[Place, Commit]) -> bool:
    """Commit what is assigned to `consumer`; return False if the group has rebalanced since.

    Waits for the brokers, however long they are away.

    Raises:
        KafkaError: the group or a topic is not ours to commit.
    """
    assigned = consumer.assignment()
    offsets = {
        TopicPartition(*at): OffsetAndMetadata(*commit)
        for at, commit in commits.items()
        if at in assigned
    }
    if not offsets:
        return False
    try:
        await consumer.commit(offsets)
    except CommitFailedError:
        return False
    return True
