"""The batch that is formed while every runner is at work."""

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from cortex_stream.clock import ManualClock
from cortex_stream.deadline import Deadline
from cortex_stream.errors import DeviceFailed, Expired
from cortex_stream.inference.tensors import FloatRows
from cortex_stream.inference.tokenizer import TokenRow
from cortex_stream.scheduling.dispatcher import Dispatcher
from cortex_stream.scheduling.health import HealthRule
from cortex_stream.scheduling.waiting import Answers
from cortex_stream.task_scope import TaskScope
from cortex_stream.testing.stub_runner import StubRunner
from schemas.priority import Lane
from tests.unit.scheduling.desk import Desk, PickyRunner, caught, name_of, text, until

NEVER_PROBED = HealthRule(probe_every_s=1000)
BACKLOG = range(1, 13)


class SteppedRunner(StubRunner):
    """A runner of which each batch waits until it may go on; it remembers the batches."""

    def __init__(self, *, failure: Exception | None = None) -> None:
        super().__init__(width=4)
        self.ran: list[list[int]] = []
        self.on_run: Callable[[], None] = lambda: None
        self._failure = failure
        self._steps = threading.Semaphore(0)

    @property
    def seen(self) -> list[int]:
        """Every row that was run, each time it was."""
        return [name for batch in self.ran for name in batch]

    def step(self, batches: int = 1000) -> None:
        """Let so many batches go on."""
        self._steps.release(batches)

    def run(self, rows: Sequence[TokenRow]) -> FloatRows:
        """Wait, then fail or answer."""
        self.ran.append([name_of(row) for row in rows])
        self.on_run()
        self._steps.acquire()
        if self._failure is not None:
            raise self._failure
        return super().run(rows)

    def close(self) -> None:
        """Let its thread end."""
        super().close()
        self.step()


class Load:
    """Requests of one row each."""

    def __init__(self, dispatcher: Dispatcher[TokenRow], tasks: TaskScope) -> None:
        self.dispatcher = dispatcher
        self.all: list[asyncio.Task[Answers | Exception]] = []
        self._tasks = tasks

    def send(
        self,
        *names: int,
        lane: Lane = Lane.LOW,
        tenant: str = "//a",
        deadline: Deadline | None = None,
    ) -> "list[asyncio.Task[Answers | Exception]]":
        sent = [
            self._tasks.start(
                caught(
                    self.dispatcher.submit(
                        [text(name)], lane=lane, tenant=tenant, deadline=deadline
                    )
                ),
                name=str(name),
            )
            for name in names
        ]
        self.all += sent
        return sent

    async def held(
        self,
        runner: SteppedRunner,
        *names: int,
        lane: Lane = Lane.LOW,
        deadline: Deadline | None = None,
    ) -> None:
        """Send until the runner is held in its second batch, with the third formed if there is one."""
        self.send(0, lane=lane)
        await until(lambda: len(runner.ran) == 1)
        self.send(*names, lane=lane, deadline=deadline)
        await until(lambda: len(self.dispatcher.queue) == len(names))
        runner.step(1)
        await until(lambda: len(runner.ran) == 2)
        await until(lambda: self.dispatcher.running[lane] == len(runner.ran[1]))


async def test_a_runner_goes_on_though_the_event_loop_is_busy(desk: Desk, tasks: TaskScope) -> None:
    runner, went_on = SteppedRunner(), threading.Event()
    load = Load(await desk.open(runner, max_rows=2), tasks)
    await load.held(runner, *BACKLOG)
    runner.on_run = lambda: went_on.set() if len(runner.ran) == 3 else None

    runner.step()
    assert went_on.wait(5)  # the loop stands still meanwhile

    await asyncio.gather(*load.all)
    assert runner.ran == [[0], *([n, n + 1] for n in BACKLOG[::2])]


async def test_nothing_is_formed_ahead_of_a_few(desk: Desk, tasks: TaskScope) -> None:
    runner = SteppedRunner()
    load = Load(await desk.open(runner, max_rows=2), tasks)
    await load.held(runner, *range(1, 9))

    assert len(load.dispatcher.queue) == 6  # none of them is taken before the run has ended
    runner.step()
    await asyncio.gather(*load.all)


