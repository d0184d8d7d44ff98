"""From a polled batch to answers: one task per request that must wait, one per batch of events.

Invariants:
    The events of a partition take effect in their order; no partition waits for another's, until
        those that wait have used up what their topic may have in the process.
    An error that the engine did not foresee ends the process; its record stays unfinished.

Owner: the worker's event loop.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Final, NamedTuple

import structlog

from agents.answering import Answer, Core
from agents.outbox import Outbox, Producer
from agents.polled import PolledRecord, slices
from agents.suspects import Counts, Place, Suspects
from agents.track import Partition, Track, Tracks
from cortex_stream.clock import SystemClock
from cortex_stream.delivery.attempts import Trial
from cortex_stream.delivery.outcome import Answering, Outcome
from cortex_stream.errors import BrokerUnavailable, OutcomeTooLarge
from cortex_stream.kafka.undecodable import UndecodableRecord
from cortex_stream.record import RecordSource
from cortex_stream.routing.hosting import Feed
from cortex_stream.task_scope import TaskScope
from cortex_stream.telemetry import metrics

_LOOK_AGAIN_S: Final = 0.01
_COUNT_TIMEOUT_S: Final = 5.0
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
        self.outbox = Outbox(core, producer, tracks, scope := TaskScope(), SystemClock())
        self._core = core
        self._producer = producer
        self._drain_timeout_s = drain_timeout_s
        self._read_counts = read_counts
        self._scope = scope
        self._reading_events = asyncio.Lock()  # a slice per turn of the loop, of all partitions
        for trial in Trial:  # an alert sees no increase of a series that begins with its first one
            metrics.SUSPECTS.labels(trial.name.lower())

    async def start(self) -> None:
        """Begin on the running loop."""
        await self._scope.__aenter__()

    async def wait_failed(self) -> None:
        """Wait until something happens after which the process must end; raise it."""
        await self._scope.wait_failed()

    def begin(self, suspects: Mapping[Partition, range]) -> None:
        """Take note of an assignment before its first record; nothing may be in flight."""
        self.suspects = Suspects(suspects, busy=lambda: self._core.busy)
        if not self.suspects.none:
            _ = self._scope.start(self._learn(), name="read counts")

    async def take_requests(self, batch: Batch, feed: Feed) -> None:
        """Begin every record; return when all have begun or the assignment ended."""
        for piece in slices(batch.records):
            if not batch.track.open:
                return
            if feed.waits:
                for record in piece:
                    answer = self._answer_when_due(record, feed, batch)
                    _ = self._scope.start(answer, name="answer")
            elif self.suspects.none:  # nearly always
                _ = self._scope.start(self._begin(piece, feed, batch), name="begin")
            else:
                for record in piece:
                    _ = self._scope.start(self._answer(record, feed, batch), name="answer")
            await asyncio.sleep(0)

    def take_events(self, batch: Batch) -> None:
        """Handle the events once those before them in their partition are durable."""
        _ = self._scope.start(self._handle_in_order(batch), name="events")

    async def drain(self) -> None:
        """Wait until nothing runs, for a bounded time; cancel what runs then."""
        try:
            async with asyncio.timeout(self._drain_timeout_s):
                while len(self._scope):  # noqa: ASYNC110 (a scope has no event; rebalances are rare)
                    await asyncio.sleep(_LOOK_AGAIN_S)
        except TimeoutError:
            log.warning("intake.drain_timed_out", cancelled=len(self._scope))
        await self._scope.close()
        self.outbox.forget()
        await self._uncount()

    async def _learn(self) -> None:
        """Read the counts of suspects. Where that takes too long, the watchdog ends the process."""
        with self.outbox.numbered():
            await self.suspects.learn(self._read_counts)

    async def _answer_when_due(self, record: PolledRecord, feed: Feed, batch: Batch) -> None:
        """Answer a retry at its time. Where its assignment ends before, whoever is next waits on."""
        source = _source(record, feed, batch)
        with _told_if_it_fails(source):
            due_in_s = self._core.engine.due_in_s(source)
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

    async def _begin(self, piece: Sequence[PolledRecord], feed: Feed, batch: Batch) -> None:
        """Publish what can be answered at once, such as late requests; let the others wait."""
        for record in piece:
            source = _source(record, feed, batch)
            with _told_if_it_fails(source):
                begun = self._begun(record, source)
            if isinstance(begun, Outcome):
                self.outbox.publish(Answer(record.value, source, begun), batch.track)
            else:
                finding = self._publish_found(begun, record.value, source, batch.track)
                _ = self._scope.start(finding, name="answer")

    async def _publish_found(
        self,
        find: Answering,
        value: bytes | None,
        source: RecordSource,
        track: Track,
    ) -> None:
        with _told_if_it_fails(source):
            answer = Answer(value, source, await find())
        self.outbox.publish(answer, track)

    async def _answer(self, record: PolledRecord, feed: Feed | None, batch: Batch) -> None:
        source = _source(record, feed, batch)
        if self.suspects.none:
            _ = await self.outbox.deliver(await self._ask(record, source), batch.track)
        else:
            await self._answer_with_care(record, source, batch.track)

    async def _ask(self, record: PolledRecord, source: RecordSource) -> Answer:
        with _told_if_it_fails(source):
            begun = self._begun(record, source)
            outcome = begun if isinstance(begun, Outcome) else await begun()
        return Answer(record.value, source, outcome)

    def _begun(self, record: PolledRecord, source: RecordSource) -> Outcome | Answering:
        """Return the outcome of what can be answered at once, as every event can."""
        engine = self._core.engine
        if isinstance(record, UndecodableRecord):
            return engine.unreadable(source, record.unreadable)
        if source.is_event:
            return engine.process_event(record.value, source)
        return engine.begin(record.value, source)

    async def _answer_with_care(
        self, record: PolledRecord, source: RecordSource, track: Track
    ) -> None:
        """Answer while there are suspects: the record may be one, or must leave one alone."""
        while True:
            async with self.suspects.place(source) as place:
                if not track.open:
                    return
                if place is None:
                    await self.outbox.deliver(await self._ask(record, source), track)
                    break
                uncounted = await self._count(place)
                if uncounted is None:
                    await self._answer_counted(place, record, source, track)
                    break
            self.suspects.cut_off(place)
            # Not in its place: there it would hold up all others, if it must be alone.
            if not await self.outbox.make_durable((place.uncount,), track, failed=uncounted):
                return
        self.suspects.ended(track)

    async def _count(self, place: Place) -> BrokerUnavailable | None:
        """Count a suspect; return why it could not be, soon: others may wait for its place."""
        try:
            async with asyncio.timeout(_COUNT_TIMEOUT_S):
                return await self.outbox.try_durable((place.count,))
        except TimeoutError:
            return BrokerUnavailable(
                f"producing to {place.count.topic}: not confirmed within {_COUNT_TIMEOUT_S:g} s"
            )

    async def _answer_counted(
        self, place: Place, record: PolledRecord, source: RecordSource, track: Track
    ) -> None:
        metrics.SUSPECTS.labels(place.trial.name.lower()).inc()
        if place.runs:
            answer = await self._ask(record, source)
            if not await self.outbox.deliver(answer, track, then=(place.recount,)):
                self.suspects.cut_off(place)
            return
        readable = place.trial is Trial.GIVEN_UP
        with _told_if_it_fails(source):
            outcome = self._core.engine.poisonous(
                record.value, source, deliveries=place.deliveries, readable=readable
            )
        # Before the outcome: reading it did no harm, and must not count as if it had.
        if await self.outbox.make_durable((place.recount,), track):
            await self.outbox.deliver(Answer(record.value, source, outcome), track)

    async def _handle_in_order(self, batch: Batch) -> None:
        async with batch.track.in_order:
            await (self._handle(batch) if self.suspects.none else self._handle_with_care(batch))

    async def _handle_with_care(self, batch: Batch) -> None:
        for record in batch.records:
            if not batch.track.open:
                return
            await self._answer(record, None, batch)

    async def _handle(self, batch: Batch) -> None:
        answers: list[Answer] = []
        for piece in slices(batch.records):
            async with self._reading_events:
                if not batch.track.open:
                    return
                sources = ((record, _source(record, None, batch)) for record in piece)
                answers += [await self._ask(record, source) for record, source in sources]
                await asyncio.sleep(0)
        records = chain.from_iterable(answer.outcome.records for answer in answers)
        try:
            if await self.outbox.make_durable(tuple(records), batch.track):
                for answer in answers:
                    self.outbox.settle(answer, batch.track)
        except OutcomeTooLarge:  # one by one, to see which
            for answer in answers:
                await self.outbox.deliver(answer, batch.track)


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


@contextmanager
def _told_if_it_fails(source: RecordSource) -> Iterator[None]:
    """Log at which record the engine failed; the error goes on and ends the process."""
    try:
        yield
    except Exception:
        log.exception(
            "engine.failed", topic=source.topic, partition=source.partition, offset=source.offset
        )
        raise
