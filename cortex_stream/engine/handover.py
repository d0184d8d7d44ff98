"""Work items between workers: into a record of a hand-over topic, and out of it again. Pure.

The source record's bytes travel unchanged and are read and validated again on arrival: one form of
a request, trusted nowhere, instead of a second one that could differ from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Final

import numpy as np
from pydantic import ValidationError

from cortex_stream.deadline import Deadline
from cortex_stream.delivery.identity import outcome_id
from cortex_stream.delivery.outcome import Outcome
from cortex_stream.delivery.retry import RetryLater, Tries
from cortex_stream.engine.stage import Matrix, Progress
from cortex_stream.errors import CortexError, InvalidHandover, InvariantError
from cortex_stream.record import Headers, OutgoingRecord, RecordSource
from cortex_stream.routing.request import Request, WorkItem
from cortex_stream.routing.route import Route, StageName
from schemas.handovers import (
    HANDOVER,
    VECTORS,
    HandedProgress,
    Handover,
    Reinjection,
    Waiting,
)
from schemas.priority import Lane
from schemas.requests import DATA_BY_TYPE, ClassifyData, RequestAttributes
from topics.names import VALIDATION, retry_topic, stage_topic

_VERSION: Final = 1
_FLOAT32_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Arrival:
    """A work item that was handed over to this worker.

    Attributes:
        origin: the source record's coordinates and headers; `received_s` is when its first worker
            polled it, on this process's monotonic clock.
        stage: the stage to go on with.
        progress: what the stages before it have found.
        deadline: what was left of it, less the time in the hand-over topic.
        tries: its attempts, the one that begins now included.
        reinjection: set once a replay or a redrive has put the request back.
        waited: set once it has waited for a retry.
    """

    origin: RecordSource
    stage: str
    progress: Progress
    deadline: Deadline | None
    tries: Tries
    reinjection: Reinjection | None
    waited: Waiting | None


def hand_over(
    item: WorkItem,
    value: bytes | None,
    *,
    stage: str,
    progress: Progress,
    attempt: int,
    now_s: float,
) -> Outcome:
    """Return what ends the work item here: the record with which a worker of `stage` goes on."""
    topic = stage_topic(stage, item.lane)
    headers = _headers(
        item.source,
        stage,
        progress,
        attempt=attempt,
        waiting=item.waited,
        reinjection=item.reinjection,
        deadline=item.deadline,
        now_s=now_s,
    )
    return _handed(item, value, topic=topic, headers=headers, stage=stage, attempt=attempt)


def set_back(
    attributes: RequestAttributes,
    payload_digest: bytes,
    value: bytes | None,
    source: RecordSource,
    *,
    lane: Lane,
    deadline: Deadline | None,
    now_s: float,
) -> Outcome:
    """Return what ends a client's request here: the record from which it is read at its turn.

    Type and data may be anything: nobody has looked at them yet.
    """
    headers = _headers(source, VALIDATION, Progress(), attempt=1, deadline=deadline, now_s=now_s)
    record = OutgoingRecord(stage_topic(VALIDATION, lane), source.key, value, headers)
    return Outcome(
        outcome_id(
            source=attributes.source,
            request_id=attributes.id,
            payload_digest=payload_digest,
            replay_id=None,
        ),
        attributes.id,
        None,
        attributes.type if attributes.type in DATA_BY_TYPE else "unknown",
        (record,),
        traceparent=attributes.traceparent,
        handed_to=VALIDATION,
        deadline=deadline,
    )


def retry_later(
    item: WorkItem,
    value: bytes | None,
    later: RetryLater,
    error: CortexError,
    tries: Tries,
    *,
    now_s: float,
    now_unix_ms: int,
) -> Outcome:
    """Return what ends the failed attempt: the record that waits for the next one."""
    waiting = Waiting(
        retry=later.retry,
        lane=item.lane,
        due_unix_ms=now_unix_ms + ceil(later.delay_s * 1000),
        first_failed_unix_ms=tries.first_failed_unix_ms or now_unix_ms,
        code=error.code,
    )
    topic, attempt = retry_topic(later.retry), tries.attempt + 1
    headers = _headers(
        item.source,
        VALIDATION,
        Progress(),
        attempt=attempt,
        waiting=waiting,
        reinjection=item.reinjection,
        deadline=item.deadline,
        now_s=now_s,
    )
    outcome = _handed(
        item, value, topic=topic, headers=headers, stage=VALIDATION, attempt=tries.attempt
    )
    return replace(outcome, error=error, waiting=waiting)


def due_in_s(source: RecordSource, *, now_unix_ms: int) -> float:
    """Return how long the record of a retry topic must wait from now on; 0 or less: not at all.

    Never longer than the wait that its writer decided on, so that a clock that was set back holds
    nothing up; the record's timestamp is the writer's clock.
    """
    try:
        waiting = _read_headers(source)[0].waiting
    except InvalidHandover:
        return 0.0  # to be told from what can be read
    if waiting is None:
        return 0.0
    decided_ms = waiting.due_unix_ms - source.timestamp_ms
    return min(waiting.due_unix_ms - now_unix_ms, decided_ms) / 1000


def read_arrival(source: RecordSource, *, now_s: float, now_unix_ms: int) -> Arrival:
    """Return the work item in a record of a hand-over topic.

    Raises:
        InvalidHandover: its last headers are not what this module writes.
    """
    handover, headers, vectors = _read_headers(source)
    if handover.stage != source.stage:
        raise InvalidHandover(
            f"reading a hand-over: it is for stage {handover.stage[:64]!r}, and its topic for"
            f" {source.stage}"
        )
    lane, waited = source.lane, handover.waiting
    kind_of_wait = "handover"
    if lane is None:
        if waited is None:
            raise InvalidHandover(f"reading header {HANDOVER}: waiting: missing on a retry topic")
        lane, kind_of_wait = waited.lane, "retry"
    passed_ms = max(0, now_unix_ms - source.timestamp_ms) if source.timestamp_ms >= 0 else 0
    left_ms = handover.left_ms
    return Arrival(
        origin=RecordSource(
            topic=handover.topic,
            partition=handover.partition,
            offset=handover.offset,
            timestamp_ms=handover.timestamp_ms,
            received_s=now_s - (handover.spent_ms + passed_ms) / 1000,
            lane=lane,
            key=source.key,
            headers=headers,
        ),
        stage=handover.stage,
        progress=_unpack(handover.progress, vectors, {kind_of_wait: float(passed_ms)}),
        deadline=None if left_ms is None else Deadline(now_s + (left_ms - passed_ms) / 1000),
        tries=Tries(
            handover.attempt,
            0 if waited is None else waited.retry,
            None if waited is None else waited.first_failed_unix_ms,
        ),
        reinjection=handover.reinjection,
        waited=waited,
    )


def position_of(arrival: Arrival, request: Request, route: Route) -> int:
    """Return where in `route` the request goes on.

    Raises:
        InvalidHandover: the route has no such stage, or what was found is of another request.
    """
    if arrival.stage != VALIDATION and arrival.stage not in route.stages:
        raise InvalidHandover(
            f"going on with stage {arrival.stage}: the route of this request has no such stage;"
            " do all workers have the same pipelines and models?"
        )
    position = 0 if arrival.stage == VALIDATION else route.stages.index(StageName(arrival.stage))
    progress = arrival.progress
    texts = len(request.data.texts)
    labels = _labels_of(request)
    wanted = (0, 0, 0) if position == 0 else (texts, texts, labels)
    there = (len(progress.tokens), _rows(progress.vectors), _rows(progress.label_vectors))
    if there != wanted:
        raise InvalidHandover(
            f"going on with stage {arrival.stage}: tokens, vectors and labels handed over are"
            f" {there}, the request has {wanted}"
        )
    return position


def _headers(
    source: RecordSource,
    stage: str,
    progress: Progress,
    *,
    attempt: int,
    deadline: Deadline | None,
    now_s: float,
    waiting: Waiting | None = None,
    reinjection: Reinjection | None = None,
) -> Headers:
    """Return the source record's headers and ours behind them."""
    found, vectors = _pack(progress)
    handover = Handover(
        version=_VERSION,
        stage=stage,
        topic=source.topic,
        partition=source.partition,
        offset=source.offset,
        timestamp_ms=source.timestamp_ms,
        attempt=attempt,
        spent_ms=max(0.0, (now_s - source.received_s) * 1000),
        left_ms=None if deadline is None else deadline.remaining_s(now_s=now_s) * 1000,
        progress=found,
        waiting=waiting,
        reinjection=reinjection,
    )
    # Without what is not said: workers of an earlier release know no such fields.
    ours: list[tuple[str, bytes | None]] = [
        (HANDOVER, handover.model_dump_json(exclude_defaults=True).encode())
    ]
    if vectors is not None:
        ours.append((VECTORS, vectors))
    return (*source.headers, *ours)


