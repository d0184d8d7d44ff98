"""Priorities, which callers name, and lanes, in which work waits."""

from enum import StrEnum


class Priority(StrEnum):
    """How urgent a request is, most urgent first."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Lane(StrEnum):
    """The queue of one priority, and `replay`, which is served from idle capacity only."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    REPLAY = "replay"


_URGENCY = {lane: rank for rank, lane in enumerate(Lane)}


def effective_lane(*, lane: Lane, priority: Priority | None) -> Lane:
    """Return the lane a request waits in: its topic's lane is the ceiling, `priority` may lower it.

    Kafka ACLs decide who may write to which lane's topic, so a field of the message must never
    raise what the topic grants.
    """
    if priority is None or lane is Lane.REPLAY:
        return lane
    wanted = Lane(priority.value)
    return max(lane, wanted, key=_URGENCY.__getitem__)
