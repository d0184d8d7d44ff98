"""The state of a worker as the pages show it."""

from importlib import metadata
from platform import python_version
from typing import Final, Protocol

from cortex_stream.bootstrap.worker import Worker
from cortex_stream.engine.models import ServedModel
from cortex_stream.telemetry import metrics
from cortex_stream.version import VERSION
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
from topics.names import request_topic

_PACKAGES: Final = ("faust-streaming", "aiokafka", "onnxruntime")


class Edge(Protocol):
    """What only the Kafka edge knows."""

    @property
    def draining(self) -> bool:
        """Whether the process was told to stop."""
        ...

    @property
    def producer_able(self) -> bool:
        """Whether outcomes can be produced."""
        ...

    def partitions(self) -> tuple[PartitionStatus, ...]:
        """Return the assigned partitions; empty before the first assignment."""
        ...


class WorkerStatus:
    """Reads a worker and its edge; the pages' `StatusSource`."""

    def __init__(self, worker: Worker, edge: Edge) -> None:
        self._worker = worker
        self._edge = edge
        metrics.READY.set_function(lambda: self.readiness().ready)

    def live(self) -> bool:
        """Return False when only a restart can help."""
        return self._worker.failure is None

    def readiness(self) -> Readiness:
        """Return whether models are warm, partitions assigned and the producer able."""
        reasons = []
        if self._edge.draining:
            reasons.append("draining: the process was told to stop")
        if self._worker.failure is not None:
            reasons.append(f"failing: {self._worker.failure}")
        if self._worker.models is None:
            reasons.append("models are not loaded yet")
        if not self._edge.partitions():
            reasons.append("no partitions are assigned yet")
        if not self._edge.producer_able:
            reasons.append("the producer cannot reach Kafka")
        return Readiness(not reasons, tuple(reasons))

    def snapshot(self) -> StatusSnapshot:
        """Return the present state."""
        worker = self._worker
        return StatusSnapshot(
            service=self._service(),
            lanes=tuple(self._lane(lane) for lane in Lane),
            models=tuple(_model(served) for served in worker.models or ()),
            partitions=self._edge.partitions(),
            errors=worker.errors.newest(),
            outcomes={kind: _count(kind) for kind in OutcomeKind},
            versions=_versions(),
        )

    def _service(self) -> ServiceStatus:
        worker = self._worker
        if self._edge.draining:
            state = ServiceState.DRAINING
        elif worker.failure is not None:
            state = ServiceState.FAILING
        elif self.readiness().ready:
            state = ServiceState.READY
        else:
            state = ServiceState.STARTING
        return ServiceStatus(
            name="Cortex Stream",
            version=VERSION,
            instance=worker.instance,
            state=state,
            started_unix_ms=worker.started_unix_ms,
            uptime_s=(worker.clock.unix_ms() - worker.started_unix_ms) / 1000,
            brokers=worker.settings.kafka_brokers,
            group=worker.settings.group,
            requests_topic=worker.settings.topic(request_topic(Lane.MEDIUM)),
        )

    def _lane(self, lane: Lane) -> LaneStatus:
        worker = self._worker
        topic = worker.settings.topic(request_topic(lane))
        dispatchers = [served.dispatcher for served in worker.models or ()]
        running = sum(dispatcher.running[lane] for dispatcher in dispatchers)
        oldest_s = [
            enqueued_s
            for dispatcher in dispatchers
            if (enqueued_s := dispatcher.queue.oldest_s(lane)) is not None
        ]
        depth = worker.admission.waiting(topic)
        return LaneStatus(
            lane=lane,
            waiting=max(0, depth - running),
            running=running,
            capacity=worker.admission.capacity(topic),
            rate_per_s=worker.lane_rates.rate_per_s(lane.value),
            oldest_wait_s=worker.clock.monotonic_s() - min(oldest_s) if oldest_s else 0.0,
            recent_per_s=worker.lane_rates.recent_per_s(lane.value),
        )


def _model(served: ServedModel) -> ModelStatus:
    loaded, dispatcher = served.loaded, served.dispatcher
    real, padding = (dispatcher.rates.rate_per_s(kind) for kind in ("real", "padding"))
    return ModelStatus(
        name=loaded.name,
        version=loaded.version,
        digest=loaded.digest,
        task=loaded.task,
        provider=loaded.provider,
        sessions=len(loaded.runners),
        busy_sessions=sum(dispatcher.busy),
        rows_per_s=dispatcher.rates.rate_per_s("rows"),
        padding_ratio=padding / (real + padding) if real else 0.0,
    )


def _count(kind: OutcomeKind) -> int:
    return sum(
        int(sample.value)
        for metric in metrics.OUTCOMES.collect()
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.labels["kind"] == kind.value
    )


def _versions() -> dict[str, str]:
    found = {"cortex-stream": VERSION, "python": python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
