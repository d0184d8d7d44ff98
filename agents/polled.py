"""Polled records: what each weighs, and how many of them one turn of the event loop takes."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from cortex_stream.kafka.undecodable import Record
from cortex_stream.scheduling.admission import weight_bytes

# No turn of the event loop may take more than 50 ms of CPU. One turn starts at most a slice per
# agent: 13 agents x 8 records x 0.3 ms of parsing = 31 ms; a larger record is a slice of its own.
SLICE_RECORDS: Final = 8
SLICE_BYTES: Final = 32 << 10
_TEXT_KEYS: Final = (b'"texts"', b'"labels"')
_HEADER_BYTES: Final = 100  # a tuple, a str and a bytes object


class Taken(NamedTuple):
    """Records of one partition, and what each weighs in memory."""

    records: list[Record]
    weights_bytes: list[int]


class PolledRecord(Protocol):
    """One record as the Kafka client gives it."""

    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...  # noqa: D102


def memory_bytes(record: PolledRecord) -> int:
    """Return about what the record itself is in memory: many small headers are more than they say."""
    size = len(record.key or b"") + len(record.value or b"")
    for name, value in record.headers:
        size += len(name) + len(value or b"") + _HEADER_BYTES
    return size


def weigh(record: PolledRecord, *, most_texts: int) -> int:
    """Return about what answering the record holds in memory, from its bytes alone.

    Texts are the strings between the key `texts` or `labels`, whichever comes first, and the last
    array's end, `most_texts` at most.
    """
    value = record.value or b""
    begins = [at for key in _TEXT_KEYS if (at := value.find(key)) >= 0]
    strings = value.count(b'"', min(begins, default=0), value.rfind(b"]") + 1) // 2
    texts = strings - 1 if strings > 1 else 1  # one of the strings is the key
    texts = min(texts, most_texts)
    return weight_bytes(record_bytes=memory_bytes(record), texts=texts)


def slices(records: Sequence[PolledRecord]) -> Iterator[Sequence[PolledRecord]]:
    """Cut into what one turn of the event loop can take."""
    begin = size_bytes = 0
    for index, record in enumerate(records):
        record_bytes = memory_bytes(record)
        full = index - begin == SLICE_RECORDS or size_bytes + record_bytes > SLICE_BYTES
        if full and index > begin:
            yield records[begin:index]
            begin, size_bytes = index, 0
        size_bytes += record_bytes
    yield records[begin:]
