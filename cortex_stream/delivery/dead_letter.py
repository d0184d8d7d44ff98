"""The dead letter of a record: its bytes as they came, and bounded headers about the failure."""

from dataclasses import dataclass
from typing import Final

from cortex_stream.errors import CortexError
from cortex_stream.record import OutgoingRecord, RecordSource
from schemas import dead_letters as names
from topics.names import DEAD_LETTERS

MAX_COPY_BYTES: Final = (8 << 20) - (24 << 10)
"""Of value, key and headers together. The topic's max.message.bytes is 8 MiB; the rest is for our
own headers (message at most 8 KiB) and for what compression may add to bytes that do not shrink."""


MAX_HEADER_BYTES: Final = 1 << 20
"""Of all original headers, framing included; a dead letter with more leaves them out."""

_HEADER_FRAME_BYTES: Final = 10  # two lengths of at most five bytes each on the wire


@dataclass(frozen=True, slots=True)
class Failure:
    """What a dead letter tells about the failure.

    Attributes:
        stage: where it happened: `validation` or a stage of the route.
        model: `name@version`, once one was chosen.
        first_unix_ms, last_unix_ms: when the first and the last attempt failed.
        redrives: how often a dead letter of the request was redriven before.
    """

    error: CortexError
    stage: str
    attempts: int
    worker: str
    model: str | None
    first_unix_ms: int
    last_unix_ms: int
    redrives: int = 0


def dead_letter(
    value: bytes | None,
    source: RecordSource,
    failure: Failure,
    *,
    max_message_bytes: int,
    copy: bool = True,
) -> OutgoingRecord:
    """Return the record for `cortex.dead-letters`, under the original key.

    Original headers stay unchanged beside ours; ours of an earlier dead letter are replaced. A
    value that would not fit, or of which no copy is wanted, is left out and its size stands in
    `cortex_dlt-truncated`: topic, partition and offset lead to it while the source topic retains
    it. A null value without a key is kept as an empty one. Key and headers go as well where they are what does not fit.
    """
    ours: list[tuple[str, bytes | None]] = [
        (names.CODE, failure.error.code.encode()),
        (names.MESSAGE, truncate_utf8(str(failure.error), max_message_bytes)),
        (names.CLASS, type(failure.error).__name__.encode()),
        (names.STAGE, failure.stage.encode()),
        (names.ATTEMPTS, str(failure.attempts).encode()),
        (names.WORKER, failure.worker.encode()),
        (names.MODEL, (failure.model or "").encode()),
        (names.FIRST_TIME, str(failure.first_unix_ms).encode()),
        (names.LAST_TIME, str(failure.last_unix_ms).encode()),
        (names.ORIGINAL_TOPIC, source.topic.encode()),
        (names.ORIGINAL_PARTITION, str(source.partition).encode()),
        (names.ORIGINAL_OFFSET, str(source.offset).encode()),
        (names.ORIGINAL_TIMESTAMP, str(source.timestamp_ms).encode()),
    ]
    if failure.redrives:
        ours.append((names.REDRIVE_COUNT, str(failure.redrives).encode()))
    original = [(name, data) for name, data in source.headers if name not in _OURS]
    key, copied = source.key, value
    header_bytes = sum(
        len(name.encode()) + len(data or b"") + _HEADER_FRAME_BYTES for name, data in original
    )
    rest_bytes = header_bytes + len(key or b"")
    rest_fits = header_bytes <= MAX_HEADER_BYTES and rest_bytes <= MAX_COPY_BYTES
    if not (copy and rest_fits and rest_bytes + len(value or b"") <= MAX_COPY_BYTES):
        ours.append((names.TRUNCATED, str(len(value or b"")).encode()))
        copied = b""
        if not (copy and rest_fits):
            key, original = None, []
    if key is None and copied is None:
        copied = b""  # the client writes no record that has neither
    return OutgoingRecord(DEAD_LETTERS, key, copied, (*original, *ours))


def truncate_utf8(text: str, max_bytes: int) -> bytes:
    """Return `text` as UTF-8 in at most `max_bytes`, never ending within a character."""
    encoded = text.encode("utf-8", errors="replace")
    return encoded[:max_bytes].decode("utf-8", errors="ignore").encode()


_OURS: Final = frozenset((*names.HEADERS, names.TRUNCATED, names.REDRIVE_COUNT))
