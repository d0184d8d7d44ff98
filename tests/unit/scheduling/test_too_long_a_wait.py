"""Rows that would be late when they begin are refused as they come."""

from collections.abc import AsyncIterator

import numpy as np
import pytest

from cortex_stream.clock import ManualClock
from cortex_stream.deadline import Deadline
from cortex_stream.errors import Expired
from cortex_stream.inference.tokenizer import TokenRow
from cortex_stream.scheduling.batcher import BatchRule
from cortex_stream.scheduling.expected_wait import BATCHES
from cortex_stream.scheduling.fair_queue import FairQueue
from cortex_stream.scheduling.latency_model import LatencyModel
from cortex_stream.scheduling.waiting import WaitingRows
from cortex_stream.task_scope import TaskScope
from schemas.priority import Lane
from tests.unit.scheduling.desk import caught, text, until

BATCH_S = 0.08
ROWS = 8
ROW_S = BATCH_S / ROWS


class Line:
    """Rows that wait for one runner, which takes eight of them in 80 ms."""

    def __init__(self, tasks: TaskScope) -> None:
        self.clock = ManualClock()
        self.waiting: WaitingRows[TokenRow] = WaitingRows(
            FairQueue(batch_tokens=256), clock=self.clock, on_live=lambda _: None
        )
        self._tasks = tasks

    def due(self, left_s: float | None) -> Deadline | None:
        return None if left_s is None else Deadline(self.clock.monotonic_s() + left_s)

    async def come(
        self, rows: int, *, left_s: float | None, lane: Lane = Lane.LOW, tenant: str = "//a"
    ) -> None:
        deadline, wanted = self.due(left_s), self.waiting.queue.depth(lane) + rows
        for _ in range(rows):
            submitted = self.waiting.submit([text(1)], lane=lane, tenant=tenant, deadline=deadline)
            _ = self._tasks.start(caught(submitted), name="submission")
        await until(lambda: self.waiting.queue.depth(lane) == wanted)

    def serve(self, batches: int, *, batch_s: float = BATCH_S) -> None:
        for _ in range(batches):
            batch = self.waiting.next_batch(BatchRule(ROWS, 256), LatencyModel(), replays=False)
            self.waiting.began(batch)
            self.clock.advance_s(batch_s)
            for row in batch:
                row.payload.settle(np.zeros((1, 4), np.float32))

    def asks(self, left_s: float | None, *, lane: Lane = Lane.LOW, tenant: str = "//a") -> None:
        self.waiting.check_time(lane=lane, tenant=tenant, deadline=self.due(left_s))


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    async with TaskScope() as tasks:
        yield Line(tasks)
        await tasks.close()


@pytest.fixture
async def overloaded(line: Line) -> Line:
    """A lane in which 400 rows wait with 6 s left, each for 10 ms, and from which 200 have gone."""
    await line.come(600, left_s=8.0)
    line.serve(25)
    return line


async def test_who_has_time_for_those_before_it_is_let_in(overloaded: Line) -> None:
    overloaded.asks(6.5)


async def test_who_has_no_time_for_those_before_it_is_refused_and_told_why(
    overloaded: Line,
) -> None:
    await overloaded.come(200, left_s=6.0)

    with pytest.raises(
        Expired, match=r"6\.500 s before the deadline: what is due before it takes longer than 5\.2"
    ):
        overloaded.asks(6.5)


async def test_who_is_due_before_those_that_wait_is_let_in(overloaded: Line) -> None:
    await overloaded.come(200, left_s=6.0)

    overloaded.asks(1.0)


async def test_those_that_will_be_late_keep_nobody_out(overloaded: Line) -> None:
    await overloaded.come(1000, left_s=1.0)

    overloaded.asks(4.0)


async def test_another_tenant_waits_for_as_much_as_it_has_itself(overloaded: Line) -> None:
    overloaded.asks(2.0, tenant="//b")
    await overloaded.come(100, left_s=1.9, tenant="//b")
    overloaded.asks(3.0, tenant="//b")

    with pytest.raises(Expired):
        overloaded.asks(2.2, tenant="//b")


async def test_another_lane_and_replays_are_not_judged_by_it(overloaded: Line) -> None:
    await overloaded.come(200, left_s=6.0)

    overloaded.asks(6.5, lane=Lane.HIGH)
    overloaded.asks(6.5, lane=Lane.REPLAY)
    overloaded.asks(None)


async def test_who_is_late_is_refused_wherever_it_comes(line: Line) -> None:
    with pytest.raises(Expired, match=r"0\.500 s after the deadline"):
        line.asks(-0.5, lane=Lane.REPLAY)


async def test_behind_fewer_batches_than_tell_the_pace_nobody_is_refused(overloaded: Line) -> None:
    await overloaded.come(30, left_s=0.5, tenant="//b")

    overloaded.asks(0.6, tenant="//b")


async def test_before_anybody_has_waited_through_many_batches_nobody_is_refused(line: Line) -> None:
    await line.come(600, left_s=1.0)
    line.serve(BATCHES)

    line.asks(1.0)


async def test_a_lane_that_stood_still_refuses_nobody(overloaded: Line) -> None:
    await overloaded.come(1000, left_s=6.0)
    overloaded.clock.advance_s(2.5)

    overloaded.asks(3.6)


async def test_a_lane_that_gets_slower_refuses_more(overloaded: Line) -> None:
    await overloaded.come(100, left_s=9.0)
    overloaded.asks(9.5)
    overloaded.serve(10, batch_s=2 * BATCH_S)

    with pytest.raises(Expired):
        overloaded.asks(9.5 - 10 * 2 * BATCH_S)


@pytest.mark.parametrize(
    ("load", "pause_s", "left_s"), [(0.4, 10, 30.0), (0.7, 3, 10.0), (0.4, 5, 10.0), (0.6, 2, 5.0)]
)
async def test_after_a_pause_nobody_is_refused_who_would_be_answered(
    line: Line, load: float, pause_s: int, left_s: float
) -> None:
    every_s, came_s = ROW_S / load, line.clock.monotonic_s()
    begin_s, refused = came_s, 0

    async def arrive() -> None:
        nonlocal came_s, refused
        while came_s < line.clock.monotonic_s():
            came_s += every_s
            try:
                line.asks(left_s)
            except Expired:
                refused += 1
            else:
                await line.come(1, left_s=left_s)

    paused = False
    while line.clock.monotonic_s() < begin_s + 25:
        if not paused and line.clock.monotonic_s() > begin_s + 5:
            line.clock.advance_s(pause_s)
            paused = True
        await arrive()
        line.serve(1) if len(line.waiting.queue) else line.clock.advance_s(every_s)

    assert paused
    assert refused == 0
