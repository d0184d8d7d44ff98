"""What requests cost: measured in processor time, so that a busy machine changes little."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator

import pytest

from cortex_stream.clock import ManualClock
from cortex_stream.delivery.outcome import Outcome
from cortex_stream.engine.engine import Engine
from cortex_stream.errors import InvalidOutput
from cortex_stream.loadtest.engine_cost import measure_engine
from cortex_stream.testing.stub_runner import StubRunner, stub_model
from schemas.outcomes import OutcomeKind
from tests.unit.engine.desk import open_engine, request, source

MANY = 200


@pytest.mark.alone
@pytest.mark.no_cover  # tracing costs as much as what is measured
async def test_more_than_ten_thousand_late_requests_a_second_end_on_one_core() -> None:
    cost = await measure_engine([request([f"request number {n}"], id=str(n)) for n in range(500)])

    print(
        f"late at arrival {cost.arrives_late_us:.0f} µs, in the queue {cost.late_in_queue_us:.0f}"
    )
    assert 1e6 / cost.arrives_late_us > 10_000  # 20,000 and more where nothing else runs
    assert cost.arrives_late_us < cost.late_in_queue_us < cost.answer_us * 2


# ---- nothing is left for the garbage collector ---------------------------------------------------


@pytest.fixture
def no_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def runner() -> StubRunner:
    return StubRunner()


@pytest.fixture
async def engine(clock: ManualClock, runner: StubRunner) -> AsyncIterator[Engine]:
    async with open_engine(stub_model(runners=(runner,)), clock=clock) as engine:
        yield engine


async def unreachable_after(engine: Engine, value: bytes, kind: OutcomeKind) -> int:
    """Return how many objects only the collector could free, after `MANY` requests."""
    for _ in range(MANY):
        outcome = await engine.process(value, source())
        assert outcome.kind is kind
        del outcome
    return gc.collect()


@pytest.mark.usefixtures("no_collections")
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (request(), OutcomeKind.RESULT),
        (request(deadlinems=0), OutcomeKind.EXPIRED),
        (request(data={"modle": "stub"}), OutcomeKind.REJECTED),
        (request(data={"model": "unknown"}), OutcomeKind.REJECTED),
        (request(["\x00"]), OutcomeKind.REJECTED),
        (b"{", OutcomeKind.REJECTED),
    ],
    ids=["result", "late", "field", "model", "text", "json"],
)
async def test_an_outcome_leaves_no_rings(engine: Engine, value: bytes, kind: OutcomeKind) -> None:
    assert await unreachable_after(engine, value, kind) < MANY


@pytest.mark.usefixtures("no_collections")
async def test_a_failing_runner_leaves_no_rings() -> None:
    failing = StubRunner(failures=(InvalidOutput("broken") for _ in range(9 * MANY)))

    async with open_engine(stub_model(runners=(failing,))) as engine:
        left = await unreachable_after(engine, request(), OutcomeKind.DEAD_LETTER)

    assert left < MANY


@pytest.mark.usefixtures("no_collections")
async def test_a_request_that_expires_in_the_queue_leaves_no_rings(
    engine: Engine, clock: ManualClock, runner: StubRunner
) -> None:
    runner.released.clear()
    value = request(deadlinems=1000, time="2023-11-14T22:13:20Z")
    tasks = [asyncio.ensure_future(engine.process(value, source())) for _ in range(MANY)]
    await asyncio.sleep(0)
    clock.advance_s(2)
    runner.released.set()

    ended: list[Outcome] = await asyncio.gather(*tasks)

    assert sum(each.kind is OutcomeKind.EXPIRED for each in ended) > MANY / 2
    del ended, tasks
    assert gc.collect() < MANY
