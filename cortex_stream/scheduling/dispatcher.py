"""Keeps the runners of one model busy: as soon as one is free, the next batch is formed.

A batch is formed at the last moment, from everything that waits then, and where many wait one batch
earlier (`ahead.py`); an idle runner never waits for company. Free runners take from one queue, so the
work goes to the least loaded by itself: there is no queue of a runner's own to balance.

Replays run in the time that `SpareTime` finds, and a run of theirs is interrupted when live rows come
that need it; its rows wait again.

A runner whose device fails gives its batch back, which another runner takes as the next one it forms. Standby
runners take batches while no other runner is in service, and stop when one comes back.

Invariants: every submitted row is run, or fails with an error; a runner runs one batch at a time;
beyond those that run, a batch or two are formed.
Owner: the event loop that entered it; a runner is called on its own thread only.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from math import ceil
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import structlog

from cortex_stream.clock import Clock
from cortex_stream.deadline import Deadline
from cortex_stream.errors import (
    CortexError,
    DeviceFailed,
    RunInterrupted,
    StuckRun,
)
from cortex_stream.scheduling.ahead import Ahead
from cortex_stream.scheduling.batch_figures import BatchFigures
from cortex_stream.scheduling.batcher import padded_tokens
from cortex_stream.scheduling.fair_queue import FairQueue
from cortex_stream.scheduling.health import HealthRule, RunnerState
from cortex_stream.scheduling.latency_model import LatencyModel
from cortex_stream.scheduling.runner_thread import Crew, RunnerFigures, RunnerThread
from cortex_stream.scheduling.spare_time import SpareTime
from cortex_stream.scheduling.waiting import (
    Answers,
    Live,
    Place,
    Waiting,
    WaitingRows,
    Weighed,
    as_cortex_error,
)
from cortex_stream.task_scope import TaskScope
from cortex_stream.telemetry import metrics
from schemas.priority import Lane

R = TypeVar("R", bound=Weighed)

_log = structlog.stdlib.get_logger(__name__)


class Dispatcher(Generic[R]):
    """The queue, the batch former and the runners of one model version."""

    def __init__(
        self,
        crew: Crew[R],
        *,
        standby: Crew[R] | None = None,
        model: str,
        run_timeout_s: float,
        clock: Clock,
        on_stuck: Callable[[CortexError], None],
        health: HealthRule | None = None,
        spare: SpareTime | None = None,
    ) -> None:
        """Serve with `crew`, and with `standby` while none of `crew` is in service.

        Args:
            crew: at least one runner, on the device that the model is meant for.
            standby: runners on another device.
            model: `name@version`, for metrics and messages.
            run_timeout_s: a run that takes longer is given up and its runner with it.
            clock: for waiting times and deadlines.
            on_stuck: called on the event loop when only a restart can help, since a thread cannot
                be ended: a run never came back, or no runner has been in service for too long.
                Should make the process drain and exit.
            health: when runners are probed, and what follows; the usual rule by default.
            spare: when replays may run; shared by the models of a process.
        """
        self.waiting: WaitingRows[R] = WaitingRows(
            FairQueue(batch_tokens=crew.rule.max_tokens), clock=clock, on_live=self._live_came
        )
        """The rows without a runner, for whoever shows them or asks how long a wait would be."""
        self.latency = LatencyModel()
        """How long a batch takes on the device that the model is meant for."""
        self._max_rows = crew.rule.max_rows
        self._ahead = Ahead(self.waiting, crew.rule, self.latency, clock=clock)
        self._spare = spare or SpareTime(clock=clock)
        self._spare.join(self)
        self._health = health or HealthRule()
        self._threads: list[RunnerThread[R]] = [
            RunnerThread(
                runner,
                each.rule,
                latency,
                model=model,
                name=f"{prefix}{number}",
                standby=each is standby,
                run_timeout_s=run_timeout_s,
                health_rule=self._health,
                clock=clock,
                ahead=self._ahead if each is crew else None,
            )
            for prefix, each, latency in (
                ("", crew, self.latency),
                ("standby-", standby, LatencyModel()),
            )
            if each is not None
            for number, runner in enumerate(each.runners)
        ]
        self._relieved = asyncio.Event()  # set: no runner but a standby one is in service
        self._unserved = False  # whether no runner at all is in service
        self._given_up = False  # whether `on_stuck` was told: once is enough
        self._last_failure: BaseException | None = None
        self._scope = TaskScope()
        self._model = model
        self._clock = clock
        self._on_stuck = on_stuck
        self.running: Counter[Lane] = Counter()
        """Requests of each lane at work now; one that two runners work on counts twice."""
        self.figures = BatchFigures(model, clock=clock)
        """What its batches were like."""
        self._in_service = metrics.RUNNERS_IN_SERVICE.labels(model)
        self._in_service.set(len(self._threads))

    async def __aenter__(self) -> Self:
        """Start one task per runner, and one that minds all of them."""
        await self._scope.__aenter__()
        for thread in self._threads:
            name = f"serve {self._model} #{thread.name}"
            _ = self._scope.start(self._serve(thread), name=name)
        _ = self._scope.start(self._mind(), name=f"mind {self._model}")
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
            thread.close()

    @property
    def queue(self) -> FairQueue[Place[R]]:
        """The waiting rows in fair order."""
        return self.waiting.queue

    @property
    def busy(self) -> int:
        """How many runners run a batch now."""
        return sum(thread.busy for thread in self._threads)

    @property
    def unserved(self) -> str | None:
        """Why no runner is in service, or None while one is. Rows wait meanwhile."""
        if not self._unserved:
            return None
        return f"no runner of {self._model} is in service: {self._last_failure}"

    def runners(self) -> tuple[RunnerFigures, ...]:
        """Return every runner as it is now, standby runners last."""
        return tuple(
            RunnerFigures(
                name=thread.name,
                state=self._state(thread),
                busy_share=thread.busy_share,
                runs=thread.runs,
                failures=thread.failures,
            )
            for thread in self._threads
        )

    def submit(
        self, contents: Sequence[R], *, lane: Lane, tenant: str, deadline: Deadline | None
    ) -> Coroutine[Any, Any, Answers]:
        """Run `contents`, at least one, and return their numbers in order, once awaited.

        Raises:
            Expired: the deadline passed before one of the rows began.
            InferenceFailed: the runner failed on one of the rows alone.
            DeviceFailed: one device after another failed under one of the rows.
            StuckRun: the runner did not come back.
            CortexError: what else the runner raised, such as InvalidOutput.
        """
        return self.waiting.submit(contents, lane=lane, tenant=tenant, deadline=deadline)

    async def _serve(self, thread: RunnerThread[R]) -> None:
        """Run batches on one runner until the scope ends or nothing but a restart can help."""
        try:
            while True:
                now_s = self._clock.monotonic_s()
                if thread.next_batch is not None:  # it runs already
                    await self._serve_next(thread)
                elif thread.probing or not (probe_in_s := thread.health.probe_in_s(now_s=now_s)):
                    await self._probe(thread)
                elif (state := self._state(thread)) is RunnerState.OUT:
                    await asyncio.sleep(probe_in_s)
                elif state is RunnerState.STANDBY:
                    await _wait(self._relieved, at_most_s=probe_in_s)
                else:
                    await self._serve_next(thread)
        except StuckRun as stuck:
            thread.health.device_failed(now_s=self._clock.monotonic_s())
            self._note(thread, stuck)
            self._give_up(stuck)
        except Exception as error:  # rather restart than hang: its requests would wait for ever
            bug = StuckRun(f"serving {self._model}: {error!r}; this is a bug")
            for row in thread.give_up():
                row.payload.fail(bug)
            self._give_up(bug)
            raise

    async def _serve_next(self, thread: RunnerThread[R]) -> None:
        """Run the next batch, or wait until there may be one.

        Raises:
            StuckRun: see `_serve_batch`.
        """
        replays = self._spare.may_replay(runners=self._serving())
        batch = thread.next_batch
        if batch is None:
            self._ahead.hand_back()
            rule = self._ahead.rule_now(thread.rule)
            batch = self.waiting.next_batch(rule, thread.latency, replays=replays)
        if batch:
            await self._serve_batch(thread, batch)
        elif self.waiting.waits(replays=replays):
            await asyncio.sleep(0)  # all that was found is late or cancelled: look again
        else:
            self.waiting.arrived.clear()
            rest_s = self._spare.rest_s() if len(self.queue) else 0.0
            await _wait(self.waiting.arrived, at_most_s=rest_s if rest_s > 0 else None)

    def give_way(self) -> bool:
        """Interrupt a run of replays; return False if there is none to interrupt."""
        replaying = next((each for each in self._threads if each.gives_way), None)
        if replaying is None:
            return False
        replaying.interrupt()
        return True

    def look_again(self) -> None:
        """See whether replays may run now."""
        if self.queue.depth(Lane.REPLAY):
            self.waiting.arrived.set()

    def _live_came(self, live: Live) -> None:
        runs = ceil(live.rows / self._max_rows)
        self._spare.live_came(self, runs=runs, runners=self._serving())
        self._ahead.came(live)

    def _serving(self) -> int:
        return sum(self._state(each) is RunnerState.HEALTHY for each in self._threads)

    async def _serve_batch(self, thread: RunnerThread[R], batch: list[Waiting[R]]) -> None:
        """Run `batch`, settle its rows, and keep account of whose they are.

        Raises:
            StuckRun: the runner did not come back; the rows without an answer have failed with it.
        """
        requests = {row.payload.submission: row.lane for row in batch}
        lanes = Counter(requests.values())
        self.running.update(lanes)
        self.waiting.began(batch)
        began_s = self._clock.monotonic_s()
        try:
            await self._run(thread, batch)
        except DeviceFailed as error:
            thread.health.device_failed(now_s=self._clock.monotonic_s())
            self._note(thread, error)
            self.waiting.give_back(batch, error)
        except RunInterrupted:
            self.waiting.wait_again(batch)
        except StuckRun as stuck:
            for row in batch:
                if not row.payload.settled:
                    row.payload.fail(stuck)
            raise
        finally:
            self.running.subtract(lanes)
            spent_s = self._clock.monotonic_s() - began_s
            if batch[0].lane is Lane.REPLAY:
                self._spare.replay_ran(spent_s, runners=self._serving())
            else:
                self._spare.live_ran(spent_s)

    async def _run(
        self, thread: RunnerThread[R], batch: list[Waiting[R]], *, alone: bool = False
    ) -> None:
        """Run `batch` and settle its rows; a bad row fails alone and its company succeeds.

        Raises:
            StuckRun, DeviceFailed: the runner is at fault; the rows without an answer are not
                settled.
            RunInterrupted: the batch gave way; the same holds.
        """
        padded = padded_tokens(batch)
        began_s = self._clock.monotonic_s()
        thread.begin(batch, alone=alone)
        if not self._relieved.is_set():
            self._ahead.look()
        try:
            matrix = await thread.ended()
        except (StuckRun, DeviceFailed, RunInterrupted):
            raise
        except Exception as error:  # noqa: BLE001 (a runtime may raise anything; the row fails with it)
            if len(batch) == 1:
                batch[0].payload.fail(as_cortex_error(error))
                return
            for row in batch:  # which row is at fault shows when each runs alone
                if self.waiting.wanted(row):
                    await self._run(thread, [row], alone=True)
            return
        spent_s = self._clock.monotonic_s() - began_s
        self.figures.ran(batch, spent_s=spent_s, predicted_s=thread.latency.predict_s(padded))
        thread.latency.observe(padded, spent_s=spent_s)
        for index, row in enumerate(batch):
            row.payload.settle(matrix[index : index + 1])

    async def _probe(self, thread: RunnerThread[R]) -> None:
        was_out = thread.health.out
        failure = await thread.probe()
        if thread.health.out is not was_out:
            self._note(thread, failure)

    def _state(self, thread: RunnerThread[R]) -> RunnerState:
        if thread.health.out:
            return RunnerState.OUT
        if thread.standby and not self._relieved.is_set():
            return RunnerState.STANDBY
        return RunnerState.HEALTHY

    def _note(self, thread: RunnerThread[R], failure: BaseException | None) -> None:
        """Say that a runner went out of service or came back, and see who serves now."""
        model, runner = self._model, thread.name
        if failure is None:
            _log.info("runner.back", model=model, runner=runner)
        else:
            self._last_failure = failure
            _log.warning("runner.out", model=model, runner=runner, error=str(failure))
        in_service = [each for each in self._threads if not each.health.out]
        if all(each.standby for each in in_service):
            self._relieved.set()
        else:
            self._relieved.clear()
        self._unserved = not in_service
        self._in_service.set(len(in_service))

    async def _mind(self) -> None:
        """Wake idle runners, whose probes may be due; mind the rows while no runner is in service.

        One timer for all of them: one for each wait would cost a tenth of a lone row's time.
        """
        unserved_since_s: float | None = None
        while True:
            await asyncio.sleep(self._health.probe_every_s / 5)
            self.waiting.arrived.set()
            if not self._unserved:
                unserved_since_s = None
                continue
            self.waiting.expire_late()
            now_s = self._clock.monotonic_s()
            unserved_since_s = unserved_since_s or now_s
            if (spent_s := now_s - unserved_since_s) >= self._health.give_up_after_s:
                self._give_up(DeviceFailed(f"{self.unserved} (for {spent_s:.0f} s)"))

    def _give_up(self, error: CortexError) -> None:
        if not self._given_up:
            self._given_up = True
            self._on_stuck(error)


async def _wait(event: asyncio.Event, *, at_most_s: float | None) -> None:
    """Return when `event` is set, or after `at_most_s`."""
    try:
        async with asyncio.timeout(at_most_s):
            await event.wait()
    except TimeoutError:
        return
