"""One request's life: bytes in, the one outcome out."""

import asyncio
import hashlib
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from cortex_stream.clock import Clock
from cortex_stream.deadline import Deadline
from cortex_stream.delivery.outcome import Outcome
from cortex_stream.delivery.retry import GiveUp, Leave, TryAgain, decide_fate
from cortex_stream.engine.endings import Asker, Endings
from cortex_stream.engine.events import decide_effects, event_type_label
from cortex_stream.engine.handover import Arrival, hand_over, position_of, read_arrival
from cortex_stream.engine.limits import Gates, in_time
from cortex_stream.engine.models import ServedModels
from cortex_stream.engine.parse import Envelope, decode, read_attributes, readable_id, replay_id
from cortex_stream.engine.stage import Progress, Stage
from cortex_stream.engine.validate import payload_digest, validate
from cortex_stream.errors import (
    CortexError,
    Expired,
    InvalidHandover,
    OutcomeTooLarge,
    ResourceExhausted,
    UnreadableRecord,
)
from cortex_stream.record import RecordSource
from cortex_stream.routing.estimate import decide_deadline, estimate_tokens
from cortex_stream.routing.hosting import Handoff, next_hop
from cortex_stream.routing.pipeline import (
    BUILT_IN,
    Pipeline,
    choose_pipeline,
    decide_pipeline_route,
)
from cortex_stream.routing.request import Request, WorkItem
from cortex_stream.routing.route import StageName
from cortex_stream.scheduling.admission import weight_bytes
from cortex_stream.scheduling.crowding import Crowding
from cortex_stream.settings.sections import LimitsSettings
from cortex_stream.telemetry import metrics
from schemas.outcomes import OutcomeKind
from schemas.priority import Lane, effective_lane
from schemas.requests import (
    MAX_TRACE_CHARS,
    UNKNOWN_SOURCE,
    ClassifyData,
    RequestAttributes,
    RequestData,
)
from topics.names import VALIDATION

