"""Processor time of the engine's parts, without Kafka: decided in one process, on one thread."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median
from time import thread_time
from typing import Final

import orjson

from cortex_stream.bootstrap.dedupe import Dedupe
from cortex_stream.clock import ManualClock, SystemClock
from cortex_stream.delivery.outcome import Outcome
from cortex_stream.engine.embedding import EmbeddingStage
from cortex_stream.engine.endings import Endings
from cortex_stream.engine.engine import Engine
from cortex_stream.engine.models import ServedModels
from cortex_stream.engine.parse import decode, read_attributes
from cortex_stream.engine.reuse import DedupeWindow
from cortex_stream.engine.validate import validate
from cortex_stream.errors import OperatorError
from cortex_stream.loadtest.free_model import NAME, FreeRunner, free_model
from cortex_stream.record import RecordSource
from cortex_stream.scheduling.batcher import BatchRule
from cortex_stream.settings.sections import LimitsSettings
from cortex_stream.settings.tree import Settings
from cortex_stream.task_scope import TaskScope
from cortex_stream.telemetry.metrics import REGISTRY
from schemas.outcomes import OutcomeKind
from schemas.priority import Lane

_REPEATS: Final = 5
_SLICE_RECORDS: Final = 8  # as many requests begin in one turn of a worker's loop
_BUDGET_MS: Final = 1000
_LIMITS: Final = LimitsSettings()


@dataclass(frozen=True, slots=True)
class EngineCost:
    """Microseconds of processor time a request, the least of several passes.

    Attributes:
        read: bytes to a valid request.
        answer: bytes to a result, `read` included; the model costs nothing.
        arrives_late: bytes to the outcome `expired`: the deadline had passed before.
        late_in_queue: the same, but the deadline passed while it waited for a runner.
    """

    read_us: float
    answer_us: float
    arrives_late_us: float
    late_in_queue_us: float


async def measure_engine(values: Sequence[bytes]) -> EngineCost:
    """Return what the requests in `values` cost; they must have no deadline of their own.

    Raises:
        OperatorError: a request ended otherwise than expected.
    """
    hurried = [orjson.dumps({**orjson.loads(v), "deadlinems": _BUDGET_MS}) for v in values]
    return EngineCost(
        read_us=min(_read_us(values) for _ in range(_REPEATS)),
        answer_us=min([await _answer_us(values) for _ in range(_REPEATS)]),
        arrives_late_us=min([await _arrives_late_us(hurried) for _ in range(_REPEATS)]),
        late_in_queue_us=min([await _late_in_queue_us(hurried) for _ in range(_REPEATS)]),
    )


async def measure_dedupe(values: Sequence[bytes], settings: Settings) -> float:
    """Return what the dedupe window adds to a request, in µs: the median of several pairs of passes.

    Raises:
        OperatorError: Redis did not answer for nearly all of them.
    """
    added_us = []
    for turn in range(2 * _REPEATS + 1):
        kafka = settings.kafka.model_copy(
            update={"topic_prefix": f"cost-{turn}"}
        )  # all ids are new
        dedupe = Dedupe(settings.model_copy(update={"kafka": kafka}), clock=SystemClock())
        before = _unchecked()
        async with TaskScope() as scope:
            _ = scope.start(dedupe.run(), name="dedupe window")
            await asyncio.sleep(0)
            with_us = await _answer_us(values, dedupe.window)
        if dedupe.window is None or _unchecked() - before > len(values) / 100:
            raise OperatorError(f"measuring the dedupe window: {dedupe.status().detail}")
        added_us.append(with_us - await _answer_us(values))
    return median(added_us)


def _unchecked() -> float:
    return REGISTRY.get_sample_value("cortex_dedupe_checks_total", {"answer": "unchecked"}) or 0.0


def _read_us(values: Sequence[bytes]) -> float:
    source = _source(ManualClock())
    began_s = thread_time()
    for value in values:
        envelope = decode(value, source, limits=_LIMITS)
        _ = validate(read_attributes(envelope), envelope.data, limits=_LIMITS)
    return _each_us(began_s, values)


async def _answer_us(values: Sequence[bytes], dedupe: DedupeWindow | None = None) -> float:
    clock = ManualClock()
    async with _engine(clock, FreeRunner(), dedupe) as engine, TaskScope() as scope:
        began_s = thread_time()
        outcomes = await asyncio.gather(*await _begin(engine, values, clock, scope))
        spent_us = _each_us(began_s, values)
    _check(outcomes, OutcomeKind.RESULT)
    return spent_us


async def _arrives_late_us(values: Sequence[bytes]) -> float:
    clock = ManualClock()
    source = _source(clock)
    clock.advance_s(2 * _BUDGET_MS / 1000)
    async with _engine(clock, FreeRunner()) as engine:
        began_s = thread_time()
        outcomes = [await engine.process(value, source) for value in values]
        spent_us = _each_us(began_s, values)
    _check(outcomes, OutcomeKind.EXPIRED)
    return spent_us


async def _late_in_queue_us(values: Sequence[bytes]) -> float:
    clock, runner = ManualClock(), FreeRunner()
    async with _engine(clock, runner) as engine, TaskScope() as scope:
        runner.released.clear()
        began_s = thread_time()
        tasks = await _begin(engine, values, clock, scope)
        clock.advance_s(2 * _BUDGET_MS / 1000)
        runner.released.set()
        outcomes = await asyncio.gather(*tasks)
        spent_us = _each_us(began_s, values)
    _check(outcomes[2 * _SLICE_RECORDS :], OutcomeKind.EXPIRED)  # the first were at work already
    return spent_us


@asynccontextmanager
async def _engine(
    clock: ManualClock, runner: FreeRunner, dedupe: DedupeWindow | None = None
) -> AsyncIterator[Engine]:
    models = ServedModels(
        [free_model(runner)],
        default=NAME,
        rule=lambda _: BatchRule(max_rows=8, max_tokens=160),
        run_timeout_s=60,
        clock=clock,
        on_stuck=lambda _: None,
    )
    async with models:
        stage = EmbeddingStage(models, clock)
        yield Engine(
            models=models,
            stages={stage.name: stage},
            endings=Endings(limits=_LIMITS, clock=clock, worker="bench"),
            limits=_LIMITS,
            max_attempts=1,
            clock=clock,
            instance="bench",
            dedupe=dedupe,
        )


async def _begin(
    engine: Engine, values: Sequence[bytes], clock: ManualClock, scope: TaskScope
) -> list[asyncio.Task[Outcome]]:
    source = _source(clock)
    tasks = []
    for number, value in enumerate(values, start=1):
        tasks.append(scope.start(engine.process(value, source), name="answer"))
        if number % _SLICE_RECORDS == 0:
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


def _source(clock: ManualClock) -> RecordSource:
    return RecordSource("requests", 0, 0, clock.unix_ms(), clock.monotonic_s(), Lane.MEDIUM, b"key")


def _check(outcomes: Sequence[Outcome], kind: OutcomeKind) -> None:
    other = next((each for each in outcomes if each.kind is not kind), None)
    if other is not None:
        raise OperatorError(f"measuring the engine: {other.kind} instead of {kind}: {other.error}")


def _each_us(began_s: float, values: Sequence[bytes]) -> float:
    return 1e6 * (thread_time() - began_s) / len(values)
