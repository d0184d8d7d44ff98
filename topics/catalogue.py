"""Every topic of the system: what it holds, who writes it, how long it is kept and why.

`cortex-stream topics plan|apply` compares this catalogue with a cluster; `docs/asyncapi.yaml` and
`docs/reference/topics.md` are generated from it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from schemas.priority import Lane, Priority
from topics import names

Profile = Literal["dev", "prod"]
CleanupPolicy = Literal["delete", "compact", "compact,delete"]

_HOUR_MS: Final = 60 * 60 * 1000
_DAY_MS: Final = 24 * _HOUR_MS

RETENTION_CONFIG: Final = "retention.ms"
_OLDEST_CONFIG: Final = "message.timestamp.before.max.ms"
_NEWEST_CONFIG: Final = "message.timestamp.after.max.ms"
NEW_CONFIGS: Final = frozenset({_OLDEST_CONFIG, _NEWEST_CONFIG})
"""Settings that Kafka has since 3.6. Everything works on a broker that does not know them."""
OPERATOR_CONFIGS: Final = frozenset({RETENTION_CONFIG, *NEW_CONFIGS})
"""Settings that operators may choose for a topic: no promise of a worker depends on them."""
LARGE_BYTES: Final = 8 << 20
"""A request may weigh 1 MiB and its answer or its dead letter several times that."""
SMALL_BYTES: Final = 1 << 20
"""Kafka's own default, written down so that a cluster with another default cannot differ."""


class Direction(StrEnum):
    """Which way records cross the border of Cortex Stream."""

    IN = "in"
    OUT = "out"
    BOTH = "in and out"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class PartitionCount:
    """How many partitions a topic has, by profile."""

    dev: int
    prod: int


PARALLEL: Final = PartitionCount(dev=4, prod=12)
"""Divides evenly among 1, 2, 3, 4, 6 or 12 workers."""
QUIET: Final = PartitionCount(dev=1, prod=3)
"""For topics whose readers never need to scale."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic.

    Attributes:
        name: without the prefix of an environment.
        key: what the record's key is.
        holds: what the records are, for people.
        written_by: who produces.
        messages: names of the schemas of its records in `schemas/json/`; empty when the value is
            not JSON of ours, or not yet.
        retention_ms: how long records are kept; None keeps the newest of each key for ever.
        kept_because: the reason for that.
        max_message_bytes: largest record batch, as compressed.
        log_append_time: records carry the broker's clock instead of the producer's.
        key_bound: readers rely on equal keys sharing a partition, so that partitions can only be
            added by moving to a new topic.
        split: needed only where the stages are split among kinds of workers.
        planned: belongs to a later release; described, never created.
    """

    name: str
    direction: Direction
    key: str
    holds: str
    written_by: str
    messages: tuple[str, ...]
    retention_ms: int | None
    kept_because: str
    partition_count: PartitionCount = PARALLEL
    cleanup_policy: CleanupPolicy = "delete"
    max_message_bytes: int = SMALL_BYTES
    log_append_time: bool = False
    key_bound: bool = False
    split: bool = False
    planned: bool = False

    def partitions(self, profile: Profile) -> int:
        """Return how many partitions the topic has."""
        return self.partition_count.dev if profile == "dev" else self.partition_count.prod

    def config(self, profile: Profile) -> dict[str, str]:
        """Return the topic's configuration, as Kafka names and writes it."""
        config = {
            "cleanup.policy": self.cleanup_policy,
            "max.message.bytes": str(self.max_message_bytes),
            "message.timestamp.type": "LogAppendTime" if self.log_append_time else "CreateTime",
            "min.insync.replicas": str(min_insync_replicas(profile)),
        }
        if self.retention_ms is not None:
            config[RETENTION_CONFIG] = str(self.retention_ms)
            if self.direction is Direction.IN:
                # Retention goes by the producer's clock. What would be deleted unread within
                # minutes is refused instead, so that its sender learns of it.
                config[_OLDEST_CONFIG] = str(self.retention_ms)
                config[_NEWEST_CONFIG] = str(_HOUR_MS)  # Kafka's own default since 4.0
        return config


def replication(profile: Profile) -> int:
    """Return how many brokers hold each partition."""
    return 1 if profile == "dev" else 3


