"""An engine with stub models, and requests for it."""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson

from cortex_stream.clock import Clock, ManualClock
from cortex_stream.delivery.outcome import Outcome
from cortex_stream.engine.classification import ClassificationStage
from cortex_stream.engine.embedding import EmbeddingStage
from cortex_stream.engine.endings import Endings
from cortex_stream.engine.engine import Engine
from cortex_stream.engine.models import KnownModel, ServedModels
from cortex_stream.engine.reuse import DedupeWindow
from cortex_stream.inference.model import LoadedModel
from cortex_stream.record import Headers, OutgoingRecord, RecordSource
from cortex_stream.routing.pipeline import BUILT_IN, Pipeline
from cortex_stream.routing.route import StageName
from cortex_stream.scheduling.batcher import BatchRule
from cortex_stream.scheduling.crowding import Crowding
from cortex_stream.settings.sections import LimitsSettings, RetriesSettings
from cortex_stream.testing.stub_runner import stub_model
from schemas.handovers import HANDOVER, Handover, Reinjection
from schemas.outcomes import Outcome as OutcomeMessage
from schemas.priority import Lane
from schemas.requests import EMBED
from topics.names import DEAD_LETTERS, REPLAYS, RESULTS, VALIDATION

LIMITS = LimitsSettings()
NEVER_LATER = RetriesSettings(most=0)


@asynccontextmanager
async def open_engine(
    *loaded: LoadedModel,
    clock: Clock | None = None,
    limits: LimitsSettings = LIMITS,
    most_request_bytes: int = sys.maxsize,
    stages: Sequence[StageName] = tuple(StageName),
    known: Sequence[KnownModel] = (),
    pipelines: Sequence[Pipeline] = BUILT_IN,
    crowding: Crowding | None = None,
    max_attempts: int = 3,
    retries: RetriesSettings | None = None,
    dedupe: DedupeWindow | None = None,
) -> AsyncIterator[Engine]:
    """Yield an engine that serves `loaded`, or one stub model where none is `known`."""
    clock = clock or ManualClock()
    served = loaded or (() if known else (stub_model(),))
    default = served[0].name if served else known[0].identity.name
    async with ServedModels(
        served,
        default=default,
        rule=lambda _: BatchRule(max_rows=8, max_tokens=256),
        run_timeout_s=30,
        clock=clock,
        on_stuck=lambda _: None,
        known=known,
    ) as models:
        hosted = (EmbeddingStage(models, clock), ClassificationStage(models, clock))
        yield Engine(
            models=models,
            stages={stage.name: stage for stage in hosted if stage.name in stages},
            pipelines=pipelines,
            endings=Endings(limits=limits, clock=clock, worker="worker-0"),
            limits=limits,
            max_attempts=max_attempts,
            clock=clock,
            instance="worker-0",
            most_request_bytes=most_request_bytes,
            crowding=crowding,
            dedupe=dedupe,
            retries=retries,
        )


def source(
    *,
    lane: Lane | None = Lane.MEDIUM,
    offset: int = 7,
    timestamp_ms: int = 1_700_000_000_000,
    received_s: float = 1000.0,
    headers: Headers = (),
) -> RecordSource:
    return RecordSource(
        topic="cortex.requests.medium",
        partition=1,
        offset=offset,
        timestamp_ms=timestamp_ms,
        received_s=received_s,
        lane=lane,
        key=b"key",
        headers=headers,
    )


def put_back(
    again: Reinjection, *, lane: Lane = Lane.REPLAY, left_ms: float | None = None
) -> RecordSource:
    """Return the place of a record that a replay or a redrive has put back."""
    origin = source()
    handover = Handover(
        version=1,
        stage=VALIDATION,
        topic=origin.topic,
        partition=origin.partition,
        offset=origin.offset,
        timestamp_ms=origin.timestamp_ms,
        attempt=1,
        spent_ms=0.0,
        left_ms=left_ms,
        progress=None,
        reinjection=again,
    )
    headers = [(HANDOVER, handover.model_dump_json().encode())]
    return replace(
        origin, topic="put-back", offset=99, lane=lane, headers=headers, stage=VALIDATION
    )


def request(
    texts: Sequence[str] = ("hello",),
    *,
    type: str = EMBED,  # noqa: A002 (as CloudEvents calls it)
    data: dict[str, object] | None = None,
    **attributes: object,
) -> bytes:
    event: dict[str, Any] = {"id": "1", "type": type, **attributes}
    event["data"] = {"texts": list(texts), **(data or {})}
    return orjson.dumps(event)


def record_of(outcome: Outcome) -> OutgoingRecord:
    """Return the one record that is the outcome itself."""
    [record] = [each for each in outcome.records if each.topic in {RESULTS, REPLAYS}]
    return record


def message_of(outcome: Outcome) -> OutcomeMessage:
    """Return the outcome as consumers read it; strict, so every test holds the schema too."""
    return OutcomeMessage.model_validate_json(record_of(outcome).value or b"", strict=True)


def code_of(outcome: Outcome) -> str | None:
    error = message_of(outcome).data.error
    return None if error is None else error.code


def letter_of(outcome: Outcome) -> OutgoingRecord:
    [letter] = [each for each in outcome.records if each.topic == DEAD_LETTERS]
    return letter
