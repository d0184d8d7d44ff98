"""From a polled batch to durable outcomes: one task per request, one per batch of events.

Invariants:
    A record finishes only after every record of its outcome is durable.
    An error that the engine did not foresee ends the process; its record stays unfinished.

Owner: the worker's event loop.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, NamedTuple, Protocol

import structlog

from agents.track import Track, Tracks
from cortex_stream.delivery.outcome import Outcome
from cortex_stream.errors import BrokerUnavailable, InvariantError, OutcomeTooLarge
from cortex_stream.kafka.undecodable import UndecodableRecord
from cortex_stream.record import OutgoingRecord, RecordSource
from cortex_stream.routing.hosting import Feed
from cortex_stream.scheduling.admission import weight_bytes
from cortex_stream.task_scope import TaskScope

# No turn of the event loop may take more than 50 ms of CPU. One turn starts at most a slice per
# agent: 6 agents x 8 records x 0.3 ms of parsing = 14 ms; a larger record is a slice of its own.
_SLICE_RECORDS: Final = 8
_SLICE_BYTES: Final = 32 << 10
# And one turn ends at most what the broker confirms at once: 512 x 0.03 ms = 15 ms. At 10 ms a
# round trip that is 50,000 outcomes a second.
_UNCONFIRMED_OUTCOMES: Final = 512
_MIN_BACKOFF_S: Final = 0.2
_MAX_BACKOFF_S: Final = 5.0
_LOOK_AGAIN_S: Final = 0.01
_HEADER_BYTES: Final = 100  # a tuple, a str and a bytes object

log = structlog.stdlib.get_logger(__name__)


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


class Batch(NamedTuple):
    """The records of one partition from one poll.

    Attributes:
        received_s: when they were polled, on the monotonic clock.
    """

    track: Track
    records: Sequence[PolledRecord]
    received_s: float


class Engine(Protocol):
    """Answers requests and events."""

    async def process(self, value: bytes | None, source: RecordSource) -> Outcome:
        """Answer one request. Whatever it raises means: this process cannot go on."""
        ...

    def process_event(self, value: bytes | None, source: RecordSource) -> Outcome:
        """Return the effect of one event."""
        ...

    def unreadable(self, source: RecordSource, reason: str) -> Outcome:
        """Reject a record of which only the coordinates are known."""
        ...

    def too_large(
        self, outcome: Outcome, value: bytes | None, source: RecordSource, error: OutcomeTooLarge
    ) -> Outcome:
        """Return what to publish in place of `outcome`."""
        ...


class Core(Protocol):
    """The worker behind the edge, started."""

    @property
    def engine(self) -> Engine:
        """Answers the records."""
        ...

    def settled(self, outcome: Outcome, source: RecordSource) -> None:
        """Count an outcome that is durable now."""
        ...


class Producer(Protocol):
    """Makes records durable."""

    async def send(self, *records: OutgoingRecord) -> None:
        """Produce in order; return once all are durable.

        Raises:
            OutcomeTooLarge: a record does not fit; sending it again will not help.
            BrokerUnavailable: sending again may help.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Answer:
    """An outcome on its way into the log, and the record that it answers."""

    value: bytes | None
    source: RecordSource
    outcome: Outcome


