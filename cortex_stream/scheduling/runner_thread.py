"""A runner on the thread that it blocks, with its health and its figures.

Invariants: the runner is called on its own thread only, and one call at a time.
Owner: the event loop that serves it.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from cortex_stream.clock import Clock
from cortex_stream.errors import InvariantError, RunInterrupted, StuckRun
from cortex_stream.scheduling.ahead import Ahead
from cortex_stream.scheduling.batcher import BatchRule
from cortex_stream.scheduling.health import Health, HealthRule, RunnerState
from cortex_stream.scheduling.latency_model import LatencyModel
from cortex_stream.scheduling.waiting import Matrix, Waiting, Weighed, gives_way
from cortex_stream.telemetry import metrics
from cortex_stream.telemetry.rates import RateMeter

_LOOKS: Final = 10
"""Time is up after so many looks at a run: of a process that was stopped, by whatever and for however
long, one look at most has passed."""

RUNNER_NICENESS: Final = 5
"""More than the process has: a third of the weight, which tells only where cores are short."""

R = TypeVar("R", bound=Weighed)
R_contra = TypeVar("R_contra", contravariant=True)


class Runner(Protocol[R_contra]):
    """Runs one batch of one model version; blocking, one call at a time."""

    def run(self, rows: Sequence[R_contra]) -> Matrix:
        """Return one float32 row of numbers for each of `rows`, shape (rows, width).

        Raises:
            DeviceFailed: the rows are not at fault, and another runner may answer them.
            RunInterrupted: `interrupt` was called.
            Exception: anything else counts against the rows.
        """
        ...

    def interrupt(self) -> None:
        """End the run under way, from another thread. It may be too early or too late for that."""
        ...

    def probe(self) -> None:
        """Run something tiny; raise what `run` would."""
        ...


@dataclass(frozen=True, slots=True)
class Crew(Generic[R]):
    """The runners of one device, and how large their batches may be."""

    runners: Sequence[Runner[R]]
    rule: BatchRule


@dataclass(frozen=True, slots=True)
class RunnerFigures:
    """One runner, as it is shown.

    Attributes:
        busy_share: of the last ten seconds, from 0 to 1.
        runs: batches that gave numbers.
        failures: batches and probes that did not.
    """

    name: str
    state: RunnerState
    busy_share: float
    runs: int
    failures: int


class _Done(NamedTuple, Generic[R]):
    """The numbers of a batch, and the batch that the thread has gone on with."""

    matrix: Matrix
    next_batch: list[Waiting[R]] | None
    next_run: "Future[_Done[R]] | None"


class RunnerThread(Generic[R]):
    """Calls one runner, with a time limit, and keeps account of it."""

    def __init__(
        self,
        runner: Runner[R],
        rule: BatchRule,
        latency: LatencyModel,
        *,
        model: str,
        name: str,
        standby: bool,
        run_timeout_s: float,
        health_rule: HealthRule,
        clock: Clock,
        ahead: Ahead[R] | None = None,
    ) -> None:
        """Call `runner` for batches of `rule`; go on with what there is `ahead` after each."""
        self.rule = rule
        self.latency = latency
        """How long its batches take; runners of one device learn together."""
        self.name = name
        self.standby = standby
        self.busy = False
        """Whether it runs a batch now."""
        self.gives_way = False
        """Whether that batch may be interrupted."""
        self.next_batch: list[Waiting[R]] | None = None
        """What it has gone on with; it must be run next."""
        self.runs = 0
        self.failures = 0
        self.health = Health(health_rule, now_s=clock.monotonic_s())
        self._interrupting = False
        self._run: Future[_Done[R]] | None = None
        self._began_s = 0.0
        self._rows = 0
        self._ahead = ahead
        self._runner = runner
        self._model = model
        self._run_timeout_s = run_timeout_s
        self._probe_timeout_s = health_rule.probe_timeout_s
        self._clock = clock
        self._probe: asyncio.Future[None] | None = None
        self._probe_waited_s = 0.0  # without what the process was stopped for
        self._busy_s = RateMeter(clock=clock)
        self._interrupted = metrics.RUNS_INTERRUPTED.labels(model)
        self._busy_seconds = metrics.RUNNER_BUSY_SECONDS.labels(model, name)
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix=f"run-{model}-{name}", initializer=_give_way
        )

    def close(self) -> None:
        """Let the thread end after what it runs; waits for nothing."""
        self._thread.shutdown(wait=False)

    @property
    def busy_share(self) -> float:
        """The share of the last ten seconds in which it ran batches, from 0 to 1."""
        return min(1.0, self._busy_s.rate_per_s("busy"))

    @property
    def probing(self) -> bool:
        """Whether a probe is not back yet: the thread is not free."""
        return self._probe is not None

    def give_up(self) -> list[Waiting[R]]:
        """Take nothing more, since nobody waits for it; return what it has gone on with."""
        self._ahead = None
        return self.next_batch or []

    def interrupt(self) -> None:
        """Let the batch under way end early, if it is one that gives way; else do nothing."""
        if self.gives_way:
            self.gives_way = False
            self._interrupting = True
            self._runner.interrupt()

    def begin(self, batch: list[Waiting[R]], *, alone: bool = False) -> None:
        """Run `batch`, and go on with what there is ahead, unless it is to run `alone`."""
        self.busy, self.gives_way, self._rows = True, gives_way(batch), len(batch)
        self._began_s = self._clock.monotonic_s()
        if batch is not self.next_batch:
            self._interrupting = False
            goes_on = self._ahead is not None and not alone and not self.gives_way
            self._run = self._thread.submit(self._work, batch, goes_on=goes_on)
        self.next_batch = None

    async def ended(self) -> Matrix:
        """Return the runner's numbers for the batch that was begun; a success counts for its health.

        Raises:
            RunInterrupted: it gave way.
            StuckRun: it did not come back in time; it must not be called any more.
            Exception: what the runner raised.
        """
        try:
            done = await self._wait()
        except RunInterrupted:
            self._interrupted.inc()
            raise
        except Exception:
            self.failures += 1
            raise
        else:
            self.runs += 1
            self.health.passed(now_s=self._clock.monotonic_s())
            matrix, self.next_batch, self._run = done
            return matrix
        finally:
            self.busy = self.gives_way = False
            spent_s = self._clock.monotonic_s() - self._began_s
            self._busy_s.record("busy", spent_s)
            self._busy_seconds.inc(spent_s)

    async def probe(self) -> BaseException | None:
        """Probe the runner, count it, and return why it failed, or None.

        One that is not back in time has failed; the next call goes on waiting for it.

        Raises:
            StuckRun: it has not come back for as long as a run may take.
        """
        if self._probe is None:
            self._probe_waited_s = 0.0
            loop = asyncio.get_running_loop()
            self._probe = loop.run_in_executor(self._thread, self._runner.probe)
        await asyncio.wait([self._probe], timeout=self._probe_timeout_s)
        self._probe_waited_s += self._probe_timeout_s
        now_s = self._clock.monotonic_s()
        failure: BaseException | None
        if self._probe.done():
            failure, self._probe = self._probe.exception(), None
        else:
            failure = TimeoutError(f"its probe is not back after {self._probe_waited_s:.1f} s")
            if self._probe_waited_s >= self._run_timeout_s:
                raise StuckRun(f"probing runner {self.name} of {self._model}: {failure}")
        if failure is None:
            self.health.passed(now_s=now_s)
        else:
            self.failures += 1
            self.health.probe_failed(now_s=now_s)
        return failure

    def _work(self, batch: list[Waiting[R]], *, goes_on: bool) -> _Done[R]:
        """Run, on the thread. It may have taken so long to wake up that the run is not wanted."""
        if self._interrupting:
            raise RunInterrupted("interrupted before it began")
        matrix = self._runner.run([row.payload.content for row in batch])
        ahead = self._ahead if goes_on else None
        next_batch = None if ahead is None else ahead.take()
        if next_batch is None:
            return _Done(matrix, None, None)
        return _Done(matrix, next_batch, self._thread.submit(self._work, next_batch, goes_on=True))

    async def _wait(self) -> _Done[R]:
        if self._run is None:
            raise InvariantError("waiting for a run that was not begun; this is a bug")
        run = asyncio.wrap_future(self._run)
        for _ in range(_LOOKS):
            await asyncio.wait([run], timeout=self._run_timeout_s / _LOOKS)
            if run.done():
                return run.result()
        _ = self.give_up()
        raise StuckRun(
            f"running {self._rows} rows of {self._model}: not back after {self._run_timeout_s:g} s"
            " (CORTEX_INFERENCE__RUN_TIMEOUT_S)"
        )


def _give_way() -> None:
    """Let the other threads of the process run before this one, which computes all the time.

    Without it a record waits for its turn on a busy machine as long as a batch does. On Linux
    threads have a niceness of their own; elsewhere nothing is changed.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        niceness = os.getpriority(os.PRIO_PROCESS, thread) + RUNNER_NICENESS
        os.setpriority(os.PRIO_PROCESS, thread, min(19, niceness))  # 19 is the nicest