def min_insync_replicas(profile: Profile) -> int:
    """Return how many of them must have a record before it counts as durable.

    2 of 3: one broker may fail and writing goes on; none that confirmed is ever the only one.
    """
    return 1 if profile == "dev" else 2


_REQUEST_MESSAGES: Final = ("embed-request.v1", "classify-request.v1")
_A_WEEK: Final = "an outage over a long weekend still loses nothing, and a week can be replayed"


def _lane(lane: Lane) -> TopicSpec:
    replay = lane is Lane.REPLAY
    return TopicSpec(
        name=names.request_topic(lane),
        direction=Direction.INTERNAL if replay else Direction.IN,
        key="as the source record" if replay else "the caller's choice",
        holds=(
            "requests put back by a replay, served from idle capacity"
            if replay
            else f"requests of priority {lane.value}; ACLs on it decide who may use the priority"
        ),
        written_by="the replay command" if replay else "any Kafka client",
        messages=_REQUEST_MESSAGES,
        retention_ms=7 * _DAY_MS,
        kept_because=_A_WEEK,
        max_message_bytes=LARGE_BYTES,
    )


def _outcomes(name: str, *, holds: str) -> TopicSpec:
    return TopicSpec(
        name=name,
        direction=Direction.OUT,
        key="request id; outcome id where none could be read",
        holds=holds,
        written_by="Cortex Stream",
        messages=("outcome.v1",),
        retention_ms=7 * _DAY_MS,
        kept_because="as long as the requests, so that every kept request has a kept outcome",
        max_message_bytes=LARGE_BYTES,
        log_append_time=True,  # minus the request's timestamp: the latency, read from the log alone
        key_bound=True,  # the first record of an outcome id *in its partition* is the outcome
    )


def _retry(retry: int) -> TopicSpec:
    return TopicSpec(
        name=names.retry_topic(retry),
        direction=Direction.INTERNAL,
        key="as the source record",
        holds=f"requests waiting for retry {retry}; one delay per topic keeps them in due order",
        written_by="Cortex Stream",
        messages=_REQUEST_MESSAGES,
        retention_ms=7 * _DAY_MS,
        kept_because="a waiting request is a request: as long as the lanes",
        max_message_bytes=LARGE_BYTES,
    )


def _stage(stage: str, lane: Lane, *, planned: bool = False) -> TopicSpec:
    return TopicSpec(
        name=names.stage_topic(stage, lane),
        direction=Direction.INTERNAL,
        key="as the source record",
        holds=f"work items of lane {lane.value} handed to the workers that host {stage}",
        written_by="Cortex Stream, where stages are split",
        messages=(),
        retention_ms=7 * _DAY_MS,
        kept_because="a handed-over work item is a request: as long as the lanes",
        max_message_bytes=LARGE_BYTES,
        split=True,
        planned=planned,
    )


def _set_back(lane: Lane) -> TopicSpec:
    return TopicSpec(
        name=names.stage_topic(names.VALIDATION, lane),
        direction=Direction.INTERNAL,
        key="as the source record",
        holds=(
            f"requests of lane {lane.value} to be read again: their tenant holds too much of it, or a"
            " dead letter was redriven"
        ),
        written_by="Cortex Stream",
        messages=(),
        retention_ms=7 * _DAY_MS,
        kept_because="a request that was set back is a request: as long as the lanes",
        max_message_bytes=LARGE_BYTES,
    )