class Intake:
    """Runs the engine on what was polled."""

    def __init__(
        self, core: Core, producer: Producer, tracks: Tracks, *, drain_timeout_s: float
    ) -> None:
        self.tracks = tracks
        self._core = core
        self._producer = producer
        self._drain_timeout_s = drain_timeout_s
        self._scope = TaskScope()
        self._confirming = asyncio.Semaphore(_UNCONFIRMED_OUTCOMES)
        self._waiting_outcomes = 0

    async def start(self) -> None:
        """Begin on the running loop."""
        await self._scope.__aenter__()

    async def wait_failed(self) -> None:
        """Wait until something happens after which the process must end; raise it."""
        await self._scope.wait_failed()

    @property
    def unreachable(self) -> bool:
        """Whether outcomes wait because no broker took them."""
        return self._waiting_outcomes > 0

    async def take_requests(self, batch: Batch, feed: Feed) -> None:
        """Start one task per record; return when all are started or the assignment ended."""
        for piece in _slices(batch.records):
            if not batch.track.open:
                return
            for record in piece:
                _ = self._scope.start(self._answer(record, feed, batch), name="answer")
            await asyncio.sleep(0)

    async def take_events(self, batch: Batch) -> None:
        """Handle the events in order; return when their effects are durable."""
        # In the scope, so that draining waits for it; awaited, so that the next batch comes after.
        _ = await asyncio.wait([self._scope.start(self._handle(batch), name="events")])

    async def drain(self) -> None:
        """Wait until nothing runs, for a bounded time; cancel what runs then."""
        try:
            async with asyncio.timeout(self._drain_timeout_s):
                while len(self._scope):  # noqa: ASYNC110 (a scope has no event; rebalances are rare)
                    await asyncio.sleep(_LOOK_AGAIN_S)
        except TimeoutError:
            log.warning("intake.drain_timed_out", cancelled=len(self._scope))
        await self._scope.close()

    async def _answer(self, record: PolledRecord, feed: Feed, batch: Batch) -> None:
        source = _source(record, feed, batch)
        engine = self._core.engine
        try:
            if isinstance(record, UndecodableRecord):
                outcome = engine.unreadable(source, record.unreadable)
            else:
                outcome = await engine.process(record.value, source)
            await self._deliver(_Answer(record.value, source, outcome), batch.track)
        except Exception:
            _log_failure(source)
            raise

    async def _handle(self, batch: Batch) -> None:
        engine = self._core.engine
        answers = []
        for piece in _slices(batch.records):
            if not batch.track.open:
                return
            for record in piece:
                source = _source(record, None, batch)
                try:
                    if isinstance(record, UndecodableRecord):
                        outcome = engine.unreadable(source, record.unreadable)
                    else:
                        outcome = engine.process_event(record.value, source)
                except Exception:
                    _log_failure(source)
                    raise
                answers.append(_Answer(record.value, source, outcome))
            await asyncio.sleep(0)
        records = chain.from_iterable(answer.outcome.records for answer in answers)
        try:
            if await self._make_durable(tuple(records), batch.track):
                for answer in answers:
                    self._settle(answer, batch.track)
        except OutcomeTooLarge:  # one by one, to see which
            for answer in answers:
                await self._deliver(answer, batch.track)

    async def _deliver(self, answer: _Answer, track: Track) -> None:
        """Make the answer durable, or its replacement when it is too large; then finish."""
        try:
            durable = await self._make_durable(answer.outcome.records, track)
        except OutcomeTooLarge as error:
            outcome = self._core.engine.too_large(
                answer.outcome, answer.value, answer.source, error
            )
            answer = _Answer(answer.value, answer.source, outcome)
            try:
                durable = await self._make_durable(outcome.records, track)
            except OutcomeTooLarge as again:
                raise InvariantError("the replacement is too large, too; this is a bug") from again
        if durable:
            self._settle(answer, track)

    async def _make_durable(self, records: tuple[OutgoingRecord, ...], track: Track) -> bool:
        """Produce until it succeeds; return False when the assignment ended before."""
        if not records:
            return True
        backoff_s = _MIN_BACKOFF_S
        waits = False
        try:
            while True:
                try:
                    # Only while sending: those that wait for one topic must not hold up the others.
                    async with self._confirming:
                        await self._producer.send(*records)
                except BrokerUnavailable as error:
                    if not waits:
                        waits = True
                        self._begin_waiting(error)
                    if not track.open:
                        return False
                    await asyncio.sleep(backoff_s)
                    backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)
                else:
                    return True
        finally:
            if waits:
                self._end_waiting()

    def _settle(self, answer: _Answer, track: Track) -> None:
        self.tracks.finish(track, answer.source.offset)
        self._core.settled(answer.outcome, answer.source)

    def _begin_waiting(self, error: BrokerUnavailable) -> None:
        """Log for the first, not for the thousand records that wait with it."""
        self._waiting_outcomes += 1
        if self._waiting_outcomes == 1:
            log.error("producer.unreachable", message=str(error))

    def _end_waiting(self) -> None:
        self._waiting_outcomes -= 1
        if self._waiting_outcomes == 0:
            log.info("producer.nothing_waits")


def memory_bytes(record: PolledRecord) -> int:
    """Return about what the record itself is in memory: many small headers are more than they say."""
    size = len(record.key or b"") + len(record.value or b"")
    for name, value in record.headers:
        size += len(name) + len(value or b"") + _HEADER_BYTES
    return size


def weigh(record: PolledRecord, *, most_texts: int) -> int:
    """Return about what answering the record holds in memory, from its bytes alone.

    Texts are the strings between the key `texts` and the last array's end, `most_texts` at most.
    """
    value = record.value or b""
    begin = value.find(b'"texts"')
    strings = value.count(b'"', max(0, begin), value.rfind(b"]") + 1) // 2
    texts = strings - 1 if strings > 1 else 1  # one of the strings is the key
    texts = min(texts, most_texts)
    return weight_bytes(record_bytes=memory_bytes(record), texts=texts)


def _source(record: PolledRecord, feed: Feed | None, batch: Batch) -> RecordSource:
    return RecordSource(
        topic=batch.track.at.topic,
        partition=batch.track.at.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        received_s=batch.received_s,
        lane=None if feed is None else feed.lane,
        key=record.key,
        headers=record.headers,
        stage=None if feed is None else feed.stage,
    )


def _log_failure(source: RecordSource) -> None:
    log.exception(  # noqa: LOG004 (called where it was caught)
        "engine.failed", topic=source.topic, partition=source.partition, offset=source.offset
    )


def _slices(records: Sequence[PolledRecord]) -> Iterator[Sequence[PolledRecord]]:
    """Cut into what one turn of the event loop can take."""
    begin = size_bytes = 0
    for index, record in enumerate(records):
        record_bytes = memory_bytes(record)
        full = index - begin == _SLICE_RECORDS or size_bytes + record_bytes > _SLICE_BYTES
        if full and index > begin:
            yield records[begin:index]
            begin, size_bytes = index, 0
        size_bytes += record_bytes
    yield records[begin:]
