"""What a replay is to do, as values: where it begins and ends, what it picks, how fast. Pure.

The plan is kept as the note of a committed offset, which Kafka limits to 4096 bytes.
"""

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cortex_stream.errors import OperatorError
from schemas.contract import Count
from schemas.requests import ModelReference

MAX_AHEAD_MS: Final = 60_000
"""How far ahead a producer's clock may be for a replay by time to find all of its records."""
_MAX_NOTE_BYTES: Final = 4096  # `offset.metadata.max.bytes` of the broker, as it comes
_OFFSETS: Final = re.compile(r"\d+:\d+(,\d+:\d+)*")
_REPLAY_ID: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,47}")

PublishTo: TypeAlias = Literal["results", "replays"]
State: TypeAlias = Literal["running", "finished", "cancelled"]


@dataclass(frozen=True, slots=True)
class Moment:
    """A bound that counts by the records' timestamps."""

    unix_ms: int


@dataclass(frozen=True, slots=True)
class Offsets:
    """A bound by partition. Partitions that a beginning leaves out are not read."""

    by_partition: Mapping[int, int]


Bound: TypeAlias = Literal["earliest", "latest"] | Moment | Offsets


class Found(NamedTuple):
    """The first record at or after a moment."""

    offset: int
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Partition:
    """What the broker says about a partition; what it found is None when there is no such record.

    Attributes:
        begins: the oldest offset that is still kept.
        ends: the offset that the next record will get.
        first: the first record at or after the beginning, where that is a moment.
        last: the first record `MAX_AHEAD_MS` or more after the end, where that is a moment.
    """

    begins: int
    ends: int
    first: Found | None = None
    last: Found | None = None


class Range(NamedTuple):
    """The offsets of one partition, from `begin` to before `end`."""

    partition: int
    begin: int
    end: int


class ReplayPlan(BaseModel):
    """Everything that a replay goes on from after a kill, apart from how far it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    topic: str
    asked_from: str
    asked_to: str
    ranges: tuple[Range, ...]
    since_ms: int | None = None
    until_ms: int | None = None
    types: tuple[str, ...] = ()
    filters: tuple[tuple[str, str], ...] = ()
    model: ModelReference | None = None
    rate_per_s: float | None = Field(None, gt=0)
    publish_to: PublishTo = "replays"
    started_unix_ms: Count
    state: State = "running"

    @property
    def offsets(self) -> int:
        """How many offsets are to be read."""
        return sum(each.end - each.begin for each in self.ranges)

    def differences(self, other: "ReplayPlan") -> list[str]:
        """Return the names of the options in which `other` asks for another replay."""
        names = {
            "topic": "--topic",
            "asked_from": "--from",
            "asked_to": "--to",
            "types": "--type",
            "filters": "--filter",
            "model": "--model",
            "publish_to": "--publish-to",
        }
        return [
            option for name, option in names.items() if getattr(self, name) != getattr(other, name)
        ]

    def note(self) -> str:
        """Return the plan as it is kept.

        Raises:
            OperatorError: it is too long for Kafka.
        """
        note = self.model_dump_json(exclude_defaults=True)
        if (size_bytes := len(note.encode())) > _MAX_NOTE_BYTES:
            raise OperatorError(
                f"keeping the plan: it has {size_bytes} bytes, Kafka takes {_MAX_NOTE_BYTES}",
                repair="use fewer or shorter --type and --filter",
            )
        return note


def draft_plan(**options: object) -> ReplayPlan:
    """Return a plan without ranges from options as people give them.

    Raises:
        OperatorError: one of them is wrong.
    """
    try:
        return ReplayPlan.model_validate({"ranges": (), **options})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        option = str(first["loc"][0]).partition("_")[0]
        raise OperatorError(f"reading --{option}: {first['msg']}") from None


def read_plan_or_none(note: str) -> ReplayPlan | None:
    """Return the plan in a note, or None when the note is none of ours."""
    try:
        return ReplayPlan.model_validate_json(note)
    except ValidationError:
        return None


def check_replay_id(replay_id: str) -> str:
    """Return a replay id that may be part of the name of a group.

    Raises:
        OperatorError: it may not.
    """
    if not _REPLAY_ID.fullmatch(replay_id):
        raise OperatorError(
            f"naming the replay {replay_id[:64]!r}: 1 to 48 characters of a-z 0-9 . _ -, the first"
            " a letter or digit"
        )
    return replay_id


def parse_bound(text: str, *, option: str) -> Bound:
    """Return the bound that `text` names: an edge, an RFC 3339 time, or offsets by partition.

    Raises:
        OperatorError: it names none.
    """
    if text == "earliest":
        return "earliest"
    if text == "latest":
        return "latest"
    if _OFFSETS.fullmatch(text):
        pairs = [each.split(":") for each in text.split(",")]
        return Offsets({int(partition): int(offset) for partition, offset in pairs})
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise OperatorError(
            f"reading {option} {text[:64]!r}: wanted earliest, latest, a time with its offset such"
            " as 2026-01-31T12:00:00Z, or offsets by partition such as 0:1500,1:1200"
        )
    return Moment(max(0, round(moment.timestamp() * 1000)))


def decide_ranges(
    begin: Bound, end: Bound, partitions: Mapping[int, Partition], *, now_unix_ms: int
) -> tuple[Range, ...]:
    """Return what to read of each partition; partitions with nothing to read are left out.

    By time, the offsets are those between which records of that time can lie; each record's own
    timestamp then decides (`ReplayPlan.since_ms`, `until_ms`).

    Raises:
        OperatorError: a partition is named that the topic has not.
    """
    for bound in (begin, end):
        unknown = set(bound.by_partition) - set(partitions) if isinstance(bound, Offsets) else ()
        if unknown:
            raise OperatorError(
                f"reading the bounds: the topic has no partition {min(unknown)}; it has"
                f" {len(partitions)}, from 0"
            )
    found = []
    for index, partition in sorted(partitions.items()):
        if isinstance(begin, Offsets) and index not in begin.by_partition:
            continue
        first = max(partition.begins, _begin(begin, index, partition))
        last = min(partition.ends, _end(end, index, partition, now_unix_ms=now_unix_ms))
        if first < last:
            found.append(Range(index, first, last))
    return tuple(found)


def expired_records(begin: Bound, partitions: Mapping[int, Partition]) -> int:
    """Return how many of the offsets that were asked for by number are kept no longer."""
    if not isinstance(begin, Offsets):
        return 0
    return sum(
        max(0, partitions[index].begins - offset) for index, offset in begin.by_partition.items()
    )


def _begin(bound: Bound, index: int, partition: Partition) -> int:
    if isinstance(bound, Moment):
        return partition.ends if partition.first is None else partition.first.offset
    if isinstance(bound, Offsets):
        return bound.by_partition[index]
    return partition.begins if bound == "earliest" else partition.ends


def _end(bound: Bound, index: int, partition: Partition, *, now_unix_ms: int) -> int:
    if isinstance(bound, Moment):
        last = partition.last
        # A record from the future says nothing about what lies behind it.
        believed = last is not None and last.timestamp_ms <= now_unix_ms + MAX_AHEAD_MS
        return last.offset if last is not None and believed else partition.ends
    if isinstance(bound, Offsets):
        return bound.by_partition.get(index, partition.ends)
    return partition.begins if bound == "earliest" else partition.ends
