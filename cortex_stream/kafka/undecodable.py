"""Records that aiokafka cannot decode, such as one with a header name that is not UTF-8.

aiokafka's iterator dies of such a record, and again whenever its batch is fetched anew, so that one
record would stop its partition for ever. Here the batch is read once more, record by record: the
broker has checked each record's length, so what follows a broken one is found.

Leans on private names of aiokafka, which is pinned; `tests/integration/agents` holds it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from aiokafka.consumer import fetcher as aiokafka_fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy
from aiokafka.record.util import decode_varint
from aiokafka.structs import ConsumerRecord, TopicPartition

_MAGIC: Final = 2  # of the record format since Kafka 0.11; brokers since 4.0 know no other


@dataclass(frozen=True, slots=True)
class UndecodableRecord:
    """A record of which only the coordinates are known.

    Attributes:
        timestamp: milliseconds since 1970; negative when it has none.
        unreadable: why.
    """

    offset: int
    timestamp: int
    unreadable: str
    key: None = None
    value: None = None
    headers: tuple[()] = ()


Record: TypeAlias = ConsumerRecord[bytes, bytes] | UndecodableRecord


class _KeptRecords(MemoryRecords):  # type: ignore[misc]
    """Fetched records that can be read a second time."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        self.raw = raw


def keep_fetched_bytes() -> None:
    """Let `salvage` work on whatever this process fetches from now on. Idempotent."""
    aiokafka_fetcher.MemoryRecords = _KeptRecords


def salvage(fetcher: Any, at: TopicPartition, *, most_records: int) -> list[Record]:
    """Take up to `most_records` of what was fetched of `at`, past records that are undecodable.

    For after `fetcher.fetched_records` has raised: that moved no position, so nothing is missing.
    Empty if the reason was no single record: a fetch was refused, or a batch came damaged.
    """
    fetched = fetcher._records.get(at)  # noqa: SLF001
    if not isinstance(fetched, aiokafka_fetcher.FetchResult):
        return []
    unpacker = fetched._partition_records  # noqa: SLF001
    position = fetched._assignment.state_value(at).position  # noqa: SLF001
    taken: list[Record] = []
    for record in _read(unpacker._records.raw):  # noqa: SLF001
        if len(taken) == most_records:
            break
        if record.offset >= position:
            readable = not isinstance(record, UndecodableRecord)
            taken.append(unpacker._consumer_record(at, record) if readable else record)  # noqa: SLF001
    if taken:
        fetcher.seek_to(at, taken[-1].offset + 1)
    return taken


def _read(raw: bytes) -> Iterator[Any]:
    """Yield the records up to the first damaged batch."""
    batches: Any = _MemoryRecordsPy(raw)
    while (piece := batches._next_slice) is not None:  # noqa: SLF001
        batches._cache_next()  # noqa: SLF001
        if piece[batches.MAGIC_OFFSET] != _MAGIC:
            return
        batch = _PatientBatch(piece)
        if not batch.validate_crc():
            return
        if not batch.is_control_batch:
            yield from batch


# Final, but only for speed.
class _PatientBatch(_DefaultRecordBatchPy):  # type: ignore[misc]
    """Steps over what it cannot decode."""

    _pos: int

    def _read_msg(self, decode_varint: Any = decode_varint) -> Any:
        begin = self._pos
        try:
            return super()._read_msg(decode_varint)
        except Exception as error:  # noqa: BLE001 (whatever it is, the record is unreadable)
            length_bytes, pos = decode_varint(self._buffer, begin)
            self._pos = pos + length_bytes
            _attributes, pos = decode_varint(self._buffer, pos)
            later_ms, pos = decode_varint(self._buffer, pos)
            further, pos = decode_varint(self._buffer, pos)
            appended = self.timestamp_type == self.LOG_APPEND_TIME
            return UndecodableRecord(
                offset=self.base_offset + further,
                timestamp=self.max_timestamp if appended else self.first_timestamp + later_ms,
                unreadable=str(error),
            )
