"""What the pages show: one frozen snapshot of the process, and who gives it.

Every text in here may come from a producer (error messages, ids, topic names): the pages escape.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from cortex_stream.scheduling.runner_thread import RunnerFigures
from cortex_stream.telemetry.errors_log import RecordedError
from schemas.outcomes import OutcomeKind
from schemas.priority import Lane


class ServiceState(StrEnum):
    """What the process is doing as a whole."""

    STARTING = "starting"  # models load, partitions are not assigned yet
    READY = "ready"  # takes work
    DRAINING = "draining"  # was told to stop: finishes what runs, takes nothing new
    FAILING = "failing"  # cannot take work although it should


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """Who this process is. `brokers` are plain `host:port` pairs without credentials."""

    name: str
    version: str
    instance: str
    state: ServiceState
    started_unix_ms: int
    uptime_s: float
    brokers: str
    group: str
    requests_topic: str = "cortex.requests.medium"  # for the "send your first request" hint


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """One lane. `recent_per_s` is the rate in equal steps, oldest first; empty draws no line.

    `share` is the part of all tokens of the last minute that ran for this lane, from 0 to 1, and
    `worst_wait_s` the longest wait for a runner in that time.

    `shed`: paused because memory is short, for `shed_s` in all since the start; what its requests in
    the process weigh is `held_bytes`.
    """

    lane: Lane
    waiting: int
    running: int
    capacity: int
    rate_per_s: float
    oldest_wait_s: float
    recent_per_s: tuple[float, ...] = ()
    share: float = 0.0
    worst_wait_s: float = 0.0
    shed: bool = False
    shed_s: float = 0.0
    held_bytes: int = 0


@dataclass(frozen=True, slots=True)
class MemoryStatus:
    """How the process stands with its memory.

    `state` is `normal`, `shedding`, `stopped` or `recovering`; `limit_source` is `container`,
    `setting` or `machine`. `held_bytes` is the estimate of what all requests in the process hold,
    of `most_held_bytes` that they may.
    """

    state: str
    used_bytes: int
    limit_bytes: int
    limit_source: str
    held_bytes: int
    most_held_bytes: int


@dataclass(frozen=True, slots=True)
class DedupeStatus:
    """Whether the reuse of request ids for other payloads is noticed.

    `detail` says for how long ids are remembered, or why none are. `off_since_unix_ms`: since Redis
    is left alone because it failed; None when it is on, or left out by the settings.
    """

    on: bool
    detail: str
    off_since_unix_ms: int | None = None


@dataclass(frozen=True, slots=True)
class RetryStatus:
    """How many requests of the retry topics are in the process, and how many retries could follow."""

    waiting: int
    budget_left: float


@dataclass(frozen=True, slots=True)
class CutOverStatus:
    """What was decided that a model's name means, and what it `means` here: `name@version` both."""

    name: str
    wanted: str
    means: str


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One served model version. `padding_ratio` is the share of computed tokens that were padding.

    `padding_ratio` lies in [0, 1]; `digest` is `sha256:` and 64 hex digits. `busy_runners` counts
    those of `runners` that run a batch at this moment. The last batches had `rows_per_batch` rows on
    average, 0 without any. A batch is expected to take `batch_base_ms` and `batch_per_1000_tokens_ms`
    for its padded tokens; `predicted_ratio` is what was expected of the last batches by what they
    took, None without any.
    """

    name: str
    version: str
    digest: str
    task: str
    provider: str
    runners: tuple[RunnerFigures, ...]
    busy_runners: int
    rows_per_s: float
    padding_ratio: float
    rows_per_batch: float = 0.0
    batch_base_ms: float = 0.0
    batch_per_1000_tokens_ms: float = 0.0
    predicted_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """One assigned partition, in offsets. None: not known yet.

    `position` is the next record to take, `committed` the next one after a restart, `highwater`
    the next one a producer will write; `lag` = highwater - committed.
    """

    topic: str
    partition: int
    position: int | None
    committed: int | None
    highwater: int | None
    lag: int | None


@dataclass(frozen=True, slots=True)
class RebalanceStatus:
    """How often partitions were handed out anew, and for how long nothing was taken then."""

    count: int = 0
    last_pause_s: float = 0.0
    worst_pause_s: float = 0.0

    def after(self, pause_s: float) -> "RebalanceStatus":
        """Return the status after one more."""
        return RebalanceStatus(self.count + 1, pause_s, max(self.worst_pause_s, pause_s))


@dataclass(frozen=True, slots=True)
class StatusSnapshot:
    """Everything the status page shows. `errors` are newest first."""

    service: ServiceStatus
    lanes: tuple[LaneStatus, ...]
    models: tuple[ModelStatus, ...]
    partitions: tuple[PartitionStatus, ...]
    errors: tuple[RecordedError, ...]
    outcomes: Mapping[OutcomeKind, int]  # since the process started; a missing kind counts as 0
    versions: Mapping[str, str]  # cortex-stream, python, faust, aiokafka, onnxruntime, kafka
    memory: MemoryStatus | None = None  # None before the worker has looked
    retries: RetryStatus | None = None  # None in a process that answers no requests
    rebalances: RebalanceStatus = RebalanceStatus()
    dedupe: DedupeStatus | None = None  # None in a process that answers no requests
    cut_overs: tuple[CutOverStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether this process takes work; if not, `reasons` say what is missing, for a person."""

    ready: bool
    reasons: tuple[str, ...] = ()


class StatusSource(Protocol):
    """Gives the pages what they show. Called on the event loop: never blocks, never raises."""

    def snapshot(self) -> StatusSnapshot:
        """Return the present state."""
        ...

    def live(self) -> bool:
        """Return False when only a restart can help."""
        ...

    def readiness(self) -> Readiness:
        """Return whether models are warm, partitions assigned, and no outcome waits for a broker."""
        ...
