"""The state of a worker as the pages show it."""

from importlib import metadata
from platform import python_version
from typing import Final, Protocol

from cortex_stream.bootstrap.bounds import lane_topics
from cortex_stream.bootstrap.worker import Worker
from cortex_stream.engine.models import ServedModel
from cortex_stream.telemetry import metrics
from cortex_stream.version import VERSION
from cortex_stream.web.status import (
    LaneStatus,
    MemoryStatus,
    ModelStatus,
    PartitionStatus,
    Readiness,
    RebalanceStatus,
    RetryStatus,
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
    def obstacles(self) -> tuple[str, ...]:
        """Why outcomes cannot be produced, a line for each reason."""
        ...

    def partitions(self) -> tuple[PartitionStatus, ...]:
        """Return the assigned partitions; empty before the first assignment."""
        ...

    @property
    def stalls(self) -> tuple[str, ...]:
        """What does not get on although it should, a line for each reason."""
        ...

    @property
    def rebalances(self) -> RebalanceStatus:
        """How often partitions were handed out anew since the start."""
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
        """Return whether models are warm, partitions assigned and outcomes durable in time."""
        reasons = []
        if self._edge.draining:
            reasons.append("draining: the process was told to stop")
        if self._worker.failure is not None:
            reasons.append(f"failing: {self._worker.failure}")
        if self._worker.models is None:
            reasons.append("models are not loaded yet")
        reasons.extend(self._unserved())
        if not self._edge.partitions():
            reasons.append("no partitions are assigned yet")
        reasons.extend(self._edge.obstacles)
        reasons.extend(self._edge.stalls)
        if self._worker.memory.pressure.stopped:
            reasons.append("memory is short: nothing is taken in until some is free")
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
            memory=self._memory(),
            dedupe=worker.dedupe.status(),
            retries=RetryStatus(worker.retries_waiting(), worker.retry_budget_left()),
            rebalances=self._edge.rebalances,
            cut_overs=worker.cut_overs.status(),
            versions=_versions(),
        )

    def _service(self) -> ServiceStatus:
        worker = self._worker
        if self._edge.draining:
            state = ServiceState.DRAINING
        elif self._fails():
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

    def _fails(self) -> bool:
        worker = self._worker
        broken = worker.failure is not None or worker.memory.pressure.stopped
        return broken or bool(self._unserved()) or bool(self._edge.stalls)

    def _unserved(self) -> list[str]:
        """Return why models cannot run, one reason for each that cannot."""
        reasons = (served.dispatcher.unserved for served in self._worker.models or ())
        return [reason for reason in reasons if reason is not None]

    def _lane(self, lane: Lane) -> LaneStatus:
        worker = self._worker
        topics = lane_topics(worker.settings, lane)
        dispatchers = [served.dispatcher for served in worker.models or ()]
        running = sum(dispatcher.running[lane] for dispatcher in dispatchers)
        oldest_s = [
            enqueued_s
            for dispatcher in dispatchers
            if (enqueued_s := dispatcher.queue.oldest_s(lane)) is not None
        ]
        depth = worker.lane_depth(lane)
        return LaneStatus(
            lane=lane,
            waiting=max(0, depth - running),
            running=running,
            capacity=worker.lane_capacity(lane),
            rate_per_s=worker.lane_rates.rate_per_s(lane.value),
            oldest_wait_s=worker.clock.monotonic_s() - min(oldest_s) if oldest_s else 0.0,
            recent_per_s=worker.lane_rates.recent_per_s(lane.value),
            shed=not worker.admission.paused.isdisjoint(topics),
            shed_s=worker.memory.shed_s[lane],
            share=self._share(lane),
            worst_wait_s=worker.worst_wait_s(lane),
            held_bytes=sum(map(worker.admission.held_bytes, topics)),
        )

    def _share(self, lane: Lane) -> float:
        """Return the part of all tokens of the last minute that ran for `lane`."""
        per_s = {
            each: sum(
                served.dispatcher.figures.lane_tokens.rate_per_s(each.value, over_s=60)
                for served in self._worker.models or ()
            )
            for each in Lane
        }
        return per_s[lane] / sum(per_s.values()) if per_s[lane] else 0.0

    def _memory(self) -> MemoryStatus | None:
        watch, admission = self._worker.memory, self._worker.admission
        if watch.use is None:
            return None
        return MemoryStatus(
            state=watch.pressure.state.value,
            used_bytes=watch.use.used_bytes,
            limit_bytes=watch.use.limit_bytes,
            limit_source=watch.use.source,
            held_bytes=admission.held_bytes(),
            most_held_bytes=admission.total_bytes,
        )


def _model(served: ServedModel) -> ModelStatus:
    loaded, dispatcher = served.loaded, served.dispatcher
    rates = dispatcher.figures.rates
    real, padding, measured_s, predicted_s = (
        rates.rate_per_s(kind) for kind in ("real", "padding", "measured", "predicted")
    )
    rows_per_s, batches_per_s = rates.rate_per_s("rows"), rates.rate_per_s("batches")
    base_s, per_token_s = dispatcher.latency.line()
    return ModelStatus(
        name=loaded.name,
        version=loaded.version,
        digest=loaded.digest,
        task=loaded.task,
        provider=loaded.provider,
        runners=dispatcher.runners(),
        busy_runners=dispatcher.busy,
        rows_per_s=rows_per_s,
        rows_per_batch=rows_per_s / batches_per_s if batches_per_s else 0.0,
        padding_ratio=padding / (real + padding) if real else 0.0,
        batch_base_ms=base_s * 1000,
        batch_per_1000_tokens_ms=per_token_s * 1e6,
        predicted_ratio=predicted_s / measured_s if measured_s else None,
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
