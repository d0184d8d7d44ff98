"""Snapshots of a worker in the states an operator meets."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cortex_stream.scheduling.health import RunnerState
from cortex_stream.scheduling.runner_thread import RunnerFigures
from cortex_stream.telemetry.errors_log import RecordedError
from cortex_stream.web.status import (
    LaneStatus,
    ModelStatus,
    PartitionStatus,
    Readiness,
    ServiceState,
    ServiceStatus,
    StatusSnapshot,
)
from schemas.outcomes import OutcomeKind
from schemas.priority import Lane

_STARTED_UNIX_MS = 1_700_000_000_000
_UPTIME_S = 187_422.0
_VERSIONS = {
    "cortex-stream": "0.1.0",
    "python": "3.11.7",
    "faust": "0.15.3",
    "aiokafka": "0.14.0",
    "onnxruntime": "1.31.0",
}


@dataclass
class FixedSource:
    """A status source that says what the test wants."""

    status: StatusSnapshot
    is_ready: Readiness
    is_live: bool = True

    def snapshot(self) -> StatusSnapshot:
        return self.status

    def readiness(self) -> Readiness:
        return self.is_ready

    def live(self) -> bool:
        return self.is_live


def busy() -> FixedSource:
    """Return a worker under load, with one full lane and a few failures behind it."""
    lanes = (
        _lane(Lane.CRITICAL, waiting=0, running=2, capacity=1000, peak=18),
        _lane(Lane.HIGH, waiting=14, running=6, capacity=1000, peak=96, oldest_wait_s=0.085),
        _lane(Lane.MEDIUM, waiting=5000, running=24, capacity=5000, peak=312, oldest_wait_s=12.4),
        _lane(Lane.LOW, waiting=2204, running=3, capacity=10000, peak=41, oldest_wait_s=190),
        _lane(Lane.REPLAY, waiting=0, running=0, capacity=1000, peak=0),
    )
    models = (
        ModelStatus(
            name="minilm",
            version="1",
            digest="sha256:" + "3fa91c07" * 8,
            task="embed",
            provider="CPUExecutionProvider",
            runners=_runners(2, busy_share=0.97),
            busy_runners=2,
            rows_per_s=418.2,
            padding_ratio=0.118,
            rows_per_batch=5.2,
        ),
        ModelStatus(
            name="bge-small",
            version="2",
            digest="sha256:" + "b02d55e9" * 8,
            task="embed",
            provider="CPUExecutionProvider",
            runners=_runners(2, busy_share=0.0),
            busy_runners=0,
            rows_per_s=3.4,
            padding_ratio=0.004,
        ),
    )
    partitions = tuple(
        PartitionStatus(
            topic=f"cortex.requests.{lane}",
            partition=number,
            position=end - 12 * number,
            committed=end - 15 * number,
            highwater=end,
            lag=15 * number,
        )
        for lane, end in (("critical", 20_410), ("high", 1_204_113), ("medium", 98_442_007))
        for number in range(4)
    )
    errors = (
        _error(
            3, "invalid_field", "data.texts: 300 texts, at most 256 are allowed in one request.", 77
        ),
        _error(
            58, "unknown_model", "The model 'minilm@9' is not served here; minilm@1 is.", 1_204_001
        ),
        _error(4_300, "inference_failed", "The model run failed after 3 attempts: bad output.", 12),
    )
    return FixedSource(
        _snapshot(
            ServiceState.READY,
            lanes=lanes,
            models=models,
            partitions=partitions,
            errors=errors,
            outcomes={
                OutcomeKind.RESULT: 1_284_113,
                OutcomeKind.REJECTED: 40_212,
                OutcomeKind.EXPIRED: 9_310,
                OutcomeKind.DEAD_LETTER: 17,
            },
        ),
        Readiness(ready=True),
    )


def fresh() -> FixedSource:
    """Return a worker that has just started and knows nothing yet."""
    return FixedSource(
        _snapshot(ServiceState.READY, lanes=tuple(_lane(lane) for lane in Lane)),
        Readiness(ready=True),
    )


def failing() -> FixedSource:
    """Return a worker whose broker and model are gone."""
    reasons = (
        "No broker answers at 127.0.0.1:9092 (for 41 s). Is Kafka running? cortex-stream stack up",
        "The model minilm@1 is not loaded: its digest is not the one in model.yaml.",
    )
    source = busy()
    return FixedSource(
        _snapshot(
            ServiceState.FAILING,
            lanes=tuple(_lane(lane) for lane in Lane),
            errors=(_error(2, "broker_unavailable", "No broker answers.", None),),
            outcomes=source.status.outcomes,
        ),
        Readiness(ready=False, reasons=reasons),
        is_live=False,
    )


def in_state(state: ServiceState) -> FixedSource:
    """Return a worker that is not ready because it is in `state`."""
    reason = "The model minilm@1 is warming up."
    return FixedSource(_snapshot(state), Readiness(ready=False, reasons=(reason,)))


def hostile(text: str) -> FixedSource:
    """Return a worker in which every text that anybody outside can choose is `text`."""
    error = RecordedError(
        at_unix_ms=_STARTED_UNIX_MS,
        code=text,
        message=text,
        request_id=text,
        topic=text,
        partition=0,
        offset=0,
    )
    model = ModelStatus(
        name=text,
        version=text,
        digest=text,
        task=text,
        provider=text,
        runners=_runners(1, busy_share=0.0),
        busy_runners=0,
        rows_per_s=0,
        padding_ratio=0,
    )
    partition = PartitionStatus(
        topic=text, partition=0, position=None, committed=None, highwater=None, lag=None
    )
    return FixedSource(
        _snapshot(
            ServiceState.FAILING,
            name=text,
            models=(model,),
            partitions=(partition,),
            errors=(error,),
        ),
        Readiness(ready=False, reasons=(text,)),
    )


def _snapshot(
    state: ServiceState,
    *,
    name: str = "Cortex Stream",
    lanes: tuple[LaneStatus, ...] = (),
    models: tuple[ModelStatus, ...] = (),
    partitions: tuple[PartitionStatus, ...] = (),
    errors: tuple[RecordedError, ...] = (),
    outcomes: Mapping[OutcomeKind, int] | None = None,
) -> StatusSnapshot:
    return StatusSnapshot(
        service=ServiceStatus(
            name=name,
            version="0.1.0",
            instance=f"{name.lower().replace(' ', '-')}-worker-0",
            state=state,
            started_unix_ms=_STARTED_UNIX_MS,
            uptime_s=_UPTIME_S,
            brokers="127.0.0.1:9092",
            group="cortex-stream",
        ),
        lanes=lanes,
        models=models,
        partitions=partitions,
        errors=errors,
        outcomes=outcomes or {},
        versions=_VERSIONS,
    )


def _lane(
    lane: Lane,
    *,
    waiting: int = 0,
    running: int = 0,
    capacity: int = 1000,
    peak: float = 0,
    oldest_wait_s: float = 0,
) -> LaneStatus:
    recent = tuple(
        max(0.0, peak * (0.6 + 0.3 * math.sin(second / 9 + peak) + 0.1 * math.sin(second * peak)))
        for second in range(60)
    )
    return LaneStatus(
        lane=lane,
        waiting=waiting,
        running=running,
        capacity=capacity,
        rate_per_s=sum(recent[-10:]) / 10,
        oldest_wait_s=oldest_wait_s,
        recent_per_s=recent,
    )


def _runners(count: int, *, busy_share: float) -> tuple[RunnerFigures, ...]:
    return tuple(
        RunnerFigures(
            name=str(number),
            state=RunnerState.HEALTHY,
            busy_share=busy_share,
            runs=1_204_511,
            failures=number,
        )
        for number in range(count)
    )


def _error(age_s: float, code: str, message: str, offset: int | None) -> RecordedError:
    return RecordedError(
        at_unix_ms=_STARTED_UNIX_MS + round((_UPTIME_S - age_s) * 1000),
        code=code,
        message=message,
        request_id=None if offset is None else f"order-{offset}-embed",
        topic=None if offset is None else "cortex.requests.medium",
        partition=None if offset is None else 2,
        offset=offset,
    )
