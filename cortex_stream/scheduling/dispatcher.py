"""Keeps the runners of one model busy: as soon as one is free, the next batch is formed.

A batch is formed at the last moment, from everything that waits then; an idle runner never waits
for company. Runners block, so each has a thread of its own; the event loop only hands over.

Invariants: every submitted row is run once or fails with an error; a runner runs one batch at a
time; no more batches are formed than runners are free; a lane that is full delays no other.
Owner: the event loop that entered it; `run` of a runner is called on that runner's thread only.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Generic, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from cortex_stream.clock import Clock
from cortex_stream.deadline import Deadline
from cortex_stream.errors import CortexError, Expired, InferenceFailed, StuckRun
from cortex_stream.scheduling.batcher import BatchRule, form_batch, padded_tokens
from cortex_stream.scheduling.fair_queue import FairQueue, Row
from cortex_stream.task_scope import TaskScope
from cortex_stream.telemetry import metrics
from cortex_stream.telemetry.rates import RateMeter
from schemas.priority import Lane

MAX_WAITING_ROWS: Final = 20_000
"""Rows of one lane in the queue of one model, beyond which submissions wait outside with nothing
queued. One request may hold hundreds of rows, so a bound on requests bounds no memory: 5 lanes x
20,000 rows x about 560 bytes (a short text's tokens among them) are 56 MB a model."""

Matrix = npt.NDArray[np.float32]


class Weighed(Protocol):
    """An input that knows its length."""

    @property
    def tokens(self) -> int:
        """Tokens that will run."""
        ...


R = TypeVar("R", bound=Weighed)
R_contra = TypeVar("R_contra", bound=Weighed, contravariant=True)


class Runner(Protocol[R_contra]):
    """Runs one batch of one model version; blocking, one call at a time."""

    def run(self, rows: Sequence[R_contra]) -> Matrix:
        """Return one float32 row of numbers for each of `rows`, shape (rows, width)."""
        ...


@dataclass(frozen=True, slots=True)
class Answers:
    """The numbers of one submission.

    Attributes:
        matrix: float32, shape (rows, width), in the order of the submission.
        queue_s: the longest time one of the rows waited for a runner.
    """

    matrix: Matrix
    queue_s: float


@dataclass(slots=True, eq=False)
class _Submission(Generic[R]):
    """Rows of one request on their way; `done` settles when the last has run or one failed."""

    answers: list[Matrix | None]
    missing: int
    queue_s: float
    done: "asyncio.Future[None]"


@dataclass(frozen=True, slots=True)
class _Place(Generic[R]):
    submission: _Submission[R]
    index: int
    content: R


class Dispatcher(Generic[R]):
    """The queue, the batch former and the runners of one model version.

    A lane with `MAX_WAITING_ROWS` rows in the queue is full: its further submissions wait for room,
    in the order of their arrival, while those of other lanes pass. A submission enters whole as
    soon as its lane is below the bound, however large it is, so a lane exceeds the bound by less
    than one submission. The wait for room counts as waiting for a runner; a deadline that passes
    in it is noticed as any other, when the turn of its rows comes.
    """

    def __init__(
        self,
        runners: Sequence[Runner[R]],
        *,
        model: str,
        rule: BatchRule,
        run_timeout_s: float,
        clock: Clock,
        on_stuck: Callable[[StuckRun], None],
    ) -> None:
        """Serve `runners`; `on_stuck` is told when one never comes back, since a thread cannot die.

        Args:
            runners: at least one; each is called on a thread of its own.
            model: `name@version`, for metrics and messages.
            rule: how large a batch may be.
            run_timeout_s: a run that takes longer is given up and its runner with it.
            clock: for waiting times and deadlines.
            on_stuck: called on the event loop; should make the process drain and exit.
        """
        self._queue: FairQueue[_Place[R]] = FairQueue()
        self._work = asyncio.Event()
        self._entrances = {lane: asyncio.Lock() for lane in Lane}
        self._rows_left = asyncio.Event()  # whoever is first at an entrance looks for room again
        self._scope = TaskScope()
        self._runners = runners
        self._model = model
        self._rule = rule
        self._run_timeout_s = run_timeout_s
        self._clock = clock
        self._on_stuck = on_stuck
        self._threads: list[ThreadPoolExecutor] = []
        self.running: Counter[Lane] = Counter()
        """Requests of each lane at work now; one that two runners work on counts twice."""
        self.busy = [False] * len(runners)
        """Whether each runner runs a batch now."""
        self.rates = RateMeter(clock=clock)
        """`rows`, and `real` and `padding` tokens, a second."""
        self._rows = metrics.BATCH_ROWS.labels(model)
        self._real = metrics.BATCH_TOKENS.labels(model, "real")
        self._padding = metrics.BATCH_TOKENS.labels(model, "padding")

    async def __aenter__(self) -> Self:
        """Start one thread and one task per runner."""
        await self._scope.__aenter__()
        for number, runner in enumerate(self._runners):
            thread = ThreadPoolExecutor(1, thread_name_prefix=f"run-{self._model}-{number}")
            self._threads.append(thread)
            _ = self._scope.start(
                self._serve(number, runner, thread), name=f"serve {self._model} #{number}"
            )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop serving. Waiting submissions are cancelled by their own tasks' owner."""
        await self._scope.__aexit__(exc_type, exc, traceback)
        for thread in self._threads:
            thread.shutdown(wait=False)

    @property
    def queue(self) -> FairQueue[_Place[R]]:
        """The waiting rows, for whoever shows them."""
        return self._queue

    async def submit(
        self, contents: Sequence[R], *, lane: Lane, tenant: str, deadline: Deadline | None
    ) -> Answers:
        """Run `contents`, at least one, and return their numbers in order.

        Raises:
            Expired: the deadline passed before one of the rows began.
            InferenceFailed: the runner failed on one of the rows alone.
            StuckRun: the runner did not come back.
            CortexError: what else the runner raised, such as InvalidOutput.
        """
        began_s = self._clock.monotonic_s()
        async with self._entrances[lane]:  # first come, first served
            while self._queue.depth(lane) >= MAX_WAITING_ROWS:
                self._rows_left.clear()
                await self._rows_left.wait()
            done = asyncio.get_running_loop().create_future()
            submission: _Submission[R] = _Submission(
                [None] * len(contents), len(contents), 0.0, done
            )
            rows = [
                Row(
                    lane,
                    tenant,
                    content.tokens,
                    began_s,
                    deadline,
                    _Place(submission, index, content),
                )
                for index, content in enumerate(contents)
            ]
            for row in rows:
                self._queue.push(row)
        self._work.set()
        try:
            await done
        except BaseException:  # failed or cancelled: what still waits of it must not run
            for row in rows:
                self._queue.discard(row)
            self._rows_left.set()
            raise
        answers = [answer for answer in submission.answers if answer is not None]
        matrix = answers[0] if len(answers) == 1 else np.concatenate(answers)
        return Answers(matrix, submission.queue_s)

    async def _serve(self, number: int, runner: Runner[R], thread: ThreadPoolExecutor) -> None:
        """Run batches on one runner until the scope ends or nothing but a restart can help."""
        busy_seconds = metrics.SESSION_BUSY_SECONDS.labels(self._model, str(number))
        try:
            while True:
                batch = await self._wait_for_batch()
                requests = {row.payload.submission: row.lane for row in batch}
                lanes = Counter(requests.values())
                began_s = self._clock.monotonic_s()
                self.busy[number] = True
                self.running.update(lanes)
                try:
                    await self._run(runner, thread, batch)
                except StuckRun as stuck:
                    for row in batch:
                        if not _answered(row):
                            _fail(row, stuck)
                    raise
                finally:
                    self.running.subtract(lanes)
                    self.busy[number] = False
                    busy_seconds.inc(self._clock.monotonic_s() - began_s)
        except StuckRun as stuck:
            self._on_stuck(stuck)
        except Exception as error:  # rather restart than hang: its requests would wait for ever
            self._on_stuck(StuckRun(f"serving {self._model}: {error!r}; this is a bug"))
            raise

    async def _wait_for_batch(self) -> list[Row[_Place[R]]]:
        while not (batch := self._next_batch()):
            if self._queue:
                await asyncio.sleep(0)  # all that was found is late or cancelled: look again
            else:
                self._work.clear()
                await self._work.wait()
        return batch

    def _next_batch(self) -> list[Row[_Place[R]]]:
        """Take the next rows to run out of the queue; fail the late ones unrun."""
        now_s = self._clock.monotonic_s()
        batch = form_batch(self._queue, self._rule, now_s=now_s)
        self._rows_left.set()
        for row in (taken := [*batch.rows, *batch.late]):
            submission = row.payload.submission
            submission.queue_s = max(submission.queue_s, now_s - row.enqueued_s)
        return [row for row in taken if self._wanted(row)]

    def _wanted(self, row: Row[_Place[R]]) -> bool:
        """Tell whether somebody still waits for `row`; fail it when it is late."""
        if row.payload.submission.done.done():  # cancelled, or failed by another of its rows
            return False
        late_s = row.late_s(now_s=self._clock.monotonic_s())
        if late_s >= 0:
            _fail(row, Expired(f"starting inference {late_s:.3f} s after the deadline"))
        return late_s < 0

    async def _run(
        self, runner: Runner[R], thread: ThreadPoolExecutor, batch: list[Row[_Place[R]]]
    ) -> None:
        """Run `batch` and settle its rows; a bad row fails alone and its company succeeds.

        Raises:
            StuckRun: the runner did not come back; the rows without an answer are not settled.
        """
        try:
            matrix = await self._call(runner, thread, batch)
        except StuckRun:
            raise
        except Exception as error:  # noqa: BLE001 (a runtime may raise anything; the row fails with it)
            if len(batch) == 1:
                _fail(batch[0], _as_cortex_error(error))
                return
            for row in batch:  # which row is at fault shows when each runs alone
                if self._wanted(row):
                    await self._run(runner, thread, [row])
            return
        real = sum(row.length_tokens for row in batch)
        self._rows.observe(len(batch))
        self._real.inc(real)
        padding = padded_tokens(batch) - real
        self._padding.inc(padding)
        for key, amount in (("rows", len(batch)), ("real", real), ("padding", padding)):
            self.rates.record(key, amount)
        for index, row in enumerate(batch):
            _settle(row, matrix[index : index + 1])

    async def _call(
        self, runner: Runner[R], thread: ThreadPoolExecutor, batch: list[Row[_Place[R]]]
    ) -> Matrix:
        contents = [row.payload.content for row in batch]
        run = asyncio.get_running_loop().run_in_executor(thread, runner.run, contents)
        try:
            # not `wait_for`: that of Python 3.11 forgets a cancellation in the turn the run ends
            async with asyncio.timeout(self._run_timeout_s):
                return await asyncio.shield(run)
        except TimeoutError:
            if run.done():  # the runner's own TimeoutError
                return run.result()
            raise StuckRun(
                f"running {len(batch)} rows of {self._model}: not back after"
                f" {self._run_timeout_s:g} s (CORTEX_INFERENCE__RUN_TIMEOUT_S)"
            ) from None


def _settle(row: Row[_Place[R]], answer: Matrix) -> None:
    submission = row.payload.submission
    submission.answers[row.payload.index] = answer
    submission.missing -= 1
    if submission.missing == 0 and not submission.done.done():
        submission.done.set_result(None)


def _answered(row: Row[_Place[R]]) -> bool:
    return row.payload.submission.answers[row.payload.index] is not None


def _fail(row: Row[_Place[R]], error: CortexError) -> None:
    done = row.payload.submission.done
    if not done.done():
        done.set_exception(error)


def _as_cortex_error(error: Exception) -> CortexError:
    if isinstance(error, CortexError):
        return error
    failed = InferenceFailed(f"running the model: {type(error).__name__}: {error}")
    failed.__cause__ = error
    return failed
