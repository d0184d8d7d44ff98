"""Answers on their way into the log. A record is finished once all of its outcome is durable.

Answers of one turn of the event loop are posted together, with one task and one place among those
that wait for the broker. An answer whose request has been here for long waits for more of them, while
nobody notices, and the first one that must not wait takes all along. Each is finished when its own
records are durable, and one that fails goes on alone: no answer waits for the topic or the partition
of another.

Invariant: a record finishes only after every record of its outcome is durable.
Owner: the worker's event loop.
"""

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from math import inf
from typing import Any, Final, NamedTuple, Protocol

import structlog

from agents.answering import Answer, Core
from agents.pace import UNNOTICED
from agents.track import Track, Tracks
from cortex_stream.clock import Clock
from cortex_stream.errors import BrokerUnavailable, InvariantError, OutcomeTooLarge
from cortex_stream.kafka.producer import DELIVERY_TIMEOUT_S
from cortex_stream.record import OutgoingRecord
from cortex_stream.task_scope import TaskScope
from schemas.outcomes import OutcomeKind
from topics.names import ATTEMPTS, VALIDATION

# No turn of the event loop may take more than 50 ms of CPU. One turn ends at most what the broker
# confirms at once: 64 x 32 x 0.01 ms = 20 ms. At 10 ms a round trip that is 200,000 outcomes a
# second; while all places are taken, answers gather, and are posted in fuller sets.
_UNCONFIRMED_SETS: Final = 64
_SET_ANSWERS: Final = 32
# Then what waits gives its place back and waits without. A partition without a leader keeps each
# answer for 30 s: a fifth of a second lets 64 places serve 10,000 such answers beside the others.
_PATIENCE_S: Final = 0.2
# For company. Under 5 ms few would come.
_LEAST_WAIT_S: Final = 0.005
_MOST_WAIT_S: Final = 0.1
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

    async def post(self, *records: OutgoingRecord) -> "asyncio.Future[Any]":
        """Enqueue in order; what is returned ends once all are durable, or raises anything.

        Raises:
            OutcomeTooLarge, BrokerUnavailable: not all were enqueued.
        """
        ...


class _Posted(NamedTuple):
    """An answer to be posted, and its number among what is under way."""

    number: int
    answer: Answer
    track: Track


