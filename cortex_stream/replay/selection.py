"""What a record asks, as the engine will read it, and whether a replay picks it. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from cortex_stream.delivery.identity import outcome_id, unreadable_outcome_id
from cortex_stream.engine.parse import Envelope, decode, readable_id
from cortex_stream.engine.validate import payload_digest
from cortex_stream.errors import CortexError, OperatorError
from cortex_stream.record import Headers, RecordSource
from cortex_stream.replay.plan import ReplayPlan
from cortex_stream.settings.sections import LimitsSettings
from schemas.requests import UNKNOWN_SOURCE
from topics.catalogue import LARGE_BYTES

FIELDS: Final = ("id", "source", "subject", "tenant")
"""What `--filter` may name."""
MOST_RECORD_BYTES: Final = LARGE_BYTES - (16 << 10)
"""Of value, key and headers; the rest is for our own header and for the producer's frame."""
_HEADER_FRAME_BYTES: Final = 10


@dataclass(frozen=True, slots=True)
class Asked:
    """What a record of a request topic asks, as far as it can be read.

    Attributes:
        fields: the attributes that are there, by name; `tenant` and `source` have their defaults.
        texts: how many inputs it has, at least 1.
    """

    type: str | None
    fields: Mapping[str, str]
    texts: int
    payload_digest: bytes
    place: tuple[str, int, int]

    def outcome_id(self, replay_id: str | None) -> str:
        """Return the id of its outcome, of that replay or, with None, of the request itself."""
        request_id = self.fields.get("id")
        if request_id is None:
            topic, partition, offset = self.place
            return unreadable_outcome_id(
                topic=topic, partition=partition, offset=offset, replay_id=replay_id
            )
        return outcome_id(
            source=self.fields["source"],
            request_id=request_id,
            payload_digest=self.payload_digest,
            replay_id=replay_id,
        )


def read_asked(value: bytes | None, source: RecordSource, *, limits: LimitsSettings) -> Asked:
    """Return what a record asks; never raises, since refused requests have outcomes as well.

    `source.topic` is the topic's name on the cluster.
    """
    envelope: Envelope | None = None
    try:
        envelope = decode(value, source, limits=limits)
        digest = payload_digest(_text_or_none(envelope.raw.get("type")) or "", envelope.data)
    except CortexError:
        digest = hashlib.sha256(value or b"").digest()
    request_id, stated_source = readable_id(value, source, envelope)
    raw: Mapping[str, Any] = {} if envelope is None else envelope.raw
    fields = {"source": stated_source or UNKNOWN_SOURCE}
    fields["tenant"] = _text_or_none(raw.get("tenant")) or fields["source"]
    subject = _text_or_none(raw.get("subject"))
    if subject is not None:
        fields["subject"] = subject
    if request_id is not None:
        fields["id"] = request_id
    return Asked(
        type=_text_or_none(raw.get("type")),
        fields=fields,
        texts=_count_texts(envelope),
        payload_digest=digest,
        place=(source.topic, source.partition, source.offset),
    )


@dataclass(frozen=True, slots=True)
class Selection:
    """Which records a replay picks: any of the types, and for each named field any of its values.

    Attributes:
        since_ms: timestamps from here on; None: no bound.
        until_ms: timestamps before this one; None: no bound.
    """

    types: frozenset[str]
    filters: Mapping[str, frozenset[str]]
    since_ms: int | None
    until_ms: int | None

    @classmethod
    def of(cls, plan: ReplayPlan) -> Self:
        """Return what `plan` picks."""
        names = {name for name, _ in plan.filters}
        return cls(
            frozenset(plan.types),
            {
                name: frozenset(value for each, value in plan.filters if each == name)
                for name in names
            },
            plan.since_ms,
            plan.until_ms,
        )

    @property
    def reads_values(self) -> bool:
        """Whether more than a record's timestamp counts."""
        return bool(self.types or self.filters)

    def picks_time(self, timestamp_ms: int) -> bool:
        """Tell whether a record of that time may be picked."""
        return (self.since_ms is None or timestamp_ms >= self.since_ms) and (
            self.until_ms is None or timestamp_ms < self.until_ms
        )

    def picks(self, asked: Asked) -> bool:
        """Tell whether a record that asks so, of the right time, is picked."""
        if self.types and asked.type not in self.types:
            return False
        return all(asked.fields.get(name) in values for name, values in self.filters.items())

    @staticmethod
    def fits(key: bytes | None, value: bytes | None, headers: Headers) -> bool:
        """Tell whether such a record can be put back; one that was compressed may be too large."""
        size_bytes = len(value or b"") + len(key or b"")
        size_bytes += sum(
            len(name.encode()) + len(data or b"") + _HEADER_FRAME_BYTES for name, data in headers
        )
        return size_bytes <= MOST_RECORD_BYTES


def parse_filters(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the fields and values that `--filter` names.

    Raises:
        OperatorError: one is not `field=value`, or names no field that can be filtered by.
    """
    pairs = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in FIELDS:
            raise OperatorError(
                f"reading --filter {text[:64]!r}: wanted field=value, the field one of"
                f" {', '.join(FIELDS)}"
            )
        pairs.append((name, value))
    return tuple(sorted(pairs))


def _text_or_none(value: object) -> str | None:
    return value[:256] if isinstance(value, str) and value else None


def _count_texts(envelope: Envelope | None) -> int:
    data = None if envelope is None else envelope.data
    texts = data.get("texts") if isinstance(data, dict) else None
    return max(1, len(texts)) if isinstance(texts, list) else 1
