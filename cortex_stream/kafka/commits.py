"""What a group has committed, the texts beside the offsets included.

A text is committed with its offset, in one step, and nobody else can read one without the other.

Owner: the thread that runs the aiokafka consumer; all of these must be awaited there.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from aiokafka.errors import (
    IllegalGenerationError,
    KafkaError,
    NoError,
    NotCoordinatorForGroupError,
    RebalanceInProgressError,
    UnknownMemberIdError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.structs import OffsetAndMetadata, TopicPartition

Place = tuple[str, int]
"""A topic, as the cluster names it, and a partition."""
Commit = tuple[int, str]
"""An offset and a text."""
_ENDS_TIMEOUT_S: Final = 2.0  # of the session timeout, 10 s unless set
_ASK_AGAIN_S: Final = 0.1


class Membership(NamedTuple):
    """What a consumer commits as: one assignment of one member in one generation of its group.

    Attributes:
        assignment: aiokafka's object, equal to itself alone.
    """

    generation: int
    member_id: str
    assignment: Any


async def read_commits(consumer: Any, places: Iterable[Place]) -> dict[Place, Commit]:
    """Return the last commits of the group of `consumer`; places without one are left out.

    Waits for the brokers, however long they are away, and for a coordinator that still loads.

    Raises:
        KafkaError: the group is not ours to read.
    """
    partitions = defaultdict(list)
    for topic, partition in places:
        partitions[topic].append(partition)
    coordinator = consumer._coordinator  # noqa: SLF001 (`committed` gives no texts)
    request = OffsetFetchRequest(coordinator.group_id, list(partitions.items()))
    while partitions:
        await coordinator.ensure_coordinator_known()
        try:
            return commits_told(await coordinator._send_req(request))  # noqa: SLF001
        except KafkaError as error:
            if not error.retriable:
                raise
            if isinstance(error, NotCoordinatorForGroupError):
                coordinator.coordinator_dead()
        await asyncio.sleep(_ASK_AGAIN_S)
    return {}


def commits_told(response: Any) -> dict[Place, Commit]:
    """Return the commits in an answer to OffsetFetch; places without one are left out.

    aiokafka overlooks what it says of the group as a whole, such as that its coordinator still loads:
    then it holds no partitions, as if nothing had ever been committed.

    Raises:
        KafkaError: of the group or of a partition; `retriable` where one may ask again.
    """
    told = [(topic, *each) for topic, partitions in response.topics for each in partitions]
    for code in (response.error_code, *(each[-1] for each in told)):
        if code not in {NoError.errno, UnknownTopicOrPartitionError.errno}:
            raise for_code(code)
    return {
        (topic, partition): (offset, text)
        for topic, partition, offset, text, _ in told
        if offset >= 0
    }


async def seek_to(consumer: Any, offsets: Mapping[Place, int]) -> None:
    """Read on from `offsets`, of the places that are still assigned.

    The client asks for its positions by itself, and a coordinator that has just come back may tell it
    of fewer commits: it would begin where the log begins, and commit so.
    """
    assignment = _membership(consumer).assignment
    for place, offset in offsets.items():
        at = TopicPartition(*place)
        state = assignment.state_value(at) if assignment and at in assignment.tps else None
        if state is not None and not (state.has_valid_position and state.position == offset):
            consumer.seek(at, offset)


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


async def read_membership(consumer: Any) -> Membership:
    """Return what `consumer` may commit as now."""
    return _membership(consumer)


async def try_commit(consumer: Any, member: Membership, commits: Mapping[Place, Commit]) -> bool:
    """Commit as `member`; return False if `consumer` is that no longer.

    Waits for the brokers, however long they are away, but not beyond the membership. So whoever waits
    may give up: what he leaves behind never undoes what the next owner commits.

    Raises:
        KafkaError: the group or a topic is not ours to commit.
    """
    committing = asyncio.ensure_future(_commit(consumer, member, commits))
    ended = member.assignment.unassign_future
    try:
        await asyncio.wait([committing, ended], return_when=asyncio.FIRST_COMPLETED)
    finally:
        committing.cancel()  # nothing, where it is done
    await asyncio.wait([committing])
    return not committing.cancelled() and committing.result()


async def _commit(consumer: Any, member: Membership, commits: Mapping[Place, Commit]) -> bool:
    """Do as `AIOKafkaConsumer.commit`, which tries again as whatever member it has become."""
    coordinator = consumer._coordinator  # noqa: SLF001
    offsets = {TopicPartition(*at): OffsetAndMetadata(*commit) for at, commit in commits.items()}
    while True:
        await coordinator.ensure_coordinator_known()
        if _membership(consumer) != member:
            return False
        try:
            # Signed before it suspends for the first time, so as `member`.
            await coordinator._do_commit_offsets(member.assignment, offsets)  # noqa: SLF001
        except (IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError):
            return False
        except KafkaError as error:
            if not error.retriable:
                raise
            await asyncio.sleep(_ASK_AGAIN_S)
        else:
            return True


def _membership(consumer: Any) -> Membership:
    coordinator, subscriptions = consumer._coordinator, consumer._subscription  # noqa: SLF001
    subscription = subscriptions.subscription
    assignment = subscription and subscription.assignment
    return Membership(coordinator.generation, coordinator.member_id, assignment)
