"""A worker to which more comes than it can answer in time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from cortex_stream.clock import ManualClock
from cortex_stream.delivery.outcome import Outcome
from cortex_stream.engine.engine import Engine
from cortex_stream.engine.models import INLINE_CHARS
from cortex_stream.inference.tensors import FloatRows
from cortex_stream.inference.tokenizer import TokenRow
from cortex_stream.record import RecordSource
from cortex_stream.testing.stub_runner import StubRunner, stub_model
from schemas.outcomes import OutcomeKind
from schemas.priority import Lane
from tests.unit.engine.desk import code_of, message_of, open_engine, request, source

NOW_MS = 1_700_000_000_000
RUN_S = 0.08
RUNS = 25


class Slow(StubRunner):
    """Takes 80 ms of the clock for a batch, and stays in the last of 25 until it is released."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.runs = 0
        self._clock = clock

    def run(self, rows: Sequence[TokenRow]) -> FloatRows:
        self.runs += 1
        self._clock.advance_s(RUN_S)
        if self.runs == RUNS:
            self.released.clear()
        return super().run(rows)


@dataclass
class Overloaded:
    engine: Engine
    runner: Slow
    clock: ManualClock

    def now(self, *, lane: Lane = Lane.LOW) -> RecordSource:
        """Return the place of a record that has come just now."""
        came = source(lane=lane, received_s=self.clock.monotonic_s(), offset=10_000)
        return replace(came, timestamp_ms=self.clock.unix_ms())


@asynccontextmanager
async def overloaded() -> AsyncIterator[Overloaded]:
    """Yield an engine of which 520 wait still, who have 6 s left each, and 10 ms each to run."""
    clock = ManualClock(unix_ms=NOW_MS)
    runner = Slow(clock)
    async with open_engine(stub_model(runners=(runner,)), clock=clock) as engine:
        came = source(lane=Lane.LOW, received_s=clock.monotonic_s())
        asked = [
            asyncio.ensure_future(
                engine.process(request(id=str(n), deadlinems=8000), replace(came, offset=n))
            )
            for n in range(720)
        ]
        async with asyncio.timeout(10):
            while runner.released.is_set():
                await asyncio.sleep(0.001)
        try:
            yield Overloaded(engine, runner, clock)
        finally:
            runner.released.set()
            await asyncio.gather(*asked)


async def test_who_would_be_late_is_told_at_once_and_never_runs() -> None:
    async with overloaded() as it:
        ended = it.engine.begin(request(id="late", deadlinems=6200), it.now())

        assert isinstance(ended, Outcome)
        assert (ended.kind, code_of(ended)) == (OutcomeKind.EXPIRED, "deadline_exceeded")
        error = message_of(ended).data.error
        assert error is not None
        assert "6.200 s before the deadline" in error.message


async def test_who_has_time_or_no_deadline_or_another_lane_is_answered() -> None:
    async with overloaded() as it:
        texts = ["x"] * 200
        kept: list[Awaitable[Outcome]] = []
        for value, place in (
            (request(texts, id="time", deadlinems=20_000), it.now()),
            (request(texts, id="no deadline"), it.now()),
            (request(texts, id="lane", deadlinems=7000), it.now(lane=Lane.HIGH)),
        ):
            begun = it.engine.begin(value, place)
            assert not isinstance(begun, Outcome)
            kept.append(asyncio.ensure_future(begun()))
        it.runner.released.set()

        assert {(await each).kind for each in kept} == {OutcomeKind.RESULT}


async def test_who_waited_to_be_tokenised_is_asked_again() -> None:
    long = "x" * (INLINE_CHARS + 1)
    async with overloaded() as it:
        tokenising = it.engine._models.running("stub")._tokenising.turns
        async with tokenising.entered(lane=Lane.HIGH, tenant="another", deadline=None, cost=1):
            begun = it.engine.begin(request([long], id="long", deadlinems=7000), it.now())
            assert not isinstance(begun, Outcome)
            waiting = asyncio.ensure_future(begun())
            await asyncio.sleep(0)
            it.clock.advance_s(1.8)  # its turn is behind those that have 4.2 s left now

        async with asyncio.timeout(5):
            assert (await waiting).kind is OutcomeKind.EXPIRED