INLINE_BYTES: Final = 32 << 10
"""Larger requests are read aside: 1 MiB can take 200 ms, and nothing may hold the event loop for
50 ms. Up to here it is 6 ms at most, where handing over would cost more than the usual 0.02 ms."""

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
    the models' queues, and where their pipeline is limited.
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
        pipelines: Sequence[Pipeline] = BUILT_IN,
        most_request_bytes: int = sys.maxsize,
        crowding: Crowding | None = None,
    ) -> None:
        """Answer requests through `pipelines`; hand over before a stage not among `stages`.

        By default no lane is ever crowded.
        """
        self._models = models
        self._stages = stages
        self._endings = endings
        self._limits = limits
        self._max_attempts = max_attempts
        self._clock = clock
        self._instance = instance
        self._pipelines = pipelines
        self._most_request_bytes = most_request_bytes
        self._gates = Gates(pipelines)
        self._crowding = crowding or Crowding({}, clock=clock)
        self._hosted = tuple(stages)
        self._aside = asyncio.Lock()  # one at a time: threads that compute slow the loop down

    async def process(self, value: bytes | None, source: RecordSource) -> Outcome:
        """Answer one request, or hand it over.

        That is before a stage that is not hosted here; or, to be read again later, at once, where
        its tenant holds too much of a crowded lane.
        The caller may acknowledge it once `Outcome.records` are durable.

        Raises:
            CortexError: with disposition FATAL only: nothing can be said about the request here,
                so it must not be acknowledged.
        """
        if len(value or b"") <= INLINE_BYTES:
            read = self._read(value, source)
        else:
            async with self._aside:
                read = await asyncio.to_thread(self._read, value, source)
        if isinstance(read, Outcome):
            return read
        item, begin = read
        if source.stage is None:
            metrics.REQUESTS.labels(item.lane.value, item.request.attributes.type).inc()
            if self._crowding.too_many(item.lane, item.request.tenant):
                return self._hand_over(item, value, VALIDATION, begin)
        with self._crowding.counted(item.lane, item.request.tenant):
            return await self._answer(item, value, begin)

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
        if source.stage is not None:
            with suppress(InvalidHandover):  # then the hand-over itself is all that can be named
                source = self._arrival(source).origin
        return self._endings.replacement(outcome, error, value, source)

    def _read(self, value: bytes | None, source: RecordSource) -> tuple[WorkItem, _Try] | Outcome:
        """Return the work item in a record and where it stands, or how it ended: late, or refused.

        The deadline is looked at as soon as it is known, before the type and the data: a late
        request is `expired` whatever it asks, since nobody waits for a better answer.

        Raises:
            CortexError: with disposition FATAL.
        """
        envelope: Envelope | None = None
        try:
            envelope = decode(value, source, limits=self._limits)
            arrival = None if source.stage is None else self._arrival(source)
            if arrival is not None:
                source = arrival.origin
            attributes = read_attributes(envelope)
            deadline = self._deadline(attributes, source, arrival)
            request = validate(
                attributes, envelope.data, replay_id=replay_id(source), limits=self._limits
            )
            self._ensure_room(value, request.data)
            item = self._route(request, source, deadline, arrival)
        except Exception as raised:  # noqa: BLE001 (one record's bad luck must not be everybody's)
            return self._refuse(raised, value, source, envelope)
        if arrival is None:
            return item, _Try(1, Progress(), VALIDATION)
        return item, _Try(arrival.attempt, arrival.progress, VALIDATION)

    def _ensure_room(self, value: bytes | None, data: RequestData) -> None:
        """Refuse what needs more memory than there will ever be for one request.

        Raises:
            ResourceExhausted: so it does.
        """
        labels = data.labels if isinstance(data, ClassifyData) else None
        inputs = len(data.texts) + len(labels or ())
        needs_bytes = weight_bytes(record_bytes=len(value or b""), texts=inputs)
        if needs_bytes > self._most_request_bytes:
            raise ResourceExhausted(
                f"the request needs about {needs_bytes} bytes of memory, this worker gives a"
                f" request {self._most_request_bytes}; send fewer texts in each request"
            )

    def _arrival(self, source: RecordSource) -> Arrival:
        return read_arrival(
            source, now_s=self._clock.monotonic_s(), now_unix_ms=self._clock.unix_ms()
        )

    def _deadline(
        self, attributes: RequestAttributes, source: RecordSource, arrival: Arrival | None
    ) -> Deadline | None:
        """Return until when somebody waits, or None without a limit.

        Raises:
            Expired: nobody does any more.
        """
        now_s = self._clock.monotonic_s()
        if arrival is not None:
            deadline = arrival.deadline
        else:
            deadline = decide_deadline(
                attributes, source, now_s=now_s, now_unix_ms=self._clock.unix_ms()
            )
        _check_in_time(deadline, now_s=now_s, doing="arriving")
        return deadline

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

    def _route(
        self,
        request: Request,
        source: RecordSource,
        deadline: Deadline | None,
        arrival: Arrival | None,
    ) -> WorkItem:
        """Decide lane, pipeline, stages and cost.

        Raises:
            Refused: no model answers such a request.
            InvalidHandover: what was handed over does not fit the request.
        """
        attributes = request.attributes
        lane = effective_lane(lane=source.lane or Lane.MEDIUM, priority=attributes.priority)
        pipeline = choose_pipeline(
            self._pipelines, attributes.type, lane=lane, tenant=request.tenant
        )
        model = self._models.find(request.data.model or pipeline.model)
        route = decide_pipeline_route(pipeline, attributes.type, model)
        return WorkItem(
            request=request,
            source=source,
            lane=lane,
            pipeline=pipeline,
            route=route,
            position=0 if arrival is None else position_of(arrival, request, route),
            cost_tokens=estimate_tokens(request.data.texts),
            deadline=deadline,
        )

    async def _answer(self, item: WorkItem, value: bytes | None, begin: _Try) -> Outcome:
        """Run the stages until they succeed, end here, or the request's fate is decided."""
        now = begin
        found_before = begin.progress
        gate = self._gates.of_or_none(item.pipeline, item.lane)
        while True:
            try:
                if gate is None:
                    elsewhere = await self._run_stages(item, now)
                else:
                    async with gate:
                        elsewhere = await self._run_stages(item, now)
                if elsewhere is not None:
                    return self._hand_over(item, value, elsewhere.value, now)
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
                        now = _Try(now.attempt + 1, found_before, VALIDATION)
                    case GiveUp(kind):
                        return self._give_up(kind, error, item, value, now)
                    case Leave():
                        raise

    async def _run_stages(self, item: WorkItem, now: _Try) -> StageName | None:
        """Run the stages that are hosted here; return the first that is not, or None at the end."""
        for position in range(item.position, len(item.route.stages)):
            hop = next_hop(item.route, position, self._hosted)
            name = hop.stage
            now.stage = name.value
            began_s = self._clock.monotonic_s()
            _check_in_time(item.deadline, now_s=began_s, doing=f"starting stage {name.value}")
            if isinstance(hop, Handoff):
                return name
            running = self._stages[name].run(item, now.progress)
            now.progress = await in_time(running, item.pipeline, name)
            metrics.STAGE_SECONDS.labels(name.value).observe(self._clock.monotonic_s() - began_s)
        return None

    def _hand_over(self, item: WorkItem, value: bytes | None, stage: str, now: _Try) -> Outcome:
        return hand_over(
            item,
            value,
            stage=stage,
            progress=now.progress,
            attempt=now.attempt,
            now_s=self._clock.monotonic_s(),
        )

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


def _check_in_time(deadline: Deadline | None, *, now_s: float, doing: str) -> None:
    if deadline is not None and deadline.expired(now_s=now_s):
        late_s = -deadline.remaining_s(now_s=now_s)
        raise Expired(f"{doing} {late_s:.3f} s after the deadline")


def _unforeseen(error: Exception, stage: str) -> CortexError:
    """Return what a bug of ours means for the request: it would end the next worker as well."""
    log.error("request.unforeseen_error", stage=stage, exc_info=error)
    return CortexError(f"in stage {stage}: {type(error).__name__}: {error}")


def _asker(value: bytes | None, source: RecordSource, envelope: Envelope | None) -> Asker:
    """Return who asked, as far as a refused record tells."""
    request_id, stated_source = readable_id(value, source, envelope)
    stated_type = envelope.raw.get("type") if envelope is not None else None
    known_type = stated_type[:256] if isinstance(stated_type, str) else None
    trace = envelope.raw.get("traceparent") if envelope is not None else None
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
        traceparent=trace if isinstance(trace, str) and len(trace) <= MAX_TRACE_CHARS else None,
    )
