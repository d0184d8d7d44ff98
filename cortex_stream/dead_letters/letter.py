"""One dead letter as a value: the record that failed, and what its headers say of the failure. Pure.

Others may have written to the topic: a header that is damaged or missing is None, `unknown` or
empty, never an error.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from cortex_stream.engine.parse import Envelope, binary_attributes, decode, readable_id
from cortex_stream.errors import CortexError, PoisonousRecord
from cortex_stream.record import Headers, RecordSource
from cortex_stream.settings.sections import LimitsSettings
from schemas import dead_letters as names
from schemas.contract import MAX_SAFE_INTEGER
from schemas.requests import UNKNOWN_SOURCE

OURS: Final = frozenset((*names.HEADERS, names.TRUNCATED, names.REDRIVE_COUNT))
"""The headers that are about the failure; all others are the original's."""
UNKNOWN: Final = "unknown"

_HARMFUL: Final = frozenset({PoisonousRecord.code})
"""Codes of records that may end whatever process reads them."""

_MOST_DIGITS: Final = 16  # of 2**53


class Place(NamedTuple):
    """Where a letter lies on `cortex.dead-letters`; its name, as `0:42`."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


class Origin(NamedTuple):
    """Where the failed record lies, or lay. `topic` is the name on the cluster."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What the failed record asks, as far as it can be read.

    Attributes:
        tenant: as the engine takes it: by default the source.
        deadline_ms: how long an answer is of use.
    """

    request_id: str | None = None
    type: str | None = None
    source: str | None = None
    tenant: str = UNKNOWN_SOURCE
    deadline_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter.

    Attributes:
        written_ms: when it was written.
        headers: all of them, the original's first.
        size_bytes: of the original value, whether it is here or not.
        truncated: the original was too large: its value, or more, is only where `origin` says.
        attempts, first_ms, last_ms: of the failure; None where the header is damaged.
        origin: None where the headers do not say.
        redrives: how often letters of this request had been redriven when it failed.
    """

    place: Place
    written_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    size_bytes: int
    truncated: bool
    code: str
    message: str
    error_class: str
    stage: str
    worker: str
    model: str
    attempts: int | None
    first_ms: int | None
    last_ms: int | None
    origin: Origin | None
    redrives: int
    asked: Asked

    @property
    def harmful(self) -> bool:
        """Whether it may end whatever process reads it."""
        return self.code in _HARMFUL

    @property
    def original_headers(self) -> Headers:
        """The headers that the failed record had."""
        return tuple((name, data) for name, data in self.headers if name not in OURS)

    def without_payload(self) -> "Letter":
        """Return what a list needs, a few hundred bytes of it."""
        return replace(self, key=None, value=None, headers=())


def read_letter(
    *,
    place: Place,
    written_ms: int,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    limits: LimitsSettings,
) -> Letter:
    """Return the letter in a record of `cortex.dead-letters`.

    A value larger than a request may be (`limits`) is not decoded; its id is found if it comes
    first.
    """
    said = {name: data or b"" for name, data in headers if name in OURS}

    def text(name: str) -> str:
        return said.get(name, b"").decode(errors="replace")

    def number(name: str) -> int | None:
        return _number(said.get(name, b""))

    topic, partition, offset = (
        text(names.ORIGINAL_TOPIC),
        *map(number, (names.ORIGINAL_PARTITION, names.ORIGINAL_OFFSET)),
    )
    timestamp_ms = number(names.ORIGINAL_TIMESTAMP)
    origin = None
    if topic and partition is not None and partition >= 0 and offset is not None and offset >= 0:
        origin = Origin(topic, partition, offset, -1 if timestamp_ms is None else timestamp_ms)
    original = [(name, data) for name, data in headers if name not in OURS]
    return Letter(
        place=place,
        written_ms=written_ms,
        key=key,
        value=value,
        headers=tuple(headers),
        size_bytes=max(number(names.TRUNCATED) or 0, len(value or b"")),
        truncated=names.TRUNCATED in said,
        code=text(names.CODE) or UNKNOWN,
        message=text(names.MESSAGE),
        error_class=text(names.CLASS),
        stage=text(names.STAGE),
        worker=text(names.WORKER),
        model=text(names.MODEL),
        attempts=number(names.ATTEMPTS),
        first_ms=number(names.FIRST_TIME),
        last_ms=number(names.LAST_TIME),
        origin=origin,
        redrives=max(0, number(names.REDRIVE_COUNT) or 0),
        asked=asked_by(value, original, limits=limits, parse=text(names.CODE) not in _HARMFUL),
    )


def with_original(
    letter: Letter,
    *,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    limits: LimitsSettings,
) -> Letter:
    """Return a letter in pointer form with the record that it points to."""
    ours = tuple((name, data) for name, data in letter.headers if name in OURS)
    return replace(
        letter,
        key=key,
        value=value,
        headers=(*headers, *ours),
        size_bytes=len(value or b""),
        truncated=False,
        asked=asked_by(value, headers, limits=limits, parse=not letter.harmful),
    )


def asked_by(
    value: bytes | None, headers: Headers, *, limits: LimitsSettings, parse: bool = True
) -> Asked:
    """Return who asks what, read as the engine reads it; without `parse` only what stands in front."""
    source = RecordSource(
        topic="", partition=0, offset=0, timestamp_ms=-1, received_s=0.0, headers=headers
    )
    envelope: Envelope | None = None
    if parse:
        with suppress(CortexError):
            envelope = decode(value, source, limits=limits)
    request_id, asking = readable_id(value, source, envelope)
    raw = binary_attributes(source) if envelope is None else envelope.raw
    stated = raw or {}
    deadline_ms = stated.get("deadlinems")
    in_range = type(deadline_ms) is int and 0 <= deadline_ms <= MAX_SAFE_INTEGER
    return Asked(
        request_id=request_id,
        type=_text(stated.get("type")),
        source=asking,
        tenant=_text(stated.get("tenant")) or asking or UNKNOWN_SOURCE,
        deadline_ms=deadline_ms if in_range else None,
    )


def parse_place(text: str) -> Place:
    """Return the place that `0:42` names.

    Raises:
        ValueError: it names none.
    """
    partition, colon, offset = text.partition(":")
    if not colon or not all(_is_digits(part) for part in (partition, offset)):
        raise ValueError(f"{text!r} is not <partition>:<offset>, such as 0:42")
    return Place(int(partition), int(offset))


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


def _number(data: bytes) -> int | None:
    digits = data.removeprefix(b"-")
    if not digits.isdigit() or len(digits) > _MOST_DIGITS:
        return None
    number = int(data)
    return number if abs(number) <= MAX_SAFE_INTEGER else None


def _text(value: object) -> str | None:
    return value[:256] if isinstance(value, str) and value else None
