"""The limits of pipelines, in an engine with a stub model."""

import asyncio
from dataclasses import replace

import pytest

from cortex_stream.engine.engine import Engine
from cortex_stream.engine.limits import in_time
from cortex_stream.errors import StageTimeout
from cortex_stream.routing.pipeline import BUILT_IN, STANDARD, Pipeline
from cortex_stream.routing.route import StageName
from cortex_stream.testing.stub_runner import StubRunner, stub_model
from schemas.outcomes import OutcomeKind
from schemas.priority import Lane
from schemas.requests import EMBED
from tests.unit.engine.desk import (
    NEVER_LATER,
    code_of,
    letter_of,
    message_of,
    open_engine,
    request,
    source,
)

EMBEDDING = StageName.EMBEDDING


def limited(**changes: object) -> tuple[Pipeline, ...]:
    own = Pipeline("own", frozenset({EMBED}), (EMBEDDING,))
    return (replace(own, **changes), *BUILT_IN)  # type: ignore[arg-type]


async def at_the_runner(engine: Engine, lane: Lane, *, count: int) -> list["asyncio.Task[object]"]:
    """Start requests of `lane` and let each go as far as it can."""
    tasks: list[asyncio.Task[object]] = [
        asyncio.ensure_future(engine.process(request([f"text {n}"]), source(lane=lane)))
        for n in range(count)
    ]
    for _ in range(20):
        await asyncio.sleep(0)
    return tasks


@pytest.mark.parametrize(("most", "largest"), [(2, {2}), (None, {4, 5})])
async def test_a_pipeline_has_so_many_requests_of_a_lane_at_the_models_and_the_rest_waits(
    most: int | None, largest: set[int]
) -> None:
    runner = StubRunner()
    runner.released.clear()
    pipelines = limited(max_concurrent=most)

    async with open_engine(stub_model(runners=(runner,)), pipelines=pipelines) as engine:
        tasks = await at_the_runner(engine, Lane.LOW, count=5)
        runner.released.set()
        await asyncio.gather(*tasks)

    assert sum(runner.batches) == 5
    assert max(runner.batches) in largest


async def test_a_lane_that_waits_keeps_no_other_lane_out() -> None:
    runner = StubRunner()
    runner.released.clear()

    async with open_engine(
        stub_model(runners=(runner,)), pipelines=limited(max_concurrent=1)
    ) as engine:
        low = await at_the_runner(engine, Lane.LOW, count=3)
        critical = await at_the_runner(engine, Lane.CRITICAL, count=1)
        runner.released.set()
        done, _ = await asyncio.wait([*low, *critical], return_when=asyncio.FIRST_COMPLETED)
        while critical[0] not in done:
            done, _ = await asyncio.wait([*low, *critical], return_when=asyncio.FIRST_COMPLETED)
            assert len(done & set(low)) <= 2, "behind one low request at most"
        await asyncio.gather(*low)


async def test_a_stage_beyond_its_time_is_tried_again_and_then_a_dead_letter() -> None:
    runner = StubRunner()
    runner.released.clear()
    pipelines = limited(timeouts_s={EMBEDDING: 0.01})

    async with open_engine(
        stub_model(runners=(runner,)), pipelines=pipelines, retries=NEVER_LATER
    ) as engine:
        outcome = await engine.process(request(), source())
        runner.released.set()

    assert (outcome.kind, code_of(outcome)) == (OutcomeKind.DEAD_LETTER, "stage_timeout")
    assert message_of(outcome).data.attempt == 3
    assert dict(letter_of(outcome).headers)["cortex_dlt-stage"] == b"embedding"
    assert "0.01 s of pipeline own" in str(outcome.error)


async def test_a_timeout_of_the_stage_itself_stays_what_it_is() -> None:
    async def fail() -> None:
        raise TimeoutError("of the device")

    own = replace(STANDARD, timeouts_s={EMBEDDING: 30.0})

    with pytest.raises(TimeoutError, match="of the device"):
        await in_time(fail(), own, EMBEDDING)


async def test_what_is_ready_in_time_is_what_the_stage_found() -> None:
    async def find() -> int:
        return 7

    own = replace(STANDARD, timeouts_s={EMBEDDING: 30.0})

    assert await in_time(find(), own, EMBEDDING) == 7
    with pytest.raises(StageTimeout):
        await in_time(asyncio.sleep(30), replace(own, timeouts_s={EMBEDDING: 0.001}), EMBEDDING)


async def test_the_pipelines_model_answers_a_request_that_names_none() -> None:
    first, second = stub_model(name="first"), stub_model(name="second")

    async with open_engine(first, second, pipelines=limited(model="second")) as engine:
        unnamed = await engine.process(request(), source())
        named = await engine.process(request(data={"model": "first"}), source())

    models = [message_of(outcome).data.model for outcome in (unnamed, named)]
    assert [model.name for model in models if model] == ["second", "first"]
