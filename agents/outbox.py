"""Answers on their way into the log. A record is finished once all of its outcome is durable.

Answers of one turn of the event loop are produced in one call: a timer, a task and a place among
those that wait for the broker for all of them, which is a tenth of what a request costs. Where that
fails, each goes its own way, so that no answer waits for the topic of another.

Invariant: a record finishes only after every record of its outcome is durable.
Owner: the worker's event loop.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Final, Protocol

import structlog

from agents.answering import Answer, Core
from agents.track import Track, Tracks
from cortex_stream.errors import BrokerUnavailable, InvariantError, OutcomeTooLarge
from cortex_stream.record import OutgoingRecord
from cortex_stream.task_scope import TaskScope
from topics.names import ATTEMPTS

# No turn of the event loop may take more than 50 ms of CPU. One turn ends at most what the broker
# confirms at once: 64 x 32 x 0.01 ms = 20 ms. At 10 ms a round trip that is 200,000 outcomes a
# second; while all places are taken, answers gather, and go in fuller calls.
_UNCONFIRMED_CALLS: Final = 64
_CALL_OUTCOMES: Final = 32
_MIN_BACKOFF_S: Final = 0.2
_MAX_BACKOFF_S: Final = 5.0

log = structlog.stdlib.get_logger(__name__)


class Producer(Protocol):
    """Makes records durable."""

    async def send(self, *records: OutgoingRecord) -> None:
        """Produce in order; return once all are durable.

        Raises:
            OutcomeTooLarge: a record does not fit; sending it again will not help.
            BrokerUnavailable: sending again may help.
        """
        ...


class Outbox:
    """Makes answers durable and finishes their records."""

    def __init__(self, core: Core, producer: Producer, tracks: Tracks, scope: TaskScope) -> None:
        """Run in the background, in `scope`, what nobody waits for."""
        self._core = core
        self._producer = producer
        self._tracks = tracks
        self._scope = scope
        self._next: list[tuple[Answer, Track]] = []  # those of this turn
        self._confirming = asyncio.Semaphore(_UNCONFIRMED_CALLS)
        self._unreachable: Counter[str] = Counter()  # how many wait, by why they do
        self._numbers = itertools.count()
        self._under_way: dict[int, None] = {}  # what is not durable yet, the oldest first

    @property
    def unreachable(self) -> tuple[str, ...]:
        """Why answers, or suspects, wait: no broker took what must be durable. Each reason once."""
        return tuple(self._unreachable)

    @property
    def oldest(self) -> int | None:
        """The number of the answer, or answers, under way for longest; None without any."""
        return next(iter(self._under_way), None)

    def publish(self, answer: Answer, track: Track) -> None:
        """Have the answer made durable, with others of this turn, and its record finished."""
        self._next.append((answer, track))
        if len(self._next) == 1:
            _ = self._scope.start(self._publish_next(), name="publish")

    async def deliver(
        self,
        answer: Answer,
        track: Track,
        *,
        then: tuple[OutgoingRecord, ...] = (),
        failed: BrokerUnavailable | None = None,
    ) -> None:
        """Make the answer durable, or its replacement when it is too large; then finish.

        Args:
            answer: what to produce.
            track: of the record that it answers.
            then: what must be durable in between.
            failed: why it was not produced before.
        """
        try:
            durable = await self.make_durable(answer.outcome.records, track, failed=failed)
        except OutcomeTooLarge as error:
            outcome = self._core.engine.too_large(
                answer.outcome, answer.value, answer.source, error
            )
            answer = Answer(answer.value, answer.source, outcome)
            try:
                durable = await self.make_durable(outcome.records, track)
            except OutcomeTooLarge as again:
                raise InvariantError("the replacement is too large, too; this is a bug") from again
        if durable and await self.make_durable(then, track):
            self.settle(answer, track)

    async def make_durable(
        self,
        records: tuple[OutgoingRecord, ...],
        track: Track,
        *,
        failed: BrokerUnavailable | None = None,
    ) -> bool:
        """Produce until it succeeds; return False when the assignment ended before.

        `failed` is why it did not succeed before.

        Raises:
            OutcomeTooLarge: a record does not fit.
        """
        if not records:
            return True
        with self._numbered():
            failed = failed or await self.try_durable(records)
            if failed is None:
                return True
            with self._waiting(records, failed):
                backoff_s = _MIN_BACKOFF_S
                while track.open:
                    await asyncio.sleep(backoff_s)
                    if await self.try_durable(records) is None:
                        return True
                    backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)
                return False

    async def try_durable(self, records: tuple[OutgoingRecord, ...]) -> BrokerUnavailable | None:
        """Produce once; return None if all are durable, else why they may not be."""
        # Only while sending: those that wait for one topic must not hold up the others.
        async with self._confirming:
            try:
                await self._producer.send(*records)
            except BrokerUnavailable as error:
                return error
        return None

    def settle(self, answer: Answer, track: Track) -> None:
        """Finish the record of an answer that is durable."""
        self._tracks.finish(track, answer.source.offset)
        self._core.settled(answer.outcome, answer.source)

    def forget(self) -> None:
        """Forget what waits for a place; nothing may be under way."""
        self._next.clear()

    async def _publish_next(self) -> None:
        async with self._confirming:
            together, self._next = self._next[:_CALL_OUTCOMES], self._next[_CALL_OUTCOMES:]
            if self._next:
                _ = self._scope.start(self._publish_next(), name="publish")
            records = chain.from_iterable(answer.outcome.records for answer, _ in together)
            failed: BrokerUnavailable | None = None
            try:
                with self._numbered():
                    await self._producer.send(*records)
            except BrokerUnavailable as error:
                failed = error
            except OutcomeTooLarge:  # which one it is shows when each goes alone
                log.info("outbox.apart", answers=len(together))
            else:
                for answer, track in together:
                    self.settle(answer, track)
                return
        for answer, track in together:
            _ = self._scope.start(self.deliver(answer, track, failed=failed), name="deliver")

    @contextmanager
    def _numbered(self) -> Iterator[None]:
        """Keep what is under way among what `oldest` looks at."""
        number = next(self._numbers)
        self._under_way[number] = None
        try:
            yield
        finally:
            del self._under_way[number]

    @contextmanager
    def _waiting(
        self, records: tuple[OutgoingRecord, ...], error: BrokerUnavailable
    ) -> Iterator[None]:
        """Count one that waits. Logs for the first, not for the thousand that wait with it."""
        what = "suspects cannot be counted" if records[0].topic == ATTEMPTS else "answers wait"
        reason = f"{what}: {error}"
        if not self._unreachable:
            log.error("producer.unreachable", message=reason)
        self._unreachable[reason] += 1
        try:
            yield
        finally:
            self._unreachable[reason] -= 1
            self._unreachable += Counter()  # forgets those of which none is left
            if not self._unreachable:
                log.info("producer.nothing_waits")
