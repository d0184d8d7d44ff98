"""What becomes of submissions to a lane that has as many waiting rows as it may."""

import asyncio
from collections.abc import Sequence
from typing import Self

import pytest

from cortex_stream.clock import ManualClock
from cortex_stream.deadline import Deadline
from cortex_stream.errors import Expired
from cortex_stream.inference.tokenizer import TokenRow
from cortex_stream.scheduling.dispatcher import Dispatcher
from cortex_stream.scheduling.waiting import MAX_WAITING_ROWS, Answers
from cortex_stream.task_scope import TaskScope
from schemas.priority import Lane
from tests.unit.scheduling.desk import Desk, PickyRunner, caught, text, until

FILLER = [text(0)] * MAX_WAITING_ROWS


class FullLane:
    """A dispatcher whose runner is held and whose lane LOW is full."""

    def __init__(self, dispatcher: Dispatcher[TokenRow], runner: PickyRunner) -> None:
        self.dispatcher = dispatcher
        self.runner = runner
        self._tasks = TaskScope()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self.runner.released.clear()
        self.first = self.submit([text(0)], lane=Lane.LOW)
        await until(self.runner.entered.is_set)
        self.filler = self.submit(FILLER, lane=Lane.LOW)
        await until(lambda: self.depth(Lane.LOW) == MAX_WAITING_ROWS)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.__aexit__(None, None, None)

    def depth(self, lane: Lane) -> int:
        return self.dispatcher.queue.depth(lane)

    def submit(
        self,
        rows: Sequence[TokenRow],
        *,
        lane: Lane,
        tenant: str = "//a",
        deadline: Deadline | None = None,
    ) -> asyncio.Task[Answers | Exception]:
        return self._tasks.start(
            caught(self.dispatcher.submit(rows, lane=lane, tenant=tenant, deadline=deadline)),
            name="submission",
        )

    async def pass_in_another_lane(self) -> None:
        """Submit in another lane and see the rows wait: whoever came before had its turn."""
        depth = self.depth(Lane.HIGH)
        _ = self.submit([text(0)], lane=Lane.HIGH)
        await until(lambda: self.depth(Lane.HIGH) == depth + 1)


async def full_lane(desk: Desk, *, clock: ManualClock | None = None) -> FullLane:
    runner = PickyRunner()
    return FullLane(await desk.open(runner, clock=clock, max_rows=25), runner)


async def test_a_full_lane_lets_nothing_in_and_delays_no_other_lane(desk: Desk) -> None:
    async with await full_lane(desk) as full:
        outside = full.submit([text(1)] * 100, lane=Lane.LOW)
        behind = full.submit([text(2)], lane=Lane.LOW)

        await full.pass_in_another_lane()

        assert full.depth(Lane.LOW) == MAX_WAITING_ROWS
        assert not outside.done()
        assert not behind.done()


async def test_submissions_enter_in_the_order_of_their_arrival_as_rows_run(desk: Desk) -> None:
    async with await full_lane(desk) as full:
        depths = []
        full.runner.on_run = lambda: depths.append(full.depth(Lane.LOW))
        outside = [full.submit([text(n)] * 100, lane=Lane.LOW) for n in range(1, 6)]
        await full.pass_in_another_lane()

        full.runner.released.set()
        answers = await asyncio.gather(*outside, full.filler)

        seen = [name for name in full.runner.seen if name > 0]
        assert seen == [n for n in range(1, 6) for _ in range(100)]
        assert all(isinstance(answer, Answers) for answer in answers)
        assert MAX_WAITING_ROWS < max(depths) < MAX_WAITING_ROWS + 100


async def test_rows_that_are_cancelled_make_room(desk: Desk) -> None:
    async with await full_lane(desk) as full:
        _ = full.submit([text(1)] * 100, lane=Lane.LOW)
        _ = full.submit([text(2)], lane=Lane.LOW)
        await full.pass_in_another_lane()

        full.filler.cancel()

        await until(lambda: full.depth(Lane.LOW) == 101)


