"""From a polled batch to durable outcomes: one task per request, one per batch of events.

Invariants:
    A record finishes only after every record of its outcome is durable.
    An error that the engine did not foresee ends the process; its record stays unfinished.

Owner: the worker's event loop.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, NamedTuple, Protocol

import structlog

from agents.polled import PolledRecord, slices
from agents.suspects import Counts, Suspects
from agents.track import Partition, Track, Tracks
from cortex_stream.delivery.attempts import Trial
from cortex_stream.delivery.outcome import Outcome
from cortex_stream.errors import BrokerUnavailable, InvariantError, OutcomeTooLarge
from cortex_stream.kafka.undecodable import UndecodableRecord
from cortex_stream.record import OutgoingRecord, RecordSource
from cortex_stream.routing.hosting import Feed
from cortex_stream.task_scope import TaskScope
from cortex_stream.telemetry import metrics

# No turn of the event loop may take more than 50 ms of CPU. One turn ends at most what the broker
# confirms at once: 512 x 0.03 ms = 15 ms. At 10 ms a round trip that is 50,000 outcomes a second.
_UNCONFIRMED_OUTCOMES: Final = 512
_MIN_BACKOFF_S: Final = 0.2
_MAX_BACKOFF_S: Final = 5.0
_LOOK_AGAIN_S: Final = 0.01
_UNCOUNT_TIMEOUT_S: Final = 0.5  # while draining: the last commit and the end need the rest

log = structlog.stdlib.get_logger(__name__)


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

    def due_in_s(self, source: RecordSource) -> float:
        """Return how long to keep a retry before `process`; 0 or less: not at all."""
        ...

    def process_event(self, value: bytes | None, source: RecordSource) -> Outcome:
        """Return the effect of one event."""
        ...

    def unreadable(self, source: RecordSource, reason: str) -> Outcome:
        """Reject a record of which only the coordinates are known."""
        ...

    def poisonous(
        self, value: bytes | None, source: RecordSource, *, deliveries: int, readable: bool
    ) -> Outcome:
        """Give up a record that ended its worker each time it ran."""
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
        self,
        core: Core,
        producer: Producer,
        tracks: Tracks,
        *,
        drain_timeout_s: float,
        read_counts: Callable[[], Awaitable[Counts]],
    ) -> None:
        self.tracks = tracks
        self.suspects = Suspects({})
        self._core = core
        self._producer = producer
        self._drain_timeout_s = drain_timeout_s
        self._read_counts = read_counts
        self._scope = TaskScope()
        self._confirming = asyncio.Semaphore(_UNCONFIRMED_OUTCOMES)
        self._waiting_outcomes = 0
        self._numbers = itertools.count()
        self._under_way: dict[int, None] = {}  # outcomes that are not durable yet, the oldest first

    async def start(self) -> None:
        """Begin on the running loop."""
        await self._scope.__aenter__()

    async def wait_failed(self) -> None:
        """Wait until something happens after which the process must end; raise it."""
        await self._scope.wait_failed()

    @property
    def unreachable(self) -> bool:
        """Whether outcomes wait because no broker took them, or suspects because of their counts."""
        return self._waiting_outcomes > 0 or self.suspects.waiting

    @property
    def oldest_outcome(self) -> int | None:
        """The number of the outcome that has waited longest to be durable, if one waits."""
        return next(iter(self._under_way), None)

    def begin(self, suspects: Mapping[Partition, range]) -> None:
        """Take note of an assignment before its first record; nothing may be in flight."""
        self.suspects = Suspects(suspects)
        if not self.suspects.none:
            _ = self._scope.start(self.suspects.learn(self._read_counts), name="read counts")

    async def take_requests(self, batch: Batch, feed: Feed) -> None:
        """Start one task per record; return when all are started or the assignment ended."""
        answer = self._answer_when_due if feed.waits else self._answer
        for piece in slices(batch.records):
            if not batch.track.open:
                return
            for record in piece:
                _ = self._scope.start(answer(record, feed, batch), name="answer")
            await asyncio.sleep(0)

    async def take_events(self, batch: Batch) -> None:
        """Handle the events in order; return when their effects are durable."""
        # In the scope, so that draining waits for it; awaited, so that the next batch comes after.
        handle = self._handle if self.suspects.none else self._handle_with_care
        _ = await asyncio.wait([self._scope.start(handle(batch), name="events")])

    async def drain(self) -> None:
        """Wait until nothing runs, for a bounded time; cancel what runs then."""
        try:
            async with asyncio.timeout(self._drain_timeout_s):
                while len(self._scope):  # noqa: ASYNC110 (a scope has no event; rebalances are rare)
                    await asyncio.sleep(_LOOK_AGAIN_S)
        except TimeoutError:
            log.warning("intake.drain_timed_out", cancelled=len(self._scope))
        await self._scope.close()
        await self._uncount()

    async def _answer_when_due(self, record: PolledRecord, feed: Feed, batch: Batch) -> None:
        """Answer a retry at its time. Where its assignment ends before, whoever is next waits on."""
        due_in_s = self._core.engine.due_in_s(_source(record, feed, batch))
        if not await batch.track.ends_within(due_in_s):
            await self._answer(record, feed, batch)

    async def _uncount(self) -> None:
        """Take back the counts of suspects that were cut off: they did not end this worker."""
        records = self.suspects.take_uncounted()
        if not records:
            return
        try:
            async with asyncio.timeout(_UNCOUNT_TIMEOUT_S):
                await self._producer.send(*records)
        except (BrokerUnavailable, TimeoutError):
            log.warning("suspects.not_uncounted", records=len(records))

    async def _answer(self, record: PolledRecord, feed: Feed | None, batch: Batch) -> None:
        source = _source(record, feed, batch)
        try:
            if self.suspects.none:  # nearly always
                await self._deliver(await self._ask(record, source), batch.track)
            else:
                await self._answer_with_care(record, source, batch.track)
        except Exception:
            _log_failure(source)
            raise

    async def _ask(self, record: PolledRecord, source: RecordSource) -> _Answer:
        engine = self._core.engine
        if isinstance(record, UndecodableRecord):
            outcome = engine.unreadable(source, record.unreadable)
        elif source.is_event:
            outcome = engine.process_event(record.value, source)
        else:
            outcome = await engine.process(record.value, source)
        return _Answer(record.value, source, outcome)

    async def _answer_with_care(
        self, record: PolledRecord, source: RecordSource, track: Track
    ) -> None:
        """Answer while there are suspects: the record may be one, or must leave one alone."""
        async with self.suspects.place(source) as place:
            if not track.open:
                return
            if place is None:
                await self._deliver(await self._ask(record, source), track)
            elif await self._make_durable((place.count,), track):
                metrics.SUSPECTS.labels(place.trial.name.lower()).inc()
                if place.runs:
                    answer = await self._ask(record, source)
                else:
                    readable = place.trial is Trial.GIVEN_UP
                    outcome = self._core.engine.poisonous(
                        record.value, source, deliveries=place.deliveries, readable=readable
                    )
                    answer = _Answer(record.value, source, outcome)
                    # Before the outcome: reading it did no harm, and must not count as if it had.
                    if not await self._make_durable((place.recount,), track):
                        return
                await self._deliver(answer, track, then=(place.recount,) if place.runs else ())
        self.suspects.ended(track)

    async def _handle_with_care(self, batch: Batch) -> None:
        for record in batch.records:
            await self._answer(record, None, batch)

    async def _handle(self, batch: Batch) -> None:
        engine = self._core.engine
        answers = []
        for piece in slices(batch.records):
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

    async def _deliver(
        self, answer: _Answer, track: Track, *, then: tuple[OutgoingRecord, ...] = ()
    ) -> None:
        """Make the answer durable, or its replacement when it is too large; then finish.

        `then` is what must be durable in between.
        """
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
        if durable and await self._make_durable(then, track):
            self._settle(answer, track)

    async def _make_durable(self, records: tuple[OutgoingRecord, ...], track: Track) -> bool:
        """Produce until it succeeds; return False when the assignment ended before."""
        if not records:
            return True
        backoff_s = _MIN_BACKOFF_S
        waits = False
        number = next(self._numbers)
        self._under_way[number] = None
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
            del self._under_way[number]
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
