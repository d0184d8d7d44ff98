"""From a record to a work item, or to the outcome of what cannot become one."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import structlog

from cortex_stream.clock import Clock
from cortex_stream.deadline import Deadline
from cortex_stream.delivery.outcome import Outcome
from cortex_stream.delivery.retry import FIRST_TRY, GiveUp, Tries, decide_end
from cortex_stream.engine.endings import Asker, Endings
from cortex_stream.engine.handover import Arrival, position_of, read_arrival
from cortex_stream.engine.models import ServedModels
from cortex_stream.engine.parse import Envelope, decode, read_attributes, readable_id
from cortex_stream.engine.stage import Progress
from cortex_stream.engine.validate import payload_digest, validate
from cortex_stream.errors import (
    CortexError,
    Expired,
    InvalidHandover,
    OutcomeTooLarge,
    ResourceExhausted,
)
from cortex_stream.record import RecordSource
from cortex_stream.routing.budget import decide_deadline
from cortex_stream.routing.pipeline import Pipeline, choose_pipeline, decide_pipeline_route
from cortex_stream.routing.request import Request, WorkItem
from cortex_stream.scheduling.admission import weight_bytes
from cortex_stream.settings.sections import LimitsSettings
from cortex_stream.values import value
from schemas.handovers import Reinjection
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

_NOBODYS_REPLAY: Final = Reinjection(replay_id="unknown", publish_to="replays")
"""Of a record on the replay topic that no replay has written: its outcome disturbs nobody else."""

log = structlog.stdlib.get_logger(__name__)


@value()
class Opened:
    """A request of which it is known who asks, and until when, but not yet what.

    Attributes:
        value: the record's.
        source: where its client wrote it.
        lane: its topic's or, if it says so, a lower one.
        deadline: when nobody waits any more, on this process's monotonic clock.
        arrival: what another worker has handed over with it; None for a record of a client.
    """

    value: bytes | None
    source: RecordSource
    envelope: Envelope
    attributes: RequestAttributes
    lane: Lane
    deadline: Deadline | None
    arrival: Arrival | None


@dataclass(slots=True)
class Try:
    """Where one try of a request stands, so that a failure can say so."""

    tries: Tries
    progress: Progress
    stage: str


class Reader:
    """Reads requests as clients, or other workers, have written them.

    Holds nothing that changes: it may be called in any thread.
    """

    def __init__(
        self,
        *,
        models: ServedModels,
        endings: Endings,
        limits: LimitsSettings,
        clock: Clock,
        pipelines: Sequence[Pipeline],
        most_request_bytes: int,
    ) -> None:
        self._models = models
        self._endings = endings
        self._limits = limits
        self._clock = clock
        self._pipelines = pipelines
        self._most_request_bytes = most_request_bytes

    def open(self, value: bytes | None, source: RecordSource) -> Opened | Outcome:
        """Return whose request a record is, or how it ended: late, or refused.

        The deadline is looked at as soon as it is known, before the type and the data: a late
        request is `expired` whatever it asks, since nobody waits for a better answer.

        Raises:
            CortexError: with disposition FATAL.
        """
        envelope: Envelope | None = None
        arrival: Arrival | None = None
        try:
            try:
                envelope = decode(value, source, limits=self._limits)
            finally:  # what cannot be decoded came from somewhere, too
                if source.stage is not None:
                    arrival = self.arrival(source)
                    source = arrival.origin
            attributes = read_attributes(envelope)
            deadline = self._deadline(attributes, source, arrival)
        except Exception as raised:  # noqa: BLE001 (one record's bad luck must not be everybody's)
            return self.refuse(raised, value, source, envelope, arrival)
        lane = effective_lane(lane=source.lane or Lane.MEDIUM, priority=attributes.priority)
        return Opened(value, source, envelope, attributes, lane, deadline, arrival)

    def read(self, opened: Opened) -> tuple[WorkItem, Try] | Outcome:
        """Return the work item that is asked for and where it stands, or how it ended: refused.

        Raises:
            CortexError: with disposition FATAL.
        """
        value, arrival = opened.value, opened.arrival
        try:
            request = validate(opened.attributes, opened.envelope.data, limits=self._limits)
            weight_bytes = self._weigh(value, request.data)
            item = self._route(request, opened, weight_bytes=weight_bytes)
        except Exception as raised:  # noqa: BLE001 (as above)
            return self.refuse(raised, value, opened.source, opened.envelope, arrival)
        if arrival is None:
            return item, Try(FIRST_TRY, Progress(), VALIDATION)
        return item, Try(arrival.tries, arrival.progress, VALIDATION)

    def open_and_read(
        self, value: bytes | None, source: RecordSource
    ) -> tuple[WorkItem, Try] | Outcome:
        """Do as `open`, then as `read`; nothing but the work item is kept of a large request."""
        opened = self.open(value, source)
        return opened if isinstance(opened, Outcome) else self.read(opened)

    def arrival(self, source: RecordSource) -> Arrival:
        """Return what was handed over in a record.

        Raises:
            InvalidHandover: it cannot be read.
        """
        return read_arrival(
            source, now_s=self._clock.monotonic_s(), now_unix_ms=self._clock.unix_ms()
        )

    def refuse(
        self,
        raised: Exception,
        value: bytes | None,
        source: RecordSource,
        envelope: Envelope | None,
        arrival: Arrival | None = None,
    ) -> Outcome:
        """Return the outcome of a record that never became a work item.

        Raises:
            CortexError: with disposition FATAL.
        """
        error = raised if isinstance(raised, CortexError) else unforeseen(raised, VALIDATION)
        end = decide_end(error)
        if not isinstance(end, GiveUp):
            raise error
        asker = _asker(value, source, envelope, arrival)
        if source.lane is Lane.REPLAY and arrival is None:
            asker = replace(asker, reinjection=_NOBODYS_REPLAY)
        return self._endings.failure(
            end.kind,
            error,
            asker,
            value,
            source,
            stage=VALIDATION,
            tries=FIRST_TRY if arrival is None else arrival.tries,
        )

    def give_up(
        self,
        error: CortexError,
        value: bytes | None,
        source: RecordSource,
        *,
        deliveries: int,
        readable: bool,
    ) -> Outcome:
        """Return the outcome of a record that must not run again.

        Only if `readable` is it looked at, to tell who asked. On the replay lane a record whose
        replay is unknown leaves the live topics alone.
        """
        envelope: Envelope | None = None
        arrival: Arrival | None = None
        if readable:
            with suppress(CortexError):
                envelope = decode(value, source, limits=self._limits)
            if source.stage is not None:
                with suppress(InvalidHandover):
                    arrival = self.arrival(source)
                    source = arrival.origin
        asker = _asker(value, source, envelope, arrival)
        if source.lane is Lane.REPLAY and arrival is None:
            asker = replace(asker, reinjection=_NOBODYS_REPLAY)
        return self._endings.failure(
            OutcomeKind.DEAD_LETTER,
            error,
            asker,
            value,
            source,
            stage=VALIDATION,
            tries=Tries(attempt=deliveries),
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
        check_in_time(deadline, now_s=now_s, doing="arriving")
        return deadline

    def _weigh(self, value: bytes | None, data: RequestData) -> int:
        """Return what memory a request needs; refuse it if there will never be as much.

        Raises:
            ResourceExhausted: so it does.
            OutcomeTooLarge: its answer, which names each label for each text, is surely so.
        """
        labels = data.labels if isinstance(data, ClassifyData) else None
        answer_bytes = len(data.texts) * sum(len(label.encode()) for label in labels or ())
        if answer_bytes > self._limits.outcome_bytes:
            raise OutcomeTooLarge(
                f"its answer would name {len(labels or ())} labels for each text, {answer_bytes} bytes"
                f" at least; the results topic takes {self._limits.outcome_bytes}; send fewer texts or"
                " shorter labels"
            )
        inputs = len(data.texts) + len(labels or ())
        needs_bytes = weight_bytes(record_bytes=len(value or b""), texts=inputs)
        if needs_bytes > self._most_request_bytes:
            raise ResourceExhausted(
                f"the request needs about {needs_bytes} bytes of memory, this worker gives a"
                f" request {self._most_request_bytes}; send fewer texts in each request"
            )
        return needs_bytes

    def _route(self, request: Request, opened: Opened, *, weight_bytes: int) -> WorkItem:
        """Decide pipeline, stages and cost.

        Raises:
            Refused: no model answers such a request.
            InvalidHandover: what was handed over does not fit the request.
        """
        request_type, arrival = request.attributes.type, opened.arrival
        pipeline = choose_pipeline(
            self._pipelines, request_type, lane=opened.lane, tenant=request.tenant
        )
        again = None if arrival is None else arrival.reinjection
        chosen = None if again is None else again.model  # a replay's, in place of the request's
        model = self._models.find(chosen or request.data.model or pipeline.model)
        route = decide_pipeline_route(pipeline, request_type, model)
        return WorkItem(
            request=request,
            source=opened.source,
            lane=opened.lane,
            pipeline=pipeline,
            route=route,
            position=0 if arrival is None else position_of(arrival, request, route),
            weight_bytes=weight_bytes,
            deadline=opened.deadline,
            reinjection=again,
            waited=None if arrival is None else arrival.waited,
        )


def check_in_time(deadline: Deadline | None, *, now_s: float, doing: str) -> None:
    """Refuse to begin what nobody waits for any more.

    Raises:
        Expired: the deadline has passed.
    """
    if deadline is not None and deadline.expired(now_s=now_s):
        late_s = -deadline.remaining_s(now_s=now_s)
        raise Expired(f"{doing} {late_s:.3f} s after the deadline, `deadlinems` after `time`")


def unforeseen(error: Exception, stage: str) -> CortexError:
    """Return what a bug of ours means for the request: it would end the next worker as well."""
    log.error("request.unforeseen_error", stage=stage, exc_info=error)
    return CortexError(f"in stage {stage}: {type(error).__name__}: {error}")


def _asker(
    value: bytes | None,
    source: RecordSource,
    envelope: Envelope | None,
    arrival: Arrival | None = None,
) -> Asker:
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
        reinjection=None if arrival is None else arrival.reinjection,
        traceparent=trace if isinstance(trace, str) and len(trace) <= MAX_TRACE_CHARS else None,
    )