def _handed(
    item: WorkItem,
    value: bytes | None,
    *,
    topic: str,
    headers: Headers,
    stage: str,
    attempt: int,
) -> Outcome:
    attributes, again = item.request.attributes, item.reinjection
    return Outcome(
        outcome_id(
            source=attributes.source,
            request_id=attributes.id,
            payload_digest=item.request.payload_digest,
            replay_id=None if again is None else again.replay_id,
        ),
        attributes.id,
        None,
        attributes.type,
        (OutgoingRecord(topic, item.source.key, value, headers),),
        reinjection=again,
        traceparent=attributes.traceparent,
        handed_to=stage,
        attempt=attempt,
        deadline=item.deadline,
    )


def _read_headers(source: RecordSource) -> tuple[Handover, Headers, bytes | None]:
    """Return what the last headers say, the source record's own, and the vectors.

    Raises:
        InvalidHandover: they are not what `_headers` writes.
    """
    headers = list(source.headers)
    vectors = headers.pop()[1] if headers and headers[-1][0] == VECTORS else None
    if not headers or headers[-1][0] != HANDOVER:
        raise InvalidHandover(f"reading a hand-over: its last header is not {HANDOVER}")
    try:
        handover = Handover.model_validate_json(headers.pop()[1] or b"")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "the whole"
        raise InvalidHandover(f"reading header {HANDOVER}: {field}: {first['msg']}") from None
    return handover, tuple(headers), vectors


