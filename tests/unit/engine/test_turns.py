import asyncio
from collections.abc import Sequence
from time import thread_time

import pytest

from cortex_stream.clock import SystemClock
from cortex_stream.delivery.outcome import Outcome
from cortex_stream.engine.engine import Engine
from cortex_stream.task_scope import TaskScope
from cortex_stream.testing.stub_runner import StubRunner, stub_model
from schemas.outcomes import OutcomeKind
from schemas.requests import CLASSIFY
from tests.unit.engine.desk import open_engine, request, source
from tests.unit.engine.hostile import HOSTILE
from tests.unit.engine.turns import measured_turns

# Tracing costs up to five times what is measured: the limit is for a worker as users run it.
# So do, through caches and memory they share, two more suites on the same two cores.
pytestmark = [pytest.mark.no_cover, pytest.mark.alone]

LIMIT_S = 0.05
RECORDS_A_TURN = 16  # twice as many as the intake takes
LONG_TEXT = "What is long takes its time, and nobody else's. " * 86  # 4 KB


async def test_the_meter_sees_a_turn_that_is_too_long() -> None:
    with measured_turns() as turns_s:
        await asyncio.sleep(0)
        end_s = thread_time() + 0.06
        while thread_time() < end_s:
            pass
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    assert max(turns_s) > LIMIT_S


@pytest.mark.parametrize("encoding", ["base64", "float"])
async def test_no_turn_is_long_with_a_mebibyte_of_texts_behind_two_thousand_small_requests(
    encoding: str,
) -> None:
    # given
    small = [request([f"request number {n}"], id=str(n)) for n in range(2000)]
    long_texts = [f"{n} {LONG_TEXT}"[:4060] for n in range(256)]
    large = request(long_texts, id="large", data={"encoding_format": encoding})
    assert (1 << 20) - 20_000 < len(large) <= 1 << 20
    runners = tuple(StubRunner(width=384) for _ in range(2))
    model = stub_model(dims=384, runners=runners)

    # when
    async with open_engine(model, clock=SystemClock()) as engine:
        with measured_turns() as turns_s:
            outcomes = await outcomes_of([*small, large], engine)

    # then
    assert {outcome.kind for outcome in outcomes} == {OutcomeKind.RESULT}
    assert max(turns_s) < LIMIT_S, sorted(turns_s)[-5:]


MARKS = "".join(chr(0x300 + n * 7 % 0x30) for n in range(16_000))  # 32 KB, in the worst order
LARGE = {
    **HOSTILE,
    "marks": request([f"{n} {MARKS}"[:16_000] for n in range(32)]),
    "marks as a text too long": request([MARKS * 30]),
    "late": request([MARKS] * 32, deadlinems=0),
    # An answer names each label for each text: 260 MB.
    "labels for each text": request(
        ["x"] * 256,
        type=CLASSIFY,
        data={"labels": [f"{n:02}{'x' * 32_000}" for n in range(31)]},
    ),
}


@pytest.mark.parametrize("value", LARGE.values(), ids=LARGE)
async def test_no_turn_is_long_with_a_hostile_mebibyte(value: bytes) -> None:
    # given
    assert len(value) > 900_000
    small = [request([f"request number {n}"], id=str(n)) for n in range(50)]

    # when
    async with open_engine(clock=SystemClock()) as engine:
        with measured_turns() as turns_s:
            outcomes = await outcomes_of([value, *small], engine)

    # then
    assert {outcome.kind for outcome in outcomes[1:]} == {OutcomeKind.RESULT}
    print(f"longest turn {1000 * max(turns_s):.1f} ms")
    assert max(turns_s) < LIMIT_S


async def test_no_turn_is_long_with_a_mebibyte_of_headers() -> None:
    headers = [("a", b"")] * 350_000

    async with open_engine(clock=SystemClock()) as engine:
        with measured_turns() as turns_s:
            outcome = await engine.process(b"{", source(headers=headers))

    assert outcome.kind is OutcomeKind.REJECTED
    assert max(turns_s) < LIMIT_S


async def outcomes_of(values: Sequence[bytes], engine: Engine) -> list[Outcome]:
    """Return what becomes of records that arrive together, some in each turn of the loop."""
    tasks: list[asyncio.Task[Outcome]] = []
    async with TaskScope() as scope:
        for number, value in enumerate(values, start=1):
            tasks.append(scope.start(engine.process(value, source()), name=str(number)))
            if number % RECORDS_A_TURN == 0:
                await asyncio.sleep(0)
        return await asyncio.gather(*tasks)
