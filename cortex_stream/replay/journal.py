"""Where each replay stands: its plan and its progress, kept as bookmarks of a group of its own.

The plan is the note at partition 0 of the replay lane's topic; progress is the offset, with a note,
of each partition that is read. Whoever cancels writes the first, the running process the others, so
that neither undoes what the other says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from cortex_stream.clock import Clock
from cortex_stream.delivery.outcome import rfc3339
from cortex_stream.errors import OperatorError
from cortex_stream.kafka.bookmarks import Bookmark, Bookmarks, BookmarkWriter
from cortex_stream.kafka.producer import KafkaProducer
from cortex_stream.kafka.reader import Position
from cortex_stream.record import OutgoingRecord
from cortex_stream.replay.plan import ReplayPlan, State, check_replay_id, read_plan_or_none
from cortex_stream.settings.tree import Settings
from schemas.audit import AuditRecord
from schemas.contract import Count
from schemas.priority import Lane
from topics.names import AUDIT, request_topic

PLAN_AT: Final[Position] = (request_topic(Lane.REPLAY), 0)
GROUPS: Final = "cortex-replay."
_SILENT_MS: Final = 15_000  # a running one writes four times a second
_MOST_SHOWN: Final = 200


class Mark(BaseModel):
    """What is noted with the offset of a partition.

    Attributes:
        records: put back from it so far.
        at_unix_ms: when this was written.
        per_s: how many records of all partitions the process put back a second, lately.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    records: Count
    at_unix_ms: Count
    per_s: float


class Condition(StrEnum):
    """What a replay is doing."""

    RUNNING = "running"
    STOPPED = "stopped"  # can be resumed
    FINISHED = "finished"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Standing:
    """A replay as it stands.

    Attributes:
        next_offsets: where each partition goes on.
        records: put back so far from each partition.
    """

    replay_id: str
    plan: ReplayPlan
    next_offsets: Mapping[int, int]
    records: Mapping[int, int]
    at_unix_ms: int
    per_s: float

    @property
    def done_offsets(self) -> int:
        """How many of the plan's offsets have been read."""
        return sum(
            self.next_offsets.get(each.partition, each.begin) - each.begin
            for each in self.plan.ranges
        )

    @property
    def put_back(self) -> int:
        """How many records have been put back."""
        return sum(self.records.values())

    def condition(self, *, now_unix_ms: int) -> Condition:
        """Return what it is doing."""
        if self.plan.state != "running":
            return Condition(self.plan.state)
        silent = now_unix_ms - self.at_unix_ms > _SILENT_MS
        return Condition.STOPPED if silent else Condition.RUNNING


def group_of(replay_id: str) -> str:
    """Return the name of a replay's group, without the prefix."""
    return f"{GROUPS}{replay_id}"


def read_standing(replay_id: str, bookmarks: Mapping[Position, Bookmark]) -> Standing | None:
    """Return how a replay stands by its bookmarks; None when they are none of ours."""
    plan = read_plan_or_none(bookmarks[PLAN_AT].note) if PLAN_AT in bookmarks else None
    if plan is None:
        return None
    offsets: dict[int, int] = {}
    marks: dict[int, Mark] = {}
    for each in plan.ranges:
        bookmark = bookmarks.get((plan.topic, each.partition))
        if bookmark is None:
            continue
        try:
            marks[each.partition] = Mark.model_validate_json(bookmark.note)
        except ValidationError:
            return None
        offsets[each.partition] = bookmark.offset
    newest = max(marks.values(), key=lambda mark: mark.at_unix_ms, default=None)
    return Standing(
        replay_id=replay_id,
        plan=plan,
        next_offsets=offsets,
        records={partition: mark.records for partition, mark in marks.items()},
        at_unix_ms=plan.started_unix_ms if newest is None else newest.at_unix_ms,
        per_s=0.0 if newest is None else newest.per_s,
    )


async def find_replay_or_none(settings: Settings, replay_id: str) -> Standing | None:
    """Return how a replay stands, or None where there is none of that id.

    Raises:
        OperatorError: no replay can have that id; BrokerUnavailable: no broker answers.
    """
    group = group_of(check_replay_id(replay_id))
    async with Bookmarks(settings) as bookmarks:
        return read_standing(replay_id, await bookmarks.read(group))


async def find_replay(settings: Settings, replay_id: str) -> Standing:
    """Return how a replay stands.

    Raises:
        OperatorError: there is no such replay; BrokerUnavailable: no broker answers.
    """
    found = await find_replay_or_none(settings, replay_id)
    if found is None:
        raise OperatorError(
            f"finding replay {replay_id!r}: there is none, or Kafka has forgotten it (7 days)",
            repair="cortex-stream replay list",
        )
    return found


async def find_replays(settings: Settings) -> Sequence[Standing]:
    """Return how the replays stand that Kafka remembers, newest first; 200 of them at most.

    Asks for each that it remembers, one after the other: those with progress in the last 7 days.

    Raises:
        BrokerUnavailable: no broker answers.
    """
    found = []
    async with Bookmarks(settings) as bookmarks:
        for group in await bookmarks.groups(GROUPS):
            standing = read_standing(group.removeprefix(GROUPS), await bookmarks.read(group))
            if standing is not None:
                found.append(standing)
    found.sort(key=lambda standing: standing.plan.started_unix_ms, reverse=True)
    return found[:_MOST_SHOWN]


async def audit(
    settings: Settings,
    replay_id: str,
    plan: ReplayPlan,
    *,
    action: str,
    principal: str,
    clock: Clock,
) -> None:
    """Write down durably that somebody does this to a replay.

    Raises:
        BrokerUnavailable: no broker answers.
    """
    record = AuditRecord(
        schema_version="cortex.audit.v1",
        at=rfc3339(clock.unix_ms()),
        principal=principal,
        action=f"replay.{action}",
        subject=group_of(replay_id),
        details={
            "topic": plan.topic,
            "from": plan.asked_from,
            "to": plan.asked_to,
            "publish_to": plan.publish_to,
            "model": plan.model,
        },
    )
    async with KafkaProducer(settings) as producer:
        await producer.send(
            OutgoingRecord(AUDIT, principal.encode(), record.model_dump_json().encode())
        )


async def write_state(settings: Settings, replay_id: str, plan: ReplayPlan, state: State) -> None:
    """Keep the plan, with the state that it has from now on.

    Raises:
        OperatorError: the plan is too long; BrokerUnavailable: no broker answers.
    """
    bookmark = Bookmark(0, plan.model_copy(update={"state": state}).note())
    async with BookmarkWriter(settings, group_of(replay_id), [PLAN_AT]) as writer:
        await writer.write({PLAN_AT: bookmark})
