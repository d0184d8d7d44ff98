"""One worker: its parts, put together, started and stopped in order."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial

import structlog

from cortex_stream.clock import Clock, SystemClock
from cortex_stream.delivery.outcome import Outcome
from cortex_stream.engine.classification import ClassificationStage
from cortex_stream.engine.embedding import EmbeddingStage
from cortex_stream.engine.endings import Endings
from cortex_stream.engine.engine import Engine
from cortex_stream.engine.models import ServedModels
from cortex_stream.errors import InvariantError, OperatorError, StuckRun
from cortex_stream.inference.model import LoadedModel, load_model
from cortex_stream.kafka.admin import verify_topics
from cortex_stream.record import RecordSource
from cortex_stream.registry.store import ModelStore, version_order
from cortex_stream.scheduling.admission import Admission, Bound
from cortex_stream.scheduling.batcher import BatchRule
from cortex_stream.settings.tree import Settings
from cortex_stream.telemetry import metrics
from cortex_stream.telemetry.errors_log import ErrorsLog
from cortex_stream.telemetry.logging import request_context
from cortex_stream.telemetry.rates import RateMeter
from schemas.outcomes import OutcomeKind
from schemas.priority import Lane
from topics.names import EVENTS, request_topic

log = structlog.stdlib.get_logger(__name__)


class Worker:
    """Everything between a polled record and its outcome.

    Start it once, on the event loop that will call the engine; stop it on the same loop.
    """

    def __init__(self, settings: Settings, *, clock: Clock, instance: str) -> None:
        self.settings = settings
        self.clock = clock
        self.instance = instance
        self.started_unix_ms = clock.unix_ms()
        self.admission = Admission(admission_bounds(settings))
        self.errors = ErrorsLog(clock=clock)
        self.lane_rates = RateMeter(clock=clock)
        self.failure: StuckRun | None = None
        self.on_failure: Callable[[StuckRun], None] = _log_failure
        """Told, on the event loop, when only a restart can help."""
        for lane in Lane:
            topic = settings.topic(request_topic(lane))
            depth = partial(self.admission.waiting, topic)
            metrics.LANE_DEPTH.labels(lane.value).set_function(depth)
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

    async def start(self) -> None:
        """Check the topics, load and warm the models, start their runners.

        Raises:
            TopicsMismatch: the cluster's topics are not as the catalogue says.
            BrokerUnavailable: no broker answers.
            UnknownModel, UnsafeModel, ModelLoadFailed: a model cannot be served.
        """
        await verify_topics(self.settings)
        loaded = await asyncio.to_thread(load_models, self.settings)
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
        )
        self._models = await self._scope.enter_async_context(models)
        embedding = EmbeddingStage(models, self.clock)
        classification = ClassificationStage(models, self.clock)
        self._engine = Engine(
            models=models,
            stages={stage.name: stage for stage in (embedding, classification)},
            endings=Endings(limits=self.settings.limits, clock=self.clock, worker=self.instance),
            limits=self.settings.limits,
            max_attempts=inference.attempts,
            clock=self.clock,
            instance=self.instance,
        )

    async def stop(self) -> None:
        """Stop the runners and release the models. Idempotent."""
        self._models = self._engine = None
        await self._scope.aclose()

    def settled(self, outcome: Outcome, source: RecordSource) -> None:
        """Count an outcome that is durable now, and remember what went wrong."""
        code = "" if outcome.error is None else outcome.error.code
        if outcome.kind is None:
            metrics.EVENTS_HANDLED.labels(outcome.type).inc()
        else:
            metrics.OUTCOMES.labels(outcome.kind.value, outcome.type, code).inc()
        lane = "events" if source.lane is None else source.lane.value
        metrics.REQUEST_SECONDS.labels(lane).observe(self.clock.monotonic_s() - source.received_s)
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

    def _fail(self, stuck: StuckRun) -> None:
        self.failure = stuck
        self.on_failure(stuck)


def build_worker(settings: Settings) -> Worker:
    """Return a worker of this process, not yet started."""
    instance = f"{socket.gethostname()}-{os.getpid()}"
    return Worker(settings, clock=SystemClock(), instance=instance)


def admission_bounds(settings: Settings) -> dict[str, Bound]:
    """Return the bound of each consumed topic, by its name on the cluster."""
    lanes = settings.lanes
    records = {
        Lane.CRITICAL: lanes.critical,
        Lane.HIGH: lanes.high,
        Lane.MEDIUM: lanes.medium,
        Lane.LOW: lanes.low,
        Lane.REPLAY: lanes.replay,
    }
    bounds = {
        settings.topic(request_topic(lane)): Bound(most, lanes.lane_bytes)
        for lane, most in records.items()
    }
    bounds[settings.topic(EVENTS)] = Bound(lanes.high, lanes.lane_bytes)
    return bounds


def batch_rule(settings: Settings, model: LoadedModel) -> BatchRule:
    """Return how large a batch of `model` may be on the device where it runs.

    A CPU gains a fifth from small batches and loses many times that to padding; a GPU has rows to
    spare, so there MAX_BATCH_SIZE is the only bound. (No GPU was measured for this release.)
    """
    most_rows = settings.max_batch_size
    if model.provider == "cuda":
        return BatchRule(max_rows=most_rows, max_tokens=most_rows * model.max_tokens)
    inference = settings.inference
    return BatchRule(
        max_rows=min(inference.batch_rows, most_rows), max_tokens=inference.batch_tokens
    )


def load_models(settings: Settings) -> list[LoadedModel]:
    """Verify, open and warm every model to be served. Blocks.

    Raises:
        OperatorError: together they are larger than MODEL_CACHE_SIZE.
        UnknownModel, UnsafeModel, ModelLoadFailed: one of them cannot be served.
    """
    store = ModelStore(settings.models)
    resolved = [store.resolve(reference) for reference in settings.models.serve]
    # `minilm` and `minilm@1` may be one; of several, the last is meant by the name alone.
    versions = sorted(
        {(version.name, version.version): version for version in resolved}.values(),
        key=lambda version: version_order(version.version),
    )
    size_bytes = sum(version.onnx_path.stat().st_size for version in versions)
    if size_bytes > settings.model_cache_size:
        raise OperatorError(
            f"loading {', '.join(settings.models.serve)}: {size_bytes / 1e6:.0f} MB together,"
            f" MODEL_CACHE_SIZE allows {settings.model_cache_size / 1e6:.0f} MB",
            repair="serve fewer models (CORTEX_MODELS__SERVE) or raise MODEL_CACHE_SIZE",
        )
    return [load_model(version, settings.inference) for version in versions]


def _log_end(outcome: Outcome, source: RecordSource, code: str) -> None:
    """Log one line for a request without an answer, at the level of what it asks of an operator."""
    level, event = {
        OutcomeKind.EXPIRED: (logging.DEBUG, "request.expired"),
        OutcomeKind.REJECTED: (logging.INFO, "request.rejected"),
    }.get(outcome.kind or OutcomeKind.DEAD_LETTER, (logging.WARNING, "request.dead_letter"))
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


def _log_failure(stuck: StuckRun) -> None:
    log.error("worker.failing", code=stuck.code, message=str(stuck))
