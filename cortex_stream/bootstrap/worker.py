"""One worker: its parts, put together, started and stopped in order."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import structlog

from cortex_stream.bootstrap.bounds import (
    admission_bounds,
    lane_topics,
    retry_topics,
)
from cortex_stream.bootstrap.cut_overs import CutOvers
from cortex_stream.bootstrap.dedupe import Dedupe
from cortex_stream.bootstrap.pipelines import load_pipelines
from cortex_stream.clock import Clock, SystemClock
from cortex_stream.delivery.outcome import Outcome
from cortex_stream.engine.classification import ClassificationStage
from cortex_stream.engine.embedding import EmbeddingStage
from cortex_stream.engine.endings import Endings
from cortex_stream.engine.engine import Engine
from cortex_stream.engine.models import KnownModel, ServedModels
from cortex_stream.errors import Conflict, CortexError, InvariantError, OperatorError
from cortex_stream.inference.model import LoadedModel, load_model
from cortex_stream.kafka.admin import verify_topics
from cortex_stream.record import RecordSource
from cortex_stream.registry.store import ModelStore, ModelVersion, version_order
from cortex_stream.routing.pipeline import check_models
from cortex_stream.routing.route import StageName, Task
from cortex_stream.scheduling.admission import Admission
from cortex_stream.scheduling.batcher import BatchRule
from cortex_stream.scheduling.crowding import Crowding
from cortex_stream.scheduling.memory_watch import MemoryWatch
from cortex_stream.settings.tree import Settings
from cortex_stream.task_scope import TaskScope
from cortex_stream.telemetry import metrics
from cortex_stream.telemetry.errors_log import ErrorsLog
from cortex_stream.telemetry.logging import request_context
from cortex_stream.telemetry.process_memory import ProcessMemory, give_back_free_memory
from cortex_stream.telemetry.rates import RateMeter
from schemas.outcomes import ModelIdentity, OutcomeKind
from schemas.priority import Lane
from schemas.requests import DATA_BY_TYPE

log = structlog.stdlib.get_logger(__name__)

_RUN_BY: Final[Mapping[Task, StageName]] = {
    "embedding": StageName.EMBEDDING,
    "sequence-classification": StageName.INFERENCE,
}
"""Which stage runs a model, by its task."""


class Worker:
    """Everything between a polled record and its outcome.

    Start it once, on the event loop that will call the engine; stop it on the same loop.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock,
        instance: str,
        load: Callable[[Settings], list[LoadedModel]] | None = None,
    ) -> None:
        """Make a worker; `load` gives its models, by default `load_models`, and may block."""
        self.settings = settings
        self.clock = clock
        self.pipelines = load_pipelines(settings.pipelines)
        self.instance = instance
        self.started_unix_ms = clock.unix_ms()
        total_bytes = settings.lanes.total_bytes
        self.admission = Admission(admission_bounds(settings), total_bytes=total_bytes)
        self.dedupe = Dedupe(settings, clock=clock)
        self.cut_overs = CutOvers(settings)
        self.errors = ErrorsLog(clock=clock)
        self.lane_rates = RateMeter(clock=clock)
        self.failure: CortexError | None = None
        self.on_failure: Callable[[CortexError], None] = _log_failure
        """Told, on the event loop, when only a restart can help."""
        topics = {lane: lane_topics(settings, lane) for lane in Lane}
        for retry, topic in retry_topics(settings).items():
            waiting = metrics.RETRIES_WAITING.labels(retry)
            waiting.set_function(partial(self.admission.waiting, topic))
        metrics.RETRY_BUDGET_LEFT.set_function(self.retry_budget_left)
        for lane, fed_by in topics.items():
            metrics.LANE_DEPTH.labels(lane.value).set_function(partial(self.lane_depth, lane))
            waits = metrics.LANE_WORST_WAIT_SECONDS.labels(lane.value)
            waits.set_function(partial(self.worst_wait_s, lane))
            held = partial(_sum, self.admission.held_bytes, fed_by)
            metrics.LANE_HELD_BYTES.labels(lane.value).set_function(held)
        self.memory = MemoryWatch(
            self.admission,
            settings.memory,
            topics=topics,
            measure=ProcessMemory(limit_bytes=settings.memory.limit).measure,
            give_back=give_back_free_memory,
            clock=clock,
            on_failure=self._fail,
        )
        self._load = load or load_models
        self._scope = AsyncExitStack()
        self._models: ServedModels | None = None
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """The engine; there is none before `start`."""
        if self._engine is None:
            raise InvariantError("using the engine before the worker has started; this is a bug")
        return self._engine

    @property
    def models(self) -> ServedModels | None:
        """The served models once they are warm, else None."""
        return self._models

    @property
    def busy(self) -> bool:
        """Whether a model runs something."""
        return any(served.dispatcher.busy for served in self._models or ())

    def lane_depth(self, lane: Lane) -> int:
        """Return how many work items of `lane` are in the process."""
        return _sum(self.admission.waiting, lane_topics(self.settings, lane))

    def worst_wait_s(self, lane: Lane) -> float:
        """Return the longest wait of a row of `lane` for a runner in the last minute."""
        waits = (served.dispatcher.waiting.worst_wait_s(lane) for served in self._models or ())
        return max(waits, default=0.0)

    def lane_capacity(self, lane: Lane) -> int:
        """Return how many work items of `lane` may be in the process at once."""
        return _sum(self.admission.capacity, lane_topics(self.settings, lane))

    def retry_budget_left(self) -> float:
        """Return how many retries could be made now."""
        if self._engine is None:
            return 0.0
        return self._engine.retry_budget.left(now_s=self.clock.monotonic_s())

    def retries_waiting(self) -> int:
        """Return how many requests of the retry topics are in the process."""
        return _sum(self.admission.waiting, retry_topics(self.settings).values())

    async def start(self) -> None:
        """Check the topics, load and warm the models, start their runners.

        Raises:
            TopicsMismatch: the cluster's topics are not as the catalogue says.
            BrokerUnavailable: no broker answers.
            UnknownModel, UnsafeModel, ModelLoadFailed: a model cannot be served.
        """
        await verify_topics(self.settings)
        await self.cut_overs.read()
        loaded = await asyncio.to_thread(self._load, self.settings)
        split = self.settings.worker.split
        known = await asyncio.to_thread(known_models, self.settings) if split else ()
        for model in loaded:
            self._scope.callback(model.close)
        inference = self.settings.inference
        models = ServedModels(
            loaded,
            default=self.settings.models.embed_default,
            rule=partial(batch_rule, self.settings),
            run_timeout_s=inference.run_timeout_s,
            clock=self.clock,
            on_stuck=self._fail,
            known=known,
        )
        check_models(self.pipelines, models.find, default=self.settings.models.embed_default)
        self.cut_overs.apply_to(models)
        self._models = await self._scope.enter_async_context(models)
        embedding = EmbeddingStage(models, self.clock)
        classification = ClassificationStage(models, self.clock)
        self._engine = Engine(
            models=models,
            stages={
                stage.name: stage
                for stage in (embedding, classification)
                if stage.name in self.settings.worker.stages
            },
            pipelines=self.pipelines,
            endings=Endings(limits=self.settings.limits, clock=self.clock, worker=self.instance),
            limits=self.settings.limits,
            max_attempts=inference.attempts,
            clock=self.clock,
            instance=self.instance,
            most_request_bytes=min(self.settings.lanes.lane_bytes, self.settings.lanes.total_bytes),
            crowding=Crowding(self.admission.crowded, clock=self.clock),
            retries=self.settings.retries,
            dedupe=self.dedupe.window,
        )
        for request_type in DATA_BY_TYPE:  # an alert sees no increase of a series that is new
            metrics.labelled(
                metrics.OUTCOMES, OutcomeKind.REJECTED.value, request_type, Conflict.code
            )
        scope = await self._scope.enter_async_context(TaskScope())
        _ = scope.start(self.memory.run(), name="watch memory")
        _ = scope.start(self.dedupe.run(), name="dedupe window")
        _ = scope.start(self.cut_overs.run(), name="follow cut-overs")

    async def stop(self) -> None:
        """Stop the runners and release the models. Idempotent."""
        self._models = self._engine = None
        await self._scope.aclose()

    def settled(self, outcome: Outcome, source: RecordSource) -> None:
        """Count an outcome that is durable now, and remember what went wrong."""
        code = "" if outcome.error is None else outcome.error.code
        if outcome.waiting is not None:
            metrics.RETRIES.labels(str(outcome.waiting.retry), code).inc()
        elif outcome.handed_to is not None:
            metrics.labelled(metrics.HANDOVERS, outcome.handed_to).inc()
        elif outcome.kind is None:
            metrics.EVENTS_HANDLED.labels(outcome.type).inc()
        else:
            metrics.labelled(metrics.OUTCOMES, outcome.kind.value, outcome.type, code).inc()
        lane = _lane_label(source)
        spent_s = self.clock.monotonic_s() - source.received_s
        metrics.labelled(metrics.REQUEST_SECONDS, lane).observe(spent_s)
        self.lane_rates.record(lane)
        if outcome.error is not None:
            _log_end(outcome, source, code)
            self.errors.record(
                code=code,
                message=str(outcome.error),
                request_id=outcome.request_id,
                topic=source.topic,
                partition=source.partition,
                offset=source.offset,
            )

    def _fail(self, error: CortexError) -> None:
        self.failure = error
        self.on_failure(error)


