"""Events: CloudEvents that tell what happened in Lake, Stream and Forge.

Events of one `subject` take effect in the order in which they were written.
"""

import re
from typing import Final, Literal

from pydantic import Field, JsonValue

from schemas.contract import Identifier, Payload
from schemas.requests import RequestAttributes

DOCUMENT_CHANGED: Final = "lake.document.changed.v1"
DOCUMENT_DELETED: Final = "lake.document.deleted.v1"
MODEL_PUBLISHED: Final = "forge.model.published.v1"
STREAM_TYPE: Final = re.compile(r"^stream\.[a-z0-9_.-]+$")
STREAM_PREFIX: Final = "stream."
"""Every type below it is a real-time event of Stream; its data is free-form JSON."""


class EventAttributes(RequestAttributes):
    """The CloudEvents attributes of an event; `subject` names what the event is about."""


class DocumentEventData(Payload):
    """A document of a collection has another text now, or none."""

    collection: Identifier
    document_id: Identifier


class ModelPublishedData(Payload):
    """Forge offers a model version."""

    name: Identifier
    version: Identifier


class DocumentChanged(EventAttributes):
    """A document's text changed: whatever was derived from the old one is stale."""

    type: Literal["lake.document.changed.v1"]
    data: DocumentEventData


class DocumentDeleted(EventAttributes):
    """A document is gone, and so must be whatever was derived from it."""

    type: Literal["lake.document.deleted.v1"]
    data: DocumentEventData


class ModelPublished(EventAttributes):
    """A model version was published: answers of its alias may differ from now on."""

    type: Literal["forge.model.published.v1"]
    data: ModelPublishedData


class StreamEvent(EventAttributes):
    """A real-time event of Stream."""

    type: str = Field(pattern=STREAM_TYPE.pattern)
    data: dict[str, JsonValue] | list[JsonValue] | str | float | bool


EVENT_DATA_BY_TYPE: Final[dict[str, type[DocumentEventData | ModelPublishedData]]] = {
    DOCUMENT_CHANGED: DocumentEventData,
    DOCUMENT_DELETED: DocumentEventData,
    MODEL_PUBLISHED: ModelPublishedData,
}
"""The payload model of each event type with typed data."""
