"""The end of a request as a value, and as the records that make it durable."""

import base64
import datetime as dt
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import orjson

from cortex_stream.deadline import Deadline
from cortex_stream.errors import CortexError, Disposition
from cortex_stream.record import OutgoingRecord
from cortex_stream.values import value
from schemas.handovers import Reinjection, Waiting
from schemas.outcomes import ModelIdentity, OutcomeKind
from topics.names import LAKE_VECTORS, REPLAYS, RESULTS


@value()
class Outcome:
    """The one terminal answer of a request, or the effect of an event.

    Attributes:
        outcome_id: equal for equal requests, however often they are processed; None for events.
        request_id: None when it could not be read.
        kind: how it ended; None for an event that took effect, and for a request handed over.
        type: request or event type if it is one we know, else `unknown`: safe as a metric label.
        records: everything that must be durable before the source record may be acknowledged,
            in the order in which it is produced.
        error: what went wrong, for logs and the status page.
        reinjection: set once a replay or a redrive has put the request back.
        handed_to: the stage whose workers go on with the request; None once it has ended.
        waiting: set where it waits for a retry until then.
        attempt: how many there were, over all workers.
        deadline: the moment after which nobody waits for it; None without one, or where it ended
            without an answer.
    """

    outcome_id: str | None
    request_id: str | None
    kind: OutcomeKind | None
    type: str
    records: tuple[OutgoingRecord, ...]
    error: CortexError | None = None
    reinjection: Reinjection | None = None
    traceparent: str | None = None
    handed_to: str | None = None
    waiting: Waiting | None = None
    attempt: int = 1
    deadline: Deadline | None = None


Answering = Callable[[], Coroutine[Any, Any, Outcome]]
"""What finds an outcome when it is called; who has no more use for it need not call it."""


@value()
class OutcomeFields:
    """What an outcome record says, apart from its kind and time."""

    outcome_id: str
    request_id: str | None
    request_type: str | None
    traceparent: str | None
    reinjection: Reinjection | None
    output: Mapping[str, Any] | None
    error: CortexError | None
    model: ModelIdentity | None
    timings_ms: Mapping[str, float]
    attempt: int


def outcome_record(kind: OutcomeKind, fields: OutcomeFields, *, now_unix_ms: int) -> OutgoingRecord:
    """Return the CloudEvent for `cortex.results`, or for `cortex.replays` where a replay says so.

    Encoded from plain dictionaries, since this runs for every request; a test holds it against
    `schemas.outcomes.Outcome`.
    """
    again = fields.reinjection
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": fields.outcome_id,
        "source": "//cortex-stream",
        "type": kind.type,
        "time": rfc3339(now_unix_ms),
        "datacontenttype": "application/json",
    }
    if fields.request_id is not None:
        event["subject"] = fields.request_id
    if fields.traceparent is not None:
        event["traceparent"] = fields.traceparent
    event["data"] = {
        "request_id": fields.request_id,
        "request_type": fields.request_type,
        "output": fields.output,
        "error": None if fields.error is None else _error(fields.error),
        "model": None if fields.model is None else _model(fields.model),
        "timings_ms": fields.timings_ms,
        "attempt": fields.attempt,
        "cache": None,
        "replay_id": None if again is None else again.replay_id,
    }
    return OutgoingRecord(
        topic=RESULTS if is_live(again) else REPLAYS,
        key=(fields.request_id or fields.outcome_id).encode(),  # repetitions share a partition
        value=_exact(orjson.dumps(event, option=orjson.OPT_SERIALIZE_NUMPY)),
    )


def is_live(reinjection: Reinjection | None) -> bool:
    """Tell whether everybody may read the outcome, or only those who asked for a replay."""
    return reinjection is None or reinjection.publish_to == "results"


def lake_vector_record(
    *,
    subject: str,
    outcome_id: str,
    request_id: str,
    source: str,
    tenant: str,
    model: ModelIdentity,
    vectors: list[bytes],
    now_unix_ms: int,
) -> OutgoingRecord:
    """Return the `lake.vector.v1` record of a subject. `vectors`: little-endian float32 bytes."""
    value = {
        "schema_version": "lake.vector.v1",
        "subject": subject,
        "request_id": request_id,
        "outcome_id": outcome_id,
        "source": source,
        "tenant": tenant,
        "model": _model(model),
        "dims": len(vectors[0]) // 4,
        "vectors": [base64.b64encode(vector).decode() for vector in vectors],
        "time": rfc3339(now_unix_ms),
    }
    return OutgoingRecord(LAKE_VECTORS, subject.encode(), _exact(orjson.dumps(value)))


def _exact(encoded: bytes) -> bytes:
    """Return a copy without room to spare: orjson's 2 KB keep a buffer of 32 while they wait."""
    return bytes(memoryview(encoded))


def rfc3339(unix_ms: int) -> str:
    """Return the moment as RFC 3339 in UTC with milliseconds."""
    moment = dt.datetime.fromtimestamp(unix_ms / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _error(error: CortexError) -> dict[str, object]:
    return {
        "code": error.code,
        "message": str(error),
        "field": error.field,
        "retryable": error.disposition is Disposition.RETRY,
    }


def _model(model: ModelIdentity) -> dict[str, str | bool]:
    return {
        "name": model.name,
        "version": model.version,
        "digest": model.digest,
        "batch_invariant": model.batch_invariant,
    }