def build_worker(
    settings: Settings, *, load: Callable[[Settings], list[LoadedModel]] | None = None
) -> Worker:
    """Return a worker of this process, not yet started; `load` is as in `Worker`."""
    instance = f"{socket.gethostname()}-{os.getpid()}"
    return Worker(settings, clock=SystemClock(), instance=instance, load=load)


def batch_rule(settings: Settings, model: LoadedModel) -> BatchRule:
    """Return how large a batch of `model` may be on the device where it runs.

    In strict mode a model whose answers depend on their company has none: one text per call.
    A CPU gains a fifth from small batches and loses many times that to padding; a GPU has rows to
    spare, so there MAX_BATCH_SIZE is the only bound. (No GPU was measured for this release.)
    """
    most_rows = settings.max_batch_size
    if settings.batching.invariance == "strict" and not model.batch_invariant:
        return BatchRule(max_rows=1, max_tokens=model.max_tokens)
    if model.provider == "cuda":
        return BatchRule(max_rows=most_rows, max_tokens=most_rows * model.max_tokens)
    inference = settings.inference
    return BatchRule(
        max_rows=min(inference.batch_rows, most_rows),
        max_tokens=inference.batch_tokens,
        brief_tokens=inference.batch_tokens * 5 // 8,
    )


def load_models(settings: Settings) -> list[LoadedModel]:
    """Verify, open and warm every model that a stage hosted here runs. Blocks.

    Raises:
        OperatorError: together they are larger than MODEL_CACHE_SIZE.
        UnknownModel, UnsafeModel, ModelLoadFailed: one of them cannot be served.
    """
    versions = [
        version
        for version in _resolve(settings)
        if _RUN_BY[version.manifest.task] in settings.worker.stages
    ]
    size_bytes = sum(version.onnx_path.stat().st_size for version in versions)
    if size_bytes > settings.model_cache_size:
        raise OperatorError(
            f"loading {', '.join(settings.models.serve)}: {size_bytes / 1e6:.0f} MB together,"
            f" MODEL_CACHE_SIZE allows {settings.model_cache_size / 1e6:.0f} MB",
            repair="serve fewer models (CORTEX_MODELS__SERVE) or raise MODEL_CACHE_SIZE",
        )
    return [
        load_model(version, settings.inference, gpu_batch_rows=settings.max_batch_size)
        for version in versions
    ]


