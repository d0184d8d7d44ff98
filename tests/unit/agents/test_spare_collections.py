import asyncio
import gc
from collections.abc import Iterator

import pytest

from agents.faust_app import spare_collections
from cortex_stream.clock import SystemClock
from cortex_stream.delivery.outcome import Outcome
from cortex_stream.task_scope import TaskScope
from cortex_stream.testing.stub_runner import StubRunner, stub_model
from schemas.outcomes import OutcomeKind
from tests.unit.engine.desk import open_engine, request, source
from tests.unit.engine.turns import measured_turns

WAITING = 8000
LIMIT_S = 0.05


@pytest.fixture
def spared() -> Iterator[None]:
    thresholds = gc.get_threshold()
    spare_collections()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def test_young_objects_are_looked_at_as_often_as_ever() -> None:
    young, middle, full = gc.get_threshold()

    spare_collections()

    spared = gc.get_threshold()
    gc.set_threshold(young, middle, full)
    gc.unfreeze()
    assert spared[:2] == (young, middle)
    assert spared[2] >= 1000 * full


@pytest.mark.slow
@pytest.mark.usefixtures("spared")
async def test_no_turn_is_long_while_thousands_of_requests_wait() -> None:
    # given
    runner = StubRunner()
    runner.released.clear()
    values = [request([f"request number {n}"], id=str(n)) for n in range(WAITING)]

    # when
    model = stub_model(runners=(runner,))
    async with open_engine(model, clock=SystemClock()) as engine, TaskScope() as scope:
        with measured_turns() as turns_s:
            tasks: list[asyncio.Task[Outcome]] = []
            for number, value in enumerate(values):
                tasks.append(scope.start(engine.process(value, source()), name="answer"))
                if number % 8 == 7:
                    await asyncio.sleep(0)
            runner.released.set()
            # One by one: `gather` would take a long turn of its own to look at all of them.
            outcomes = [await task for task in tasks]

    # then
    assert {outcome.kind for outcome in outcomes} == {OutcomeKind.RESULT}
    assert max(turns_s) < LIMIT_S, sorted(turns_s)[-5:]
