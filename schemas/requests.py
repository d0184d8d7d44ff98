"""Requests: CloudEvents that ask for work.

Only `id`, `type` and `data` are demanded. Defaults: `source` is `//unknown`, `specversion` is
`1.0`, `tenant` is the source.
"""

import datetime as dt
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from schemas.contract import (
    MAX_SAFE_INTEGER,
    Attributes,
    Identifier,
    NonEmptyText,
    Payload,
)
from schemas.priority import Priority

UNKNOWN_SOURCE: Final = "//unknown"
MAX_TRACE_CHARS: Final = 256

EMBED: Final = "cortex.nlp.embed.v1"
CLASSIFY: Final = "cortex.nlp.classify.v1"

ModelReference = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}(@[A-Za-z0-9][A-Za-z0-9._-]{0,31})?$"),
]
"""`name` or `name@version`."""


JsonMediaType = Annotated[
    str, StringConstraints(pattern=r"^application/([a-z0-9.-]+\+)?json *(;.*)?$")
]
"""`application/json`, a `+json` type, with or without parameters."""


def _instant(value: object) -> object:
    """Parse RFC 3339, which pydantic's strict mode takes only as a datetime."""
    if not isinstance(value, str):
        return value
    try:
        instant = dt.datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("is not an RFC 3339 time such as 2026-01-31T12:00:00Z") from None
    if instant.tzinfo is None:
        raise ValueError("has no offset; write UTC as 2026-01-31T12:00:00Z")
    return instant


Instant = Annotated[dt.datetime, BeforeValidator(_instant)]


class RequestAttributes(Attributes):
    """The CloudEvents attributes of a request, apart from its `data`."""

    id: Identifier
    type: Identifier
    source: Identifier = UNKNOWN_SOURCE
    specversion: Literal["1.0"] = "1.0"
    time: Instant | None = None
    subject: Identifier | None = None
    datacontenttype: JsonMediaType | None = None
    priority: Priority | None = Field(None, strict=False)
    deadlinems: int | None = Field(None, ge=0, le=MAX_SAFE_INTEGER)
    traceparent: str | None = Field(None, max_length=MAX_TRACE_CHARS)
    tenant: Identifier | None = None


class EmbedData(Payload):
    """Texts to turn into vectors."""

    texts: list[NonEmptyText] = Field(min_length=1, fail_fast=True)
    model: ModelReference | None = None
    encoding_format: Literal["base64", "float"] = "base64"
    input_type: Literal["query", "passage"] | None = None


class ClassifyData(Payload):
    """Texts to sort under labels: the given ones, or those a classification model was trained on."""

    texts: list[NonEmptyText] = Field(min_length=1, fail_fast=True)
    labels: list[NonEmptyText] | None = Field(None, min_length=1, fail_fast=True)
    model: ModelReference | None = None
    multi_label: bool = False


class EmbedRequest(RequestAttributes):
    """A request of type `cortex.nlp.embed.v1`, as a producer writes it."""

    type: Literal["cortex.nlp.embed.v1"]
    data: EmbedData


class ClassifyRequest(RequestAttributes):
    """A request of type `cortex.nlp.classify.v1`, as a producer writes it."""

    type: Literal["cortex.nlp.classify.v1"]
    data: ClassifyData


RequestData = EmbedData | ClassifyData
DATA_BY_TYPE: Final[dict[str, type[EmbedData | ClassifyData]]] = {
    EMBED: EmbedData,
    CLASSIFY: ClassifyData,
}
"""The payload model of each request type that this release answers."""