async def test_a_submission_cancelled_while_it_waits_for_room_leaves_nothing_behind(
    desk: Desk,
) -> None:
    # given
    async with await full_lane(desk) as full:
        first_in_line = full.submit([text(1)], lane=Lane.LOW)
        behind_it = full.submit([text(2)], lane=Lane.LOW)
        last = full.submit([text(3)], lane=Lane.LOW)
        await full.pass_in_another_lane()

        # when
        for unwanted in (first_in_line, behind_it):
            unwanted.cancel()
            with pytest.raises(asyncio.CancelledError):
                await unwanted
        full.filler.cancel()
        await until(lambda: full.depth(Lane.LOW) == 1)
        full.runner.released.set()

        # then
        assert isinstance(await last, Answers)
        assert not {1, 2} & set(full.runner.seen)
        assert len(full.dispatcher.queue) == 0


async def test_a_submission_that_expires_while_it_waits_for_room_fails_unrun(desk: Desk) -> None:
    clock = ManualClock()
    async with await full_lane(desk, clock=clock) as full:
        late = full.submit(
            [text(1)] * 100, lane=Lane.LOW, deadline=Deadline(clock.monotonic_s() + 5)
        )
        await full.pass_in_another_lane()

        clock.advance_s(7)
        full.filler.cancel()
        full.runner.released.set()

        assert isinstance(await late, Expired)
        assert 1 not in full.runner.seen
        assert full.depth(Lane.LOW) == 0


async def test_the_wait_for_room_counts_as_waiting_for_a_runner(desk: Desk) -> None:
    clock = ManualClock()
    async with await full_lane(desk, clock=clock) as full:
        patient = full.submit([text(1)], lane=Lane.LOW)
        await full.pass_in_another_lane()

        clock.advance_s(7)
        full.filler.cancel()
        full.runner.released.set()

        answers = await patient
        assert isinstance(answers, Answers)
        assert answers.queue_s == 7


async def test_a_submission_larger_than_the_bound_enters_an_empty_lane(desk: Desk) -> None:
    dispatcher = await desk.open(PickyRunner(), max_rows=25)

    answers = await dispatcher.submit(
        [*FILLER, text(1)], lane=Lane.LOW, tenant="//a", deadline=None
    )

    assert len(answers.matrix) == MAX_WAITING_ROWS + 1


async def test_another_tenant_does_not_wait_for_room_behind_all_of_a_flood(desk: Desk) -> None:
    async with await full_lane(desk) as full:
        flood = [full.submit([text(n)] * 100, lane=Lane.LOW) for n in range(1, 40)]
        quiet = full.submit([text(99)], lane=Lane.LOW, tenant="//quiet")
        await full.pass_in_another_lane()

        full.runner.released.set()
        assert isinstance(await quiet, Answers)

        assert sum(1 <= name < 40 for name in full.runner.seen) <= 300
        assert not all(each.done() for each in flood)


async def test_what_waits_still_counts_as_a_wait(desk: Desk) -> None:
    clock = ManualClock()
    async with await full_lane(desk, clock=clock) as full:
        clock.advance_s(7)

        assert full.dispatcher.waiting.worst_wait_s(Lane.LOW) == 7
        assert full.dispatcher.waiting.worst_wait_s(Lane.HIGH) == 0


async def test_a_wait_that_ended_too_late_counts_as_a_wait(desk: Desk) -> None:
    clock = ManualClock()
    async with await full_lane(desk, clock=clock) as full:
        late = full.submit([text(1)], lane=Lane.HIGH, deadline=Deadline(clock.monotonic_s() + 5))
        await until(lambda: full.depth(Lane.HIGH) == 1)
        clock.advance_s(7)
        full.runner.released.set()
        assert isinstance(await late, Expired)

        assert full.dispatcher.waiting.worst_wait_s(Lane.HIGH) == 7