def _pack(progress: Progress) -> tuple[HandedProgress | None, bytes | None]:
    vectors, labels = progress.vectors, progress.label_vectors
    if progress.output is not None:
        raise InvariantError("handing over an answered request; this is a bug in cortex-stream")
    if vectors is None or progress.model is None:
        return None, None
    found = HandedProgress(
        dims=int(vectors.shape[1]),
        labels=_rows(labels),
        tokens=list(progress.tokens),
        truncated=list(progress.truncated),
        model=progress.model,
        timings_ms=dict(progress.timings_ms),
    )
    parts: Sequence[Matrix] = (vectors,) if labels is None else (vectors, labels)
    return found, b"".join(part.astype("<f4", copy=False).tobytes() for part in parts)


def _unpack(
    found: HandedProgress | None, vectors: bytes | None, waits_ms: Mapping[str, float]
) -> Progress:
    if found is None:
        if vectors is not None:
            raise InvalidHandover(f"reading header {VECTORS}: {HANDOVER} speaks of no vectors")
        return Progress(timings_ms=waits_ms)
    texts = len(found.tokens)
    wanted_bytes = (texts + found.labels) * found.dims * _FLOAT32_BYTES
    if len(vectors or b"") != wanted_bytes or len(found.truncated) != texts:
        raise InvalidHandover(
            f"reading header {VECTORS}: {len(vectors or b'')} bytes and {len(found.truncated)}"
            f" flags, wanted {wanted_bytes} bytes and {texts} flags"
        )
    matrix = np.frombuffer(vectors or b"", "<f4").reshape(-1, found.dims)
    if not np.isfinite(matrix).all():
        raise InvalidHandover(f"reading header {VECTORS}: not every number is finite")
    before_ms = found.timings_ms
    return Progress(
        vectors=matrix[:texts],
        label_vectors=matrix[texts:] if found.labels else None,
        tokens=tuple(found.tokens),
        truncated=tuple(found.truncated),
        model=found.model,
        timings_ms={
            **before_ms,
            **{name: before_ms.get(name, 0.0) + wait_ms for name, wait_ms in waits_ms.items()},
        },
    )


def _rows(matrix: Matrix | None) -> int:
    return 0 if matrix is None else len(matrix)


def _labels_of(request: Request) -> int:
    data = request.data
    return len(data.labels or ()) if isinstance(data, ClassifyData) else 0
