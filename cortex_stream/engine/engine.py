"""One request's life: bytes in, the one outcome out."""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from cortex_stream.clock import Clock
from cortex_stream.delivery.outcome import Outcome
from cortex_stream.delivery.retry import GiveUp, Leave, TryAgain, decide_fate
from cortex_stream.engine.endings import Asker, Endings
from cortex_stream.engine.events import decide_effects, event_type_label
from cortex_stream.engine.models import ServedModels
from cortex_stream.engine.parse import Envelope, decode, readable_id, replay_id
from cortex_stream.engine.stage import Progress, Stage
from cortex_stream.engine.validate import payload_digest, validate
from cortex_stream.errors import CortexError, Expired, OutcomeTooLarge, UnreadableRecord
from cortex_stream.record import RecordSource
from cortex_stream.routing.estimate import decide_deadline, estimate_tokens
from cortex_stream.routing.request import Request, WorkItem
from cortex_stream.routing.route import StageName, decide_route
from cortex_stream.settings.sections import LimitsSettings
from cortex_stream.telemetry import metrics
from schemas.outcomes import OutcomeKind
from schemas.priority import Lane, effective_lane
from schemas.requests import UNKNOWN_SOURCE

VALIDATION = "validation"

log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class _Try:
    """Where one try of a request stands, so that a failure can say so."""

    attempt: int
    progress: Progress
    stage: str


