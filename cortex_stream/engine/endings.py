"""How a request ends: progress or error to the outcome and its records."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cortex_stream.clock import Clock
from cortex_stream.delivery.dead_letter import Failure, dead_letter, truncate_utf8
from cortex_stream.delivery.identity import outcome_id, unreadable_outcome_id
from cortex_stream.delivery.outcome import (
    Outcome,
    OutcomeFields,
    is_live,
    lake_vector_record,
    outcome_record,
)
from cortex_stream.delivery.retry import FIRST_TRY, Tries
from cortex_stream.engine.embedding import vector_bytes
from cortex_stream.engine.stage import Progress
from cortex_stream.errors import CortexError, InvariantError, OutcomeTooLarge
from cortex_stream.record import OutgoingRecord, RecordSource
from cortex_stream.routing.request import WorkItem
from cortex_stream.settings.sections import LimitsSettings
from cortex_stream.values import value
from schemas.handovers import Reinjection
from schemas.outcomes import ModelIdentity, OutcomeKind
from schemas.requests import DATA_BY_TYPE, UNKNOWN_SOURCE, EmbedData


@value()
class Asker:
    """Who asked and what, as far as it could be read.

    Attributes:
        payload_digest: see `engine.validate.payload_digest`; of the whole value when refused early.
    """

    request_id: str | None
    source: str
    type: str | None
    payload_digest: bytes
    reinjection: Reinjection | None = None
    traceparent: str | None = None

    @classmethod
    def of(cls, item: WorkItem) -> "Asker":
        """Return who asked a valid request."""
        attributes = item.request.attributes
        return cls(
            request_id=attributes.id,
            source=attributes.source,
            type=attributes.type,
            payload_digest=item.request.payload_digest,
            reinjection=item.reinjection,
            traceparent=attributes.traceparent,
        )


class Endings:
    """Builds outcomes. Pure but for the clock."""

    def __init__(self, *, limits: LimitsSettings, clock: Clock, worker: str) -> None:
        self._limits = limits
        self._clock = clock
        self._worker = worker

    def result(self, item: WorkItem, progress: Progress, *, attempt: int) -> Outcome:
        """Return the outcome of a request whose last stage set an output.

        Raises:
            OutcomeTooLarge: it does not fit into a record of the results topic.
        """
        if progress.output is None or progress.model is None:
            raise InvariantError(f"route {item.route.stages} ended without output; this is a bug")
        asker = Asker.of(item)
        total_s = self._clock.monotonic_s() - item.source.received_s
        timings_ms = {**progress.timings_ms, "total": round(total_s * 1000, 3)}
        fields = _fields(
            asker,
            item.source,
            output=progress.output,
            model=progress.model,
            timings_ms=timings_ms,
            attempt=attempt,
        )
        now_unix_ms = self._clock.unix_ms()
        record = outcome_record(OutcomeKind.RESULT, fields, now_unix_ms=now_unix_ms)
        self._check_size(record)
        records = [record]
        attributes = item.request.attributes
        if (
            isinstance(item.request.data, EmbedData)
            and attributes.subject is not None
            and progress.vectors is not None
            and is_live(asker.reinjection)
        ):
            vectors = lake_vector_record(
                subject=attributes.subject,
                outcome_id=fields.outcome_id,
                request_id=attributes.id,
                source=attributes.source,
                tenant=item.request.tenant,
                model=progress.model,
                vectors=vector_bytes(progress.vectors),
                now_unix_ms=now_unix_ms,
            )
            records.append(vectors)
        return Outcome(
            fields.outcome_id,
            asker.request_id,
            OutcomeKind.RESULT,
            _label(asker),
            tuple(records),
            reinjection=asker.reinjection,
            traceparent=asker.traceparent,
            attempt=attempt,
            deadline=item.deadline,
        )

    def failure(
        self,
        kind: OutcomeKind,
        error: CortexError,
        asker: Asker,
        value: bytes | None,
        source: RecordSource,
        *,
        stage: str,
        tries: Tries = FIRST_TRY,
        model: ModelIdentity | None = None,
        timings_ms: Mapping[str, float] | None = None,
    ) -> Outcome:
        """Return the outcome of a request that ended without an answer.

        Rejected and failed requests leave a dead letter as evidence; expired ones do not, since
        nothing is wrong with them, nor do replays, whose originals are where they were.
        """
        fields = _fields(
            asker, source, model=model, timings_ms=timings_ms or {}, attempt=tries.attempt
        )
        return self._failed(
            kind,
            error,
            fields,
            value,
            source,
            stage=stage,
            label=_label(asker),
            first_failed_unix_ms=tries.first_failed_unix_ms,
        )

    def replacement(
        self, outcome: Outcome, error: OutcomeTooLarge, value: bytes | None, source: RecordSource
    ) -> Outcome:
        """Return the dead letter that takes the place of an outcome the broker found too large."""
        fields = OutcomeFields(
            outcome_id=outcome.outcome_id or "",
            request_id=outcome.request_id,
            request_type=outcome.type,
            traceparent=outcome.traceparent,
            reinjection=outcome.reinjection,
            output=None,
            error=None,
            model=None,
            timings_ms={},
            attempt=outcome.attempt,
        )
        return self._failed(
            OutcomeKind.DEAD_LETTER,
            error,
            fields,
            value,
            source,
            stage="delivery",
            label=outcome.type,
            copy=False,
        )

    def _failed(
        self,
        kind: OutcomeKind,
        error: CortexError,
        fields: OutcomeFields,
        value: bytes | None,
        source: RecordSource,
        *,
        stage: str,
        label: str,
        first_failed_unix_ms: int | None = None,
        copy: bool = True,
    ) -> Outcome:
        forget_stack(error)
        now_unix_ms = self._clock.unix_ms()
        total_s = self._clock.monotonic_s() - source.received_s
        fields = replace(
            fields,
            error=self._bounded(error),
            timings_ms={**fields.timings_ms, "total": round(total_s * 1000, 3)},
        )
        records = [outcome_record(kind, fields, now_unix_ms=now_unix_ms)]
        again = fields.reinjection
        if kind is not OutcomeKind.EXPIRED and is_live(again):
            model = fields.model
            failure = Failure(
                error=error,
                stage=stage,
                attempts=fields.attempt,
                worker=self._worker,
                model=None if model is None else f"{model.name}@{model.version}",
                first_unix_ms=now_unix_ms if first_failed_unix_ms is None else first_failed_unix_ms,
                last_unix_ms=now_unix_ms,
                redrives=0 if again is None else again.redrives,
            )
            letter = dead_letter(
                value,
                source,
                failure,
                max_message_bytes=self._limits.error_message_bytes,
                copy=copy,
            )
            records.append(letter)
        return Outcome(
            fields.outcome_id,
            fields.request_id,
            kind,
            label,
            tuple(records),
            error,
            fields.reinjection,
            fields.traceparent,
            attempt=fields.attempt,
        )

    def _check_size(self, record: OutgoingRecord) -> None:
        size_bytes = len(record.value or b"")
        if size_bytes > self._limits.outcome_bytes:
            raise OutcomeTooLarge(
                f"the outcome has {size_bytes} bytes, the results topic takes"
                f" {self._limits.outcome_bytes}; send fewer texts, or ask for"
                " encoding_format base64"
            )

    def _bounded(self, error: CortexError) -> CortexError:
        message = str(error)
        bounded = truncate_utf8(message, self._limits.error_message_bytes).decode()
        return error if bounded == message else type(error)(bounded, field=error.field)


def forget_stack(error: CortexError) -> None:
    """Let go of the stack: it holds the outcome, which holds the error.

    Such a ring would keep the record until a full garbage collection. Whoever wants the stack has
    logged it.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None


def _fields(
    asker: Asker,
    source: RecordSource,
    *,
    output: Mapping[str, Any] | None = None,
    model: ModelIdentity | None,
    timings_ms: Mapping[str, float],
    attempt: int,
) -> OutcomeFields:
    replay_id = None if asker.reinjection is None else asker.reinjection.replay_id
    if asker.request_id is None:
        identity = unreadable_outcome_id(
            topic=source.topic,
            partition=source.partition,
            offset=source.offset,
            replay_id=replay_id,
        )
    else:
        identity = outcome_id(
            source=asker.source or UNKNOWN_SOURCE,
            request_id=asker.request_id,
            payload_digest=asker.payload_digest,
            replay_id=replay_id,
        )
    return OutcomeFields(
        outcome_id=identity,
        request_id=asker.request_id,
        request_type=asker.type,
        traceparent=asker.traceparent,
        reinjection=asker.reinjection,
        output=output,
        error=None,
        model=model,
        timings_ms=timings_ms,
        attempt=attempt,
    )


def _label(asker: Asker) -> str:
    return asker.type if asker.type in DATA_BY_TYPE else "unknown"
