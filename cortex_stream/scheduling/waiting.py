"""The rows that wait for a runner of one model: let in lane by lane, taken out batch by batch.

Invariants: every submitted row is handed out until it is settled or fails; a lane that is full
delays no other.
Owner: the event loop.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from cortex_stream.clock import Clock
from cortex_stream.deadline import Deadline
from cortex_stream.errors import CortexError, Expired, InferenceFailed
from cortex_stream.scheduling.batcher import BatchRule, form_batch
from cortex_stream.scheduling.expected_wait import ExpectedWait
from cortex_stream.scheduling.fair_gate import FairGate
from cortex_stream.scheduling.fair_queue import FairQueue, Row
from cortex_stream.scheduling.latency_model import LatencyModel
from cortex_stream.telemetry.rates import PeakMeter
from cortex_stream.values import value
from schemas.priority import Lane

MAX_WAITING_ROWS: Final = 20_000
"""Rows of one lane in the queue of one model, beyond which submissions wait outside with nothing
queued. One request may hold hundreds of rows, so a bound on requests bounds no memory: 5 lanes x
20,000 rows x about 560 bytes (a short text's tokens among them) are 56 MB a model."""

MOST_OF_THE_TIME: Final = 0.8
"""The part of a row's time by which it must begin, if it waits behind many. The rest is for its run and
for the way of its answer."""

MAX_DEVICE_FAILURES: Final = 3
"""Devices that a row may see fail. The third time it ran alone, so it is what breaks them."""


MAX_INTERRUPTIONS: Final = 3
"""Times that a replay's row gives way. Then it runs to its end: under steady load a long one never
would otherwise."""


Matrix = npt.NDArray[np.float32]


class Weighed(Protocol):
    """An input that knows its length."""

    @property
    def tokens(self) -> int:
        """Tokens that will run."""
        ...


R = TypeVar("R", bound=Weighed)


@value()
class Answers:
    """The numbers of one submission.

    Attributes:
        matrix: float32, shape (rows, width), in the order of the submission.
        queue_s: the longest time one of the rows waited for a runner.
    """

    matrix: Matrix
    queue_s: float


@dataclass(slots=True, eq=False)
class Submission:
    """Rows of one request on their way; `done` settles when the last has run or one failed.

    Attributes:
        begun_before: rows of its lane that had begun when it came.
    """

    answers: list[Matrix | None]
    missing: int
    queue_s: float
    deadline: Deadline | None
    begun_before: int
    done: "asyncio.Future[None]"


@dataclass(slots=True, eq=False)
class Place(Generic[R]):
    """A row of a submission.

    Attributes:
        device_failures: devices that failed under it.
        interruptions: times it had to give way.
    """

    submission: Submission
    index: int
    content: R
    device_failures: int = 0
    interruptions: int = 0

    @property
    def settled(self) -> bool:
        """Whether it needs no run any more: answered, failed or cancelled."""
        return self.submission.answers[self.index] is not None or self.submission.done.done()

    def settle(self, answer: Matrix) -> None:
        """Give it its numbers, shape (1, width)."""
        submission = self.submission
        submission.answers[self.index] = answer
        submission.missing -= 1
        if submission.missing == 0 and not submission.done.done():
            submission.done.set_result(None)

    def fail(self, error: CortexError) -> None:
        """Fail its submission, unless that has ended."""
        if not self.submission.done.done():
            self.submission.done.set_exception(error)


Waiting = Row[Place[R]]


class Live(NamedTuple):
    """Rows that have come and are no replay's.

    Attributes:
        newcomer: nothing of their tenant waited in their lane, so their turn is next there.
    """

    lane: Lane
    rows: int
    newcomer: bool


class WaitingRows(Generic[R]):
    """The submissions of one model, and the queue of their rows.

    A lane with `MAX_WAITING_ROWS` rows in the queue is full: its further submissions wait for room,
    its tenants in turns, while those of other lanes pass. A submission enters whole as
    soon as its lane is below the bound, however large it is, so a lane exceeds the bound by less
    than one submission. The wait for room counts as waiting for a runner; a deadline that passes
    in it is noticed as any other, when the turn of its rows comes.

    Rows whose device failed come back and go first, without queueing again. When it happens once
    more each runs alone, so that the third time hits only the row that breaks devices.
    """

    def __init__(
        self, queue: FairQueue[Place[R]], *, clock: Clock, on_live: Callable[[Live], None]
    ) -> None:
        """Wait in `queue`; `on_live` hears of all that come, but for replays."""
        self.queue = queue
        self.arrived = asyncio.Event()
        """Set when there may be something to take; cleared by whoever finds nothing."""
        self._waits_s = PeakMeter(clock=clock)
        self._expected = ExpectedWait()
        self._clock = clock
        self._on_live = on_live
        self._returned: deque[list[Waiting[R]]] = deque()
        self._open: set[Submission] = set()
        self._entrances = {lane: FairGate(1) for lane in Lane}
        self._rows_left = asyncio.Event()  # whoever is first at an entrance looks for room again

    def waits(self, *, replays: bool) -> bool:
        """Tell whether there is something to take; `replays` says whether replays may be."""
        return bool(self._returned) or self.queue.count(replays=replays) > 0

    def check_time(self, *, lane: Lane, tenant: str, deadline: Deadline | None) -> None:
        """Refuse a row that would be late when it begins, before it costs more than this question.

        In an overload most of what comes would wait for its whole time, and end without an answer.
        Rather too few are refused: what waits behind fewer batches than tell the pace is let in, and
        so is what came in the meantime.

        Raises:
            Expired: the deadline has passed, or too much waits before the row.
        """
        if deadline is None:
            return
        now_s = self._clock.monotonic_s()
        left_s = deadline.remaining_s(now_s=now_s)
        if left_s <= 0:
            raise Expired(f"waiting for a runner {-left_s:.3f} s after the deadline")
        pace = None if lane is Lane.REPLAY else self._expected.pace(lane, now_s=now_s)
        if pace is None:
            return
        most_s = max(MOST_OF_THE_TIME * left_s, pace.tokens * pace.token_s)
        most = most_s / pace.token_s
        ahead = self.queue.tokens_ahead(
            lane, tenant=tenant, deadline=deadline, now_s=now_s, token_s=pace.token_s, most=most
        )
        if ahead > most:
            raise Expired(
                f"waiting for a runner {left_s:.3f} s before the deadline: what is due before it takes"
                f" longer than {most_s:.3f} s"
            )

    async def submit(
        self, contents: Sequence[R], *, lane: Lane, tenant: str, deadline: Deadline | None
    ) -> Answers:
        """Wait until all of `contents` have run; see `Dispatcher.submit`."""
        began_s = self._clock.monotonic_s()
        entrance = self._entrances[lane]
        if entrance.full or self.queue.depth(lane) >= MAX_WAITING_ROWS:
            cost = sum(content.tokens for content in contents)
            async with entrance.entered(lane=lane, tenant=tenant, deadline=deadline, cost=cost):
                while self.queue.depth(lane) >= MAX_WAITING_ROWS:
                    self._rows_left.clear()
                    await self._rows_left.wait()
        done = asyncio.get_running_loop().create_future()
        submission = Submission(
            [None] * len(contents), len(contents), 0.0, deadline, self._expected.begun(lane), done
        )
        rows = [
            Row(lane, tenant, content.tokens, began_s, deadline, Place(submission, index, content))
            for index, content in enumerate(contents)
        ]
        newcomer = not self.queue.has(lane, tenant=tenant)
        for row in rows:
            self.queue.push(row)
        self._open.add(submission)
        self.arrived.set()
        if lane is not Lane.REPLAY:
            self._on_live(Live(lane, len(rows), newcomer=newcomer))
        try:
            await done
        except BaseException:  # failed or cancelled: what still waits of it must not run
            for row in rows:
                self.queue.discard(row)
            self._rows_left.set()
            raise
        finally:
            self._open.discard(submission)
        answers = [answer for answer in submission.answers if answer is not None]
        matrix = answers[0] if len(answers) == 1 else np.concatenate(answers)
        return Answers(matrix, submission.queue_s)

    def next_batch(
        self, rule: BatchRule, latency: LatencyModel, *, replays: bool
    ) -> list[Waiting[R]]:
        """Take the next rows to run, the longest first; fail the late ones unrun. Never blocks.

        `latency` is the model of the device that will run them, `replays` whether replays may run.
        What came back may run in any case.

        Empty when nothing waits, or when all that was found is late or cancelled.
        """
        now_s = self._clock.monotonic_s()
        if self._returned:
            taken = self._take_returned(rule)
        else:
            batch = form_batch(self.queue, rule, now_s=now_s, latency=latency, replays=replays)
            self._rows_left.set()
            taken = batch.rows
            for row in batch.late:
                if batch.is_trial and row.payload.submission is taken[0].payload.submission:
                    self.queue.push(row)  # who fails it now would keep the trial from running
                else:
                    row.payload.fail(_too_late(row, now_s=now_s))
                self._waits_s.record(row.lane.value, now_s - row.enqueued_s)
        wanted = [row for row in taken if self.wanted(row)]
        if len(wanted) < len(taken):
            for row in set(taken).difference(wanted):
                self._waits_s.record(row.lane.value, now_s - row.enqueued_s)
        return wanted

    def began(self, batch: Sequence[Waiting[R]]) -> None:
        """Take note that the rows wait no more."""
        now_s = self._clock.monotonic_s()
        for row in batch:
            waited_s = now_s - row.enqueued_s
            submission = row.payload.submission
            submission.queue_s = max(submission.queue_s, waited_s)
            self._waits_s.record(row.lane.value, waited_s)
            self._expected.began(
                row.lane,
                tokens=row.length_tokens,
                begun_before=submission.begun_before,
                now_s=now_s,
            )

    def worst_wait_s(self, lane: Lane) -> float:
        """Return the longest wait over the last minute; of what waits still, until now."""
        oldest_s = self.queue.oldest_s(lane)
        waits_s = 0.0 if oldest_s is None else self._clock.monotonic_s() - oldest_s
        return max(waits_s, self._waits_s.largest(lane.value))

    def wanted(self, row: Waiting[R]) -> bool:
        """Tell whether somebody still waits for `row`; fail it when it is late."""
        if row.payload.submission.done.done():  # cancelled, or failed by another of its rows
            return False
        now_s = self._clock.monotonic_s()
        late = row.late_s(now_s=now_s) >= 0
        if late:
            row.payload.fail(_too_late(row, now_s=now_s))
        return not late

    def give_back(self, batch: Sequence[Waiting[R]], error: CortexError) -> None:
        """Let the rows of a batch whose device failed run elsewhere, before any others.

        A row under which too many devices have failed fails with `error`.
        """
        for row in batch:
            row.payload.device_failures += 1
            if row.payload.device_failures == MAX_DEVICE_FAILURES:
                row.payload.fail(error)
        if again := [row for row in batch if not row.payload.settled]:
            self._returned.append(again)
            self.arrived.set()

    def wait_again(self, batch: Sequence[Waiting[R]]) -> None:
        """Let the rows of a batch that gave way wait, behind those of their tenants."""
        for row in batch:
            if not row.payload.settled:
                row.payload.interruptions += 1
                self.queue.push(row)
        self.arrived.set()

    def come_back(self, batch: list[Waiting[R]]) -> None:
        """Let rows that were taken and did not run be the next, in batches of whoever runs them."""
        self._returned.append(batch)
        self.arrived.set()

    def expire_late(self) -> None:
        """Fail every submission whose deadline has passed, for a time in which nothing is taken."""
        now_s = self._clock.monotonic_s()
        for submission in self._open:
            deadline, done = submission.deadline, submission.done
            if deadline is not None and deadline.remaining_s(now_s=now_s) <= 0 and not done.done():
                done.set_exception(Expired("waiting for a healthy runner until the deadline"))

    def _take_returned(self, rule: BatchRule) -> list[Waiting[R]]:
        """Take what `rule` allows of the batch that came back first."""
        rows = self._returned[0]
        longest = max(1, rows[0].length_tokens)  # every batch has its longest row first
        most_rows = max(1, min(rule.max_rows, rule.max_tokens // longest))
        if rows[0].payload.device_failures > 1:
            most_rows = 1
        if len(rows) <= most_rows:
            return self._returned.popleft()
        self._returned[0] = rows[most_rows:]
        return rows[:most_rows]


def gives_way(batch: Sequence[Waiting[R]]) -> bool:
    """Tell whether a run of `batch` may be interrupted for live rows.

    Not where a device has failed under a row: the next try is to show whether it breaks devices.
    """
    return all(
        row.lane is Lane.REPLAY
        and row.payload.interruptions < MAX_INTERRUPTIONS
        and not row.payload.device_failures
        for row in batch
    )


def as_cortex_error(error: Exception) -> CortexError:
    """Return what a row fails with whose runner raised `error`."""
    if isinstance(error, CortexError):
        return error
    failed = InferenceFailed(f"running the model: {type(error).__name__}: {error}")
    failed.__cause__ = error
    return failed


def _too_late(row: Waiting[R], *, now_s: float) -> Expired:
    late_s = row.late_s(now_s=now_s)
    if late_s >= 0:
        return Expired(f"starting inference {late_s:.3f} s after the deadline")
    return Expired(
        f"starting inference {-late_s:.3f} s before the deadline: not enough to end by it"
    )