class Engine:
    """Answers requests and events. Knows nothing of Kafka clients.

    Owner: the event loop. `process` may run for any number of records at once; they meet only in
    the models' queues.
    """

    def __init__(
        self,
        *,
        models: ServedModels,
        stages: Mapping[StageName, Stage],
        endings: Endings,
        limits: LimitsSettings,
        max_attempts: int,
        clock: Clock,
        instance: str,
    ) -> None:
        self._models = models
        self._stages = stages
        self._endings = endings
        self._limits = limits
        self._max_attempts = max_attempts
        self._clock = clock
        self._instance = instance

    async def process(self, value: bytes | None, source: RecordSource) -> Outcome:
        """Answer one request. The caller may acknowledge it once `Outcome.records` are durable.

        Raises:
            CortexError: with disposition FATAL only: nothing can be said about the request here,
                so it must not be acknowledged.
        """
        envelope: Envelope | None = None
        try:
            envelope = decode(value, source, limits=self._limits)
            request = validate(envelope, replay_id=replay_id(source), limits=self._limits)
            item = self._route(request, source)
        except Exception as raised:  # noqa: BLE001 (one record's bad luck must not be everybody's)
            return self._refuse(raised, value, source, envelope)
        metrics.REQUESTS.labels(item.lane.value, request.attributes.type).inc()
        return await self._answer(item, value)

    def process_event(self, value: bytes | None, source: RecordSource) -> Outcome:
        """Return the effect of one event; a refused one ends as `rejected`, like a request."""
        envelope: Envelope | None = None
        try:
            envelope = decode(value, source, limits=self._limits)
            event_type, records = decide_effects(
                envelope, now_unix_ms=self._clock.unix_ms(), instance=self._instance
            )
        except Exception as raised:  # noqa: BLE001 (as above)
            return self._refuse(raised, value, source, envelope)
        return Outcome(None, None, None, event_type_label(event_type), records)

    def unreadable(self, source: RecordSource, reason: str) -> Outcome:
        """Return the outcome of a record whose value the Kafka client could not even hand over."""
        error = UnreadableRecord(f"the record cannot be decoded: {reason}")
        return self._refuse(error, None, source, None)

    def too_large(
        self, outcome: Outcome, value: bytes | None, source: RecordSource, error: OutcomeTooLarge
    ) -> Outcome:
        """Return what to publish instead of an outcome that the broker found too large."""
        return self._endings.replacement(outcome, error, value, source)

    def _refuse(
        self,
        raised: Exception,
        value: bytes | None,
        source: RecordSource,
        envelope: Envelope | None,
    ) -> Outcome:
        """Return the outcome of a record that never became a work item.

        Raises:
            CortexError: with disposition FATAL.
        """
        error = raised if isinstance(raised, CortexError) else _unforeseen(raised, VALIDATION)
        fate = decide_fate(error, attempt=1, max_attempts=1, deadline=None, now_s=0.0)
        if not isinstance(fate, GiveUp):
            raise error
        asker = _asker(value, source, envelope)
        return self._endings.failure(fate.kind, error, asker, value, source, stage=VALIDATION)

    def _route(self, request: Request, source: RecordSource) -> WorkItem:
        """Decide lane, stages, cost and deadline.

        Raises:
            Refused: no model here answers such a request.
        """
        model = self._models.find(request.data.model)
        route = decide_route(request.attributes.type, model=model.reference, task=model.task)
        now_s = self._clock.monotonic_s()
        return WorkItem(
            request=request,
            source=source,
            lane=effective_lane(
                lane=source.lane or Lane.MEDIUM, priority=request.attributes.priority
            ),
            route=route,
            cost_tokens=estimate_tokens(request.data.texts),
            deadline=decide_deadline(
                request.attributes, source, now_s=now_s, now_unix_ms=self._clock.unix_ms()
            ),
        )

    async def _answer(self, item: WorkItem, value: bytes | None) -> Outcome:
        """Run the stages until they succeed or the request's fate is decided."""
        now = _Try(attempt=1, progress=Progress(), stage=VALIDATION)
        while True:
            try:
                await self._run_stages(item, now)
                return self._endings.result(item, now.progress, attempt=now.attempt)
            except Exception as raised:  # one request's bad luck must not be everybody's
                error = (
                    raised if isinstance(raised, CortexError) else _unforeseen(raised, now.stage)
                )
                fate = decide_fate(
                    error,
                    attempt=now.attempt,
                    max_attempts=self._max_attempts,
                    deadline=item.deadline,
                    now_s=self._clock.monotonic_s(),
                )
                match fate:
                    case TryAgain(delay_s):
                        await asyncio.sleep(delay_s)
                        now = _Try(now.attempt + 1, Progress(), VALIDATION)
                    case GiveUp(kind):
                        return self._give_up(kind, error, item, value, now)
                    case Leave():
                        raise

    async def _run_stages(self, item: WorkItem, now: _Try) -> None:
        for name in item.route.stages:
            now.stage = name.value
            began_s = self._clock.monotonic_s()
            if item.deadline is not None and item.deadline.expired(now_s=began_s):
                late_s = -item.deadline.remaining_s(now_s=began_s)
                raise Expired(f"starting stage {name.value} {late_s:.3f} s after the deadline")
            now.progress = await self._stages[name].run(item, now.progress)
            metrics.STAGE_SECONDS.labels(name.value).observe(self._clock.monotonic_s() - began_s)

    def _give_up(
        self,
        kind: OutcomeKind,
        error: CortexError,
        item: WorkItem,
        value: bytes | None,
        now: _Try,
    ) -> Outcome:
        return self._endings.failure(
            kind,
            error,
            Asker.of(item.request),
            value,
            item.source,
            stage=now.stage,
            attempt=now.attempt,
            model=self._models.find(item.route.model).identity,
            timings_ms=now.progress.timings_ms,
        )


def _unforeseen(error: Exception, stage: str) -> CortexError:
    """Return what a bug of ours means for the request: it would end the next worker as well."""
    log.error("request.unforeseen_error", stage=stage, exc_info=error)
    return CortexError(f"in stage {stage}: {type(error).__name__}: {error}")


def _asker(value: bytes | None, source: RecordSource, envelope: Envelope | None) -> Asker:
    """Return who asked, as far as a refused record tells."""
    request_id, stated_source = readable_id(value, source, envelope)
    stated_type = envelope.raw.get("type") if envelope is not None else None
    known_type = stated_type[:256] if isinstance(stated_type, str) else None
    if envelope is not None:
        digest = payload_digest(known_type or "", envelope.data)
    else:
        digest = hashlib.sha256(value or b"").digest()
    return Asker(
        request_id=request_id,
        source=stated_source or UNKNOWN_SOURCE,
        type=known_type,
        payload_digest=digest,
        replay_id=replay_id(source),
    )