def known_models(settings: Settings) -> list[KnownModel]:
    """Return every version that the system serves, here or in other workers; verified. Blocks.

    Raises:
        UnknownModel, UnsafeModel: one of them cannot be served.
    """
    return [
        KnownModel(
            reference=f"{version.name}@{version.version}",
            task=version.manifest.task,
            identity=ModelIdentity(
                name=version.name,
                version=version.version,
                digest=version.digest,
                batch_invariant=version.manifest.is_batch_invariant
                or settings.batching.invariance == "strict",
            ),
        )
        for version in _resolve(settings)
    ]


def _resolve(settings: Settings) -> list[ModelVersion]:
    store = ModelStore(settings.models)
    resolved = [store.resolve(reference) for reference in settings.models.serve]
    # `minilm` and `minilm@1` may be one; of several, the last is meant by the name alone.
    return sorted(
        {(version.name, version.version): version for version in resolved}.values(),
        key=lambda version: version_order(version.version),
    )


def _sum(of: Callable[[str], int], topics: Iterable[str]) -> int:
    return sum(map(of, topics))


def _lane_label(source: RecordSource) -> str:
    if source.lane is not None:
        return source.lane.value
    return "events" if source.is_event else "retries"


def _log_end(outcome: Outcome, source: RecordSource, code: str) -> None:
    """Log one line for a request without an answer, at the level of what it asks of an operator."""
    level, event = {
        OutcomeKind.EXPIRED: (logging.DEBUG, "request.expired"),
        OutcomeKind.REJECTED: (logging.INFO, "request.rejected"),
    }.get(outcome.kind or OutcomeKind.DEAD_LETTER, (logging.WARNING, "request.dead_letter"))
    if outcome.waiting is not None:
        level, event = logging.DEBUG, "request.waits_for_retry"
    if not logging.getLogger(__name__).isEnabledFor(level):
        return  # thousands a second may expire, or fail for now
    with request_context(request_id=outcome.request_id, traceparent=outcome.traceparent):
        log.log(
            level,
            event,
            code=code,
            message=str(outcome.error),
            topic=source.topic,
            partition=source.partition,
            offset=source.offset,
        )


def _log_failure(error: CortexError) -> None:
    log.error("worker.failing", code=error.code, message=str(error))