class Outbox:
    """Makes answers durable and finishes their records."""

    def __init__(
        self, core: Core, producer: Producer, tracks: Tracks, scope: TaskScope, clock: Clock
    ) -> None:
        """Run in the background, in `scope`, what nobody waits for."""
        self._core = core
        self._producer = producer
        self._tracks = tracks
        self._scope = scope
        self._clock = clock
        self._next: list[_Posted] = []
        self._due_s = inf  # when a task posts those, if it finds a place
        self._confirming = asyncio.Semaphore(_UNCONFIRMED_SETS)
        self._sending_alone = asyncio.Semaphore(_UNCONFIRMED_SETS)
        self._unreachable: Counter[str] = Counter()  # how many wait, by why they do
        self._numbers = itertools.count()
        self._under_way: dict[int, None] = {}  # what is not durable yet, the oldest first

    @property
    def unreachable(self) -> tuple[str, ...]:
        """Why answers, or suspects, wait: no broker took what must be durable. Each reason once."""
        return tuple(self._unreachable)

    @property
    def oldest(self) -> int | None:
        """The number of what is under way for longest; None without any."""
        return next(iter(self._under_way), None)

    def publish(self, answer: Answer, track: Track) -> None:
        """Have the answer made durable, soon and with others, and its record finished."""
        if not answer.outcome.records:
            self.settle(answer, track)
            return
        number = next(self._numbers)
        self._under_way[number] = None
        self._next.append(_Posted(number, answer, track))
        due_s = now_s = self._clock.monotonic_s()
        if len(self._next) < _SET_ANSWERS:
            due_s += _company_wait_s(answer, now_s=now_s)
        if due_s < self._due_s:
            self._due_s = due_s
            start = self._publish_next() if due_s == now_s else self._publish_at(due_s, now_s=now_s)
            _ = self._scope.start(start, name="publish")

    async def deliver(
        self,
        answer: Answer,
        track: Track,
        *,
        then: tuple[OutgoingRecord, ...] = (),
    ) -> bool:
        """Make the answer durable, or its replacement when it is too large; then finish.

        `then` is what must be durable in between. Returns False when the assignment ended before.
        """
        with self.numbered():
            return await self._deliver(answer, track, then=then)

    async def _deliver(
        self,
        answer: Answer,
        track: Track,
        *,
        then: tuple[OutgoingRecord, ...] = (),
        failed: BrokerUnavailable | None = None,
    ) -> bool:
        """Do as `deliver`; `failed` is why it was not produced before."""
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
            return True
        return False

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
        with self.numbered():
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
        with self.numbered():
            _ = await self._sending_alone.acquire()
            with self._place_alone():
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
        """Forget what was published and is not durable: its assignment has ended."""
        self._next.clear()
        self._due_s = inf
        self._under_way.clear()

    async def _publish_at(self, due_s: float, *, now_s: float) -> None:
        """Do as `_publish_next` when it is due, unless all that waited has gone before."""
        await asyncio.sleep(due_s - now_s)
        if self._due_s == due_s:
            await self._publish_next()

    async def _publish_next(self) -> None:
        """Post what waits, as far as one set goes, and wait for the broker."""
        async with self._confirming:
            together, self._next = self._next[:_SET_ANSWERS], self._next[_SET_ANSWERS:]
            if self._next:
                _ = self._scope.start(self._publish_next(), name="publish")
            else:
                self._due_s = inf
            confirmations = await self._post(together)
            late = await _unfinished(confirmations, _PATIENCE_S)
        for confirmation in await _unfinished(late, DELIVERY_TIMEOUT_S):
            confirmation.cancel()

    async def _post(self, together: Sequence[_Posted]) -> "set[asyncio.Future[Any]]":
        """Enqueue the answers; return what is done once each is durable, or has failed."""
        confirmations: set[asyncio.Future[Any]] = set()
        left = deque(together)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while left:
                    try:
                        confirmation = await self._producer.post(*left[0].answer.outcome.records)
                    except (BrokerUnavailable, OutcomeTooLarge):
                        self._go_on_alone(left[0])
                    else:
                        confirmation.add_done_callback(partial(self._confirmed, left[0]))
                        confirmations.add(confirmation)
                    left.popleft()
        except TimeoutError:  # a partition takes no more for now
            for posted in left:
                self._go_on_alone(posted)
        return confirmations

    def _confirmed(self, posted: _Posted, confirmation: "asyncio.Future[Any]") -> None:
        error = None if confirmation.cancelled() else confirmation.exception()
        if posted.number not in self._under_way:
            return  # forgotten
        # What gathers several, once cancelled, is not: it has failed by what they were.
        if confirmation.cancelled() or isinstance(error, asyncio.CancelledError):
            not_in_time = f"Kafka did not confirm an answer within {DELIVERY_TIMEOUT_S:g} s"
            self._go_on_alone(posted, BrokerUnavailable(not_in_time))
        elif error is not None:
            self._go_on_alone(posted)  # the producer knows what to do
        else:
            del self._under_way[posted.number]
            try:
                self.settle(posted.answer, posted.track)
            except Exception as bug:  # noqa: BLE001 (ends the process, as it would in a task)
                _ = self._scope.start(_raise(bug), name="settle")

    def _go_on_alone(self, posted: _Posted, failed: BrokerUnavailable | None = None) -> None:
        async def deliver() -> None:
            with self.numbered(posted.number):
                await self._deliver(posted.answer, posted.track, failed=failed)

        _ = self._scope.start(deliver(), name="deliver")

    @contextmanager
    def numbered(self, number: int | None = None) -> Iterator[None]:
        """Keep what is under way among what `oldest` looks at, under the number that it has."""
        if number is None:
            number = next(self._numbers)
        self._under_way[number] = None
        try:
            yield
        finally:
            _ = self._under_way.pop(number, None)

    @contextmanager
    def _place_alone(self) -> Iterator[None]:
        """Give back a place that was taken: at the end, and after `_PATIENCE_S` at the latest."""
        with ExitStack() as taken:
            taken.callback(self._sending_alone.release)
            patience = asyncio.get_running_loop().call_later(_PATIENCE_S, taken.close)
            taken.callback(patience.cancel)
            yield

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


def wait_for_company_s(stayed_s: float, *, left_s: float) -> float:
    """Return how long an answer may wait for others, of a request that came `stayed_s` ago.

    Answers that go together cost the worker, the broker and whoever reads them less, and whoever has
    waited for a second does not notice a tenth more. Where there is a deadline in `left_s`, an
    answer takes no more than a tenth of that.
    """
    wait_s = min(UNNOTICED * stayed_s, UNNOTICED * left_s, _MOST_WAIT_S)
    return wait_s if wait_s >= _LEAST_WAIT_S else 0.0


def _company_wait_s(answer: Answer, *, now_s: float) -> float:
    outcome, deadline = answer.outcome, answer.outcome.deadline
    left_s = inf if deadline is None else deadline.remaining_s(now_s=now_s)
    # Where there are such, there are many: expired ones in an overload, those that are set back or
    # tried again later in a flood or a failure. Most of what is set back waits for seconds.
    if outcome.kind is OutcomeKind.EXPIRED or outcome.handed_to == VALIDATION:
        return _MOST_WAIT_S if left_s <= 0 else min(UNNOTICED * left_s, _MOST_WAIT_S)
    return wait_for_company_s(now_s - answer.source.received_s, left_s=left_s)


async def _unfinished(
    confirmations: "set[asyncio.Future[Any]]", timeout_s: float
) -> "set[asyncio.Future[Any]]":
    """Wait until all are done, at most so long; return those that are not."""
    if not confirmations:
        return confirmations
    return (await asyncio.wait(confirmations, timeout=timeout_s))[1]


async def _raise(error: Exception) -> None:
    raise error