async def test_one_batch_for_a_newcomer_goes_before_the_one_that_was_formed(
    desk: Desk, tasks: TaskScope
) -> None:
    runner = SteppedRunner()
    load = Load(await desk.open(runner, max_rows=2), tasks)
    await load.held(runner, *BACKLOG)

    load.send(100, lane=Lane.CRITICAL)
    await until(lambda: len(load.dispatcher.queue) == 7)
    load.send(200, lane=Lane.CRITICAL, tenant="//b")
    load.send(300, tenant="//b")
    runner.step()
    await asyncio.gather(*load.all)

    order = [[0], [1, 2], [100, 5], [3, 4]]
    assert [sorted(batch, reverse=batch[0] == 100) for batch in runner.ran[:4]] == order
    assert 200 in runner.ran[4]


@pytest.mark.parametrize("lane", [Lane.HIGH, Lane.LOW])
async def test_whoever_waits_already_or_is_less_urgent_goes_behind_it(
    desk: Desk, tasks: TaskScope, lane: Lane
) -> None:
    runner = SteppedRunner()
    load = Load(await desk.open(runner, max_rows=2), tasks)
    await load.held(runner, *BACKLOG, lane=Lane.HIGH)

    load.send(100, lane=lane)
    await until(lambda: len(load.dispatcher.queue) == 9)
    runner.step()
    await asyncio.gather(*load.all)

    assert runner.ran[2] == [3, 4]


async def test_no_row_of_it_runs_that_was_cancelled_meanwhile(desk: Desk, tasks: TaskScope) -> None:
    runner = SteppedRunner()
    load = Load(await desk.open(runner, max_rows=2), tasks)
    await load.held(runner, *BACKLOG)

    load.all[3].cancel()
    await asyncio.wait([load.all[3]])
    runner.step()
    await asyncio.wait(load.all)

    assert 3 not in runner.seen
    assert sorted(runner.seen) == [0, *(n for n in BACKLOG if n != 3)]


async def test_nothing_is_formed_ahead_while_a_row_with_a_deadline_waits(
    desk: Desk, tasks: TaskScope
) -> None:
    clock, runner = ManualClock(), SteppedRunner()
    load = Load(await desk.open(runner, max_rows=2, clock=clock), tasks)
    await load.held(runner, *BACKLOG, deadline=Deadline(clock.monotonic_s() + 60))
    assert len(load.dispatcher.queue) == len(BACKLOG) - 2

    clock.advance_s(61)
    runner.step()
    results = await asyncio.gather(*load.all)

    assert [type(each) for each in results] == [Answers] * 3 + [Expired] * 10
    assert runner.ran == [[0], [1, 2]]


async def test_a_newcomer_with_a_deadline_goes_before_it_and_never_runs_late(
    desk: Desk, tasks: TaskScope
) -> None:
    clock, runner = ManualClock(), SteppedRunner()
    load = Load(await desk.open(runner, max_rows=2, clock=clock), tasks)
    await load.held(runner, *BACKLOG)
    (newcomer,) = load.send(100, lane=Lane.CRITICAL, deadline=Deadline(clock.monotonic_s() + 1))
    await until(lambda: len(load.dispatcher.queue) == 7)

    clock.advance_s(2)
    runner.step()
    await asyncio.gather(*load.all)

    assert isinstance(newcomer.result(), Expired)
    assert sorted(runner.seen) == [0, *BACKLOG]


async def test_a_newcomer_does_not_go_before_a_more_urgent_row_that_rides(
    desk: Desk, tasks: TaskScope
) -> None:
    runner = SteppedRunner()
    load = Load(await desk.open(runner, max_rows=2), tasks)
    await load.held(runner, *BACKLOG)
    load.send(100, lane=Lane.CRITICAL, tenant="//b")  # with a low row, before the batch of low ones
    await until(lambda: len(load.dispatcher.queue) == 7)
    runner.step(1)
    await until(lambda: len(runner.ran) == 3)
    load.send(200, tenant="//c")
    runner.step()
    await asyncio.gather(*load.all)

    assert 100 in runner.ran[2]
    assert sorted(runner.ran[3]) == [3, 4]


async def test_a_bad_row_in_a_batch_that_was_gone_on_with_fails_alone(
    desk: Desk, tasks: TaskScope
) -> None:
    runner = PickyRunner(broken={3: ValueError("bad")})
    load = Load(await desk.open(runner, max_rows=2), tasks)

    load.send(*range(20))
    results = await asyncio.gather(*load.all)

    failed = [name for name, each in enumerate(results) if isinstance(each, Exception)]
    assert failed == [3]
    assert sorted(runner.seen) == sorted([*range(20), *runner.ran[1]])