CATALOGUE: Final[tuple[TopicSpec, ...]] = (
    *(_lane(lane) for lane in Lane),
    TopicSpec(
        name=names.EVENTS,
        direction=Direction.IN,
        key="subject",
        holds="domain events; events of one subject take effect in order",
        written_by="Lake, Stream and Forge",
        messages=(
            "document-changed.v1",
            "document-deleted.v1",
            "model-published.v1",
            "stream-event.v1",
        ),
        retention_ms=7 * _DAY_MS,
        kept_because=_A_WEEK,
        key_bound=True,  # order per subject is order within a partition
    ),
    _outcomes(names.RESULTS, holds="the one outcome of every request"),
    _outcomes(
        names.REPLAYS,
        holds="outcomes of replays; readers of the live results never see them",
    ),
    TopicSpec(
        name=names.INVALIDATIONS,
        direction=Direction.BOTH,
        key="`<scope>:<value>`",
        holds="what every cache must forget",
        written_by="Cortex Stream and the siblings",
        messages=("invalidation.v1",),
        retention_ms=_DAY_MS,
        kept_because="no cache keeps an entry longer, so older ones have nothing left to remove",
        partition_count=QUIET,  # every cache reads all of it anyway
    ),
    TopicSpec(
        name=names.LAKE_VECTORS,
        direction=Direction.OUT,
        key="subject",
        holds="the latest vectors of each subject; a later record replaces an earlier one",
        written_by="Cortex Stream",
        messages=("lake-vector.v1",),
        retention_ms=30 * _DAY_MS,
        kept_because=(
            "who catches up needs only the newest of a subject (compact); Lake is the store, so"
            " nothing of a deleted document may stay here for ever (delete)"
        ),
        cleanup_policy="compact,delete",
        max_message_bytes=LARGE_BYTES,
        key_bound=True,  # compaction works within a partition
    ),
    TopicSpec(
        name=names.STREAM_INSIGHTS,
        direction=Direction.OUT,
        key="subject",
        holds="real-time insights derived from events",
        written_by="Cortex Stream",
        messages=(),
        retention_ms=7 * _DAY_MS,
        kept_because="insights age quickly; a week covers an outage of their reader",
        key_bound=True,
        planned=True,
    ),
    TopicSpec(
        name=names.FORGE_FEEDBACK,
        direction=Direction.OUT,
        key="subject",
        holds="feedback for training",
        written_by="Cortex Stream",
        messages=(),
        retention_ms=30 * _DAY_MS,
        kept_because="training runs collect it in batches, weeks apart",
        partition_count=QUIET,
        planned=True,
    ),
    TopicSpec(
        name=names.DEAD_LETTERS,
        direction=Direction.OUT,
        key="as the source record",
        holds="records that failed, with their original bytes and headers",
        written_by="Cortex Stream",
        messages=(),
        retention_ms=30 * _DAY_MS,
        kept_because="evidence: time for people to look, mend and send again",
        partition_count=QUIET,
        max_message_bytes=LARGE_BYTES,
    ),
    TopicSpec(
        name=names.AUDIT,
        direction=Direction.OUT,
        key="principal",
        holds="decisions: who did what to models, data and configuration",
        written_by="Cortex Stream",
        messages=("audit.v1",),
        retention_ms=90 * _DAY_MS,
        kept_because="the platform demands 90 days",
        partition_count=QUIET,
    ),
    TopicSpec(
        name=names.ATTEMPTS,
        direction=Direction.INTERNAL,
        key="`<topic>/<partition>/<offset>` of the source record",
        holds="deliveries of records that may have ended a worker, counted before they run again",
        written_by="Cortex Stream",
        messages=(),
        retention_ms=7 * _DAY_MS,
        kept_because=(
            "the end of a record removes its count (compact); what a crash left behind goes with the"
            " record itself (delete)"
        ),
        cleanup_policy="compact,delete",
        key_bound=True,
    ),
    TopicSpec(
        name=names.MODELS,
        direction=Direction.INTERNAL,
        key="the model's name",
        holds="which version a model's name means; every worker reads all of it, and follows",
        written_by="the replay command; ACLs on it decide who may switch",
        messages=("cut-over.v1",),
        retention_ms=None,
        kept_because="a worker that starts in a year must know what was decided",
        partition_count=QUIET,
        cleanup_policy="compact",
        key_bound=True,
    ),
    *(_retry(retry) for retry in range(1, names.RETRIES + 1)),
    *(_set_back(Lane(priority)) for priority in Priority),
    *(_stage(stage, lane) for stage in names.HANDOVER_STAGES for lane in Lane),
    *(
        _stage(stage, lane, planned=True)
        for stage in names.PLANNED_HANDOVER_STAGES
        for lane in Lane
    ),
)

CURRENT: Final = tuple(spec for spec in CATALOGUE if not spec.planned)
"""The topics that this release creates and uses."""

FUSED: Final = tuple(spec for spec in CURRENT if not spec.split)
"""Those that it needs where every worker hosts every stage."""


def needed_topics(*, split: bool) -> tuple[TopicSpec, ...]:
    """Return the topics that a system of this release needs."""
    return CURRENT if split else FUSED
