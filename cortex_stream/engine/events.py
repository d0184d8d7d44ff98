"""What an event of the platform makes us publish."""

import orjson

from cortex_stream.delivery.outcome import rfc3339
from cortex_stream.engine.parse import Envelope, read_attributes, read_data
from cortex_stream.errors import UnknownEvent
from cortex_stream.record import OutgoingRecord
from schemas.events import (
    EVENT_DATA_BY_TYPE,
    STREAM_PREFIX,
    STREAM_TYPE,
    DocumentEventData,
    ModelPublishedData,
)
from schemas.invalidations import InvalidationScope
from topics.names import INVALIDATIONS


def event_type_label(event_type: str) -> str:
    """Return the type as a metric label: typed events by name, those of Stream as one."""
    if event_type in EVENT_DATA_BY_TYPE:
        return event_type
    return "stream.*" if event_type.startswith(STREAM_PREFIX) else "unknown"


def decide_effects(
    envelope: Envelope, *, now_unix_ms: int, instance: str
) -> tuple[str, tuple[OutgoingRecord, ...]]:
    """Return the event's type and what must be published because of it.

    A changed or deleted document makes every cache forget what carries its tag; a published model
    version makes them forget that model's answers. Events of Stream are accepted and counted.

    Raises:
        InvalidEnvelope: an attribute is missing or wrong.
        UnknownEvent: nothing here handles this type.
        InvalidField: the data of a typed event is wrong.
    """
    attributes = read_attributes(envelope)
    if STREAM_TYPE.fullmatch(attributes.type):
        return attributes.type, ()
    model = EVENT_DATA_BY_TYPE.get(attributes.type)
    if model is None:
        raise UnknownEvent(
            f"no handler for event type {attributes.type!r}; handled:"
            f" {', '.join(EVENT_DATA_BY_TYPE)} and {STREAM_PREFIX}*",
            field="type",
        )
    scope, value = _what_to_forget(read_data(model, envelope.data))
    record = OutgoingRecord(
        topic=INVALIDATIONS,
        key=f"{scope.value}:{value}".encode(),
        value=orjson.dumps(
            {
                "scope": scope.value,
                "value": value,
                "at": rfc3339(now_unix_ms),
                "source_instance": instance,
            }
        ),
    )
    return attributes.type, (record,)


def _what_to_forget(
    data: DocumentEventData | ModelPublishedData,
) -> tuple[InvalidationScope, str]:
    if isinstance(data, DocumentEventData):
        return InvalidationScope.TAG, f"document:{data.collection}/{data.document_id}"
    return InvalidationScope.MODEL, data.name