async def test_a_device_that_is_lost_under_such_a_batch_gives_it_to_another(
    desk: Desk, tasks: TaskScope
) -> None:
    lost, other = PickyRunner(broken={7: DeviceFailed("lost")}), SteppedRunner()
    load = Load(await desk.open(lost, other, max_rows=2, health=NEVER_PROBED), tasks)

    load.send(*range(20))
    await until(lambda: load.dispatcher.runners()[0].failures == 1)
    other.step()
    results = await asyncio.gather(*load.all)

    assert all(isinstance(each, Answers) for each in results)
    assert 7 in lost.ran[-1]
    assert sorted([*lost.seen, *other.seen]) == sorted([*range(20), *lost.ran[-1]])


async def test_a_runner_that_was_given_up_takes_nothing_when_it_comes_back(
    desk: Desk, tasks: TaskScope
) -> None:
    stuck, other = SteppedRunner(), StubRunner(width=4, sleep_s_per_row=0.02)
    load = Load(await desk.open(stuck, other, max_rows=2, run_timeout_s=0.2), tasks)

    load.send(*range(60))
    await until(lambda: len(desk.stuck) == 1)
    stuck.step()
    results = await asyncio.gather(*load.all)

    assert len(stuck.ran) == 1
    assert sum(isinstance(each, Answers) for each in results) == 58


async def test_whatever_is_cancelled_each_of_the_others_runs_once_on_two_runners(
    desk: Desk, tasks: TaskScope
) -> None:
    runners = PickyRunner(), PickyRunner()
    load = Load(await desk.open(*runners, max_rows=4), tasks)
    for wave in range(20):
        lane = list(Lane)[wave % 4]
        sent = load.send(*range(100 * wave, 100 * wave + 60), lane=lane, tenant=f"//{wave % 3}")
        await asyncio.sleep(0)
        for each in sent[::7]:
            each.cancel()
    await asyncio.wait(load.all)

    answered = [each for each in load.all if not each.cancelled()]
    assert all(isinstance(each.result(), Answers) for each in answered)
    ran = [*runners[0].seen, *runners[1].seen]
    assert len(ran) == len(set(ran))
    assert set(ran) >= {int(each.get_name()) for each in answered}


async def test_what_was_formed_for_a_lost_device_runs_on_standby_by_its_rule(
    desk: Desk, tasks: TaskScope
) -> None:
    device, standby = SteppedRunner(failure=DeviceFailed("lost")), SteppedRunner()
    standby.step()
    dispatcher = await desk.open(
        device, standby=(standby,), standby_rows=1, max_rows=2, health=NEVER_PROBED
    )
    load = Load(dispatcher, tasks)
    load.send(*range(13))
    await until(lambda: len(dispatcher.queue) == 9)  # two are at work, two formed ahead
    device.step()
    results = await asyncio.gather(*load.all)

    assert all(isinstance(each, Answers) for each in results)
    assert sorted(standby.seen) == list(range(13))
    assert max(map(len, standby.ran)) == 1


async def test_batches_are_brief_for_a_second_after_a_newcomer_among_others(
    desk: Desk, tasks: TaskScope
) -> None:
    # given: whoever comes first is no newcomer among others
    clock, runner = ManualClock(), SteppedRunner()
    load = Load(await desk.open(runner, clock=clock, brief_tokens=40), tasks)
    await load.held(runner, *range(1, 80))
    assert len(runner.ran[1]) == 8

    # when
    load.send(100, lane=Lane.CRITICAL)
    await asyncio.sleep(0)
    runner.step(3)
    await until(lambda: len(runner.ran) == 5)
    await until(lambda: len(load.dispatcher.queue) == 80 - 24 - 4)  # the next is formed ahead

    # then: the first that was formed for it, the next ahead of time, the last after it
    assert [len(batch) for batch in runner.ran[2:]] == [4, 8, 4]

    # when
    clock.advance_s(1.5)
    runner.step()
    await asyncio.gather(*load.all)

    # then: one had been formed before that
    assert [len(batch) for batch in runner.ran[5:8]] == [4, 8, 8]
