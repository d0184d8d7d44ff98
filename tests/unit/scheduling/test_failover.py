"""What becomes of rows when runners and their devices fail."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_stream.clock import ManualClock, SystemClock
from cortex_stream.deadline import Deadline
from cortex_stream.errors import CortexError, DeviceFailed, DeviceOutOfMemory, Expired, StuckRun
from cortex_stream.inference.tensors import FloatRows
from cortex_stream.inference.tokenizer import TokenRow
from cortex_stream.scheduling.dispatcher import Dispatcher
from cortex_stream.scheduling.health import HealthRule, RunnerState
from cortex_stream.scheduling.waiting import MAX_DEVICE_FAILURES, Answers
from cortex_stream.task_scope import TaskScope
from cortex_stream.testing.stub_runner import StubRunner
from schemas.priority import Lane
from tests.unit.scheduling.desk import Desk, PickyRunner, caught, text, texts, until

LOST = DeviceFailed("running stub@1: CUDA failure 719: unspecified launch failure")
QUICK = HealthRule(probe_every_s=0.02, probe_timeout_s=0.01, give_up_after_s=60.0)
NEVER_PROBED = HealthRule(probe_every_s=60.0)
HEALTHY, STANDBY, OUT = RunnerState.HEALTHY, RunnerState.STANDBY, RunnerState.OUT


class Device(PickyRunner):
    """A runner whose device is lost while `lost` is set, for runs and for probes."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = threading.Event()
        self.probes = 0

    def run(self, rows: Sequence[TokenRow]) -> FloatRows:
        if self.lost.is_set():
            raise LOST
        return super().run(rows)

    def probe(self) -> None:
        self.probes += 1
        if self.lost.is_set():
            raise LOST


def lost_device() -> Device:
    device = Device()
    device.lost.set()
    return device


def states(dispatcher: Dispatcher[TokenRow]) -> list[RunnerState]:
    return [runner.state for runner in dispatcher.runners()]


async def answer(dispatcher: Dispatcher[TokenRow], rows: Sequence[TokenRow]) -> Answers | Exception:
    return await caught(dispatcher.submit(rows, lane=Lane.LOW, tenant="//a", deadline=None))


async def test_free_runners_share_one_queue_so_the_busy_one_gets_nothing(
    desk: Desk, tasks: TaskScope
) -> None:
    held, free = PickyRunner(), PickyRunner()
    held.released.clear()
    dispatcher = await desk.open(held, free, max_rows=1)
    waits = tasks.start(answer(dispatcher, [text(0)]), name="held")
    await until(held.entered.is_set)

    await asyncio.gather(*(answer(dispatcher, [text(n)]) for n in range(1, 20)))

    assert free.seen == list(range(1, 20))
    held.released.set()
    await waits


@pytest.mark.parametrize("error", [LOST, DeviceOutOfMemory("CUDA failure 2: out of memory")])
async def test_a_batch_whose_device_fails_runs_at_once_on_another_runner(
    desk: Desk, error: CortexError
) -> None:
    bad, good = StubRunner(width=4, failures=iter([error])), PickyRunner()
    dispatcher = await desk.open(bad, good, health=NEVER_PROBED)

    answers = await answer(dispatcher, texts(range(5)))

    assert isinstance(answers, Answers)
    assert good.ran == [[0, 1, 2, 3, 4]]
    assert states(dispatcher) == [OUT, HEALTHY]
    assert [(runner.runs, runner.failures) for runner in dispatcher.runners()] == [(0, 1), (1, 0)]
    assert not any(dispatcher.running.values())


async def test_a_runner_is_given_nothing_until_its_probe_passes(
    desk: Desk, tasks: TaskScope
) -> None:
    # given
    device, other = lost_device(), PickyRunner()
    dispatcher = await desk.open(device, other, health=QUICK, max_rows=1)
    await asyncio.gather(*(answer(dispatcher, [text(n)]) for n in range(10)))
    assert states(dispatcher) == [OUT, HEALTHY]
    assert device.seen == []
    await until(lambda: device.probes > 2)

    # when
    device.lost.clear()
    await until(lambda: states(dispatcher) == [HEALTHY, HEALTHY])
    other.released.clear()
    for n in range(10):
        _ = tasks.start(answer(dispatcher, [text(n)]), name=str(n))

    # then
    await until(lambda: len(device.seen) >= 9)  # the other one holds at most one
    other.released.set()


async def test_standby_runners_serve_while_no_other_is_in_service_and_by_their_own_rule(
    desk: Desk,
) -> None:
    # given
    device, standby = Device(), Device()
    dispatcher = await desk.open(device, standby=(standby,), standby_rows=2, health=QUICK)
    await answer(dispatcher, texts(range(8)))
    assert (device.seen, standby.seen) == (list(range(8)), [])
    assert states(dispatcher) == [HEALTHY, STANDBY]

    # when
    device.lost.set()
    results = await asyncio.gather(*(answer(dispatcher, [text(n)]) for n in range(8, 16)))

    # then
    assert all(isinstance(result, Answers) for result in results)
    assert sorted(standby.seen) == list(range(8, 16))
    assert max(map(len, standby.ran)) == 2
    assert states(dispatcher) == [OUT, HEALTHY]

    # and when its device returns
    device.lost.clear()
    await until(lambda: states(dispatcher) == [HEALTHY, STANDBY])
    await answer(dispatcher, texts(range(16, 24)))

    # then
    assert device.seen[-8:] == list(range(16, 24))


async def test_rows_wait_while_no_runner_is_in_service_and_run_when_one_returns(
    desk: Desk, tasks: TaskScope
) -> None:
    device, standby = lost_device(), lost_device()
    dispatcher = await desk.open(device, standby=(standby,), health=QUICK)
    waiting = [tasks.start(answer(dispatcher, [text(n)]), name=str(n)) for n in range(20)]
    await until(lambda: dispatcher.unserved is not None)
    assert states(dispatcher) == [OUT, OUT]
    assert str(LOST) in str(dispatcher.unserved)

    standby.lost.clear()
    results = await asyncio.gather(*waiting)

    assert all(isinstance(result, Answers) for result in results)
    assert dispatcher.unserved is None
    assert desk.stuck == []


async def test_rows_expire_in_time_while_no_runner_is_in_service(desk: Desk) -> None:
    clock, device = SystemClock(), lost_device()
    dispatcher = await desk.open(device, health=QUICK)

    results = await asyncio.gather(
        *(
            caught(
                dispatcher.submit(
                    [text(n)],
                    lane=Lane.LOW,
                    tenant="//a",
                    deadline=Deadline(clock.monotonic_s() + 0.05),
                )
            )
            for n in range(20)
        )
    )

    assert [type(result) for result in results] == [Expired] * 20
    assert len(dispatcher.queue) == 0


async def test_after_a_bounded_time_without_any_runner_it_gives_up_and_says_why(
    desk: Desk, tasks: TaskScope
) -> None:
    rule = HealthRule(probe_every_s=0.02, give_up_after_s=0.1)
    device = lost_device()
    dispatcher = await desk.open(device, health=rule)
    unanswered = tasks.start(answer(dispatcher, [text(0)]), name="waits")

    await until(lambda: bool(desk.stuck))

    assert isinstance(desk.stuck[0], DeviceFailed)
    assert str(desk.stuck[0]).startswith(f"no runner of stub@1 is in service: {LOST} (for ")
    assert not unanswered.done()  # nobody answered it: another worker will
    probes = device.probes
    await until(lambda: device.probes > probes + 5)
    assert len(desk.stuck) == 1  # once is enough, and it goes on looking


async def test_a_row_that_breaks_every_device_fails_alone_and_its_company_is_answered(
    desk: Desk,
) -> None:
    runner = PickyRunner(broken={3: LOST})
    dispatcher = await desk.open(runner, health=QUICK)

    results = await asyncio.gather(*(answer(dispatcher, [text(n)]) for n in range(6)))

    assert results.pop(3) is LOST
    assert all(isinstance(result, Answers) for result in results)
    assert runner.seen.count(3) == MAX_DEVICE_FAILURES
    assert runner.ran[-4:].count([3]) == 1  # the third time alone


async def test_rows_that_failed_by_themselves_do_not_run_again_when_the_device_fails_after_them(
    desk: Desk,
) -> None:
    # given: the batch fails for row 0, and while each row runs alone the device fails under row 1
    runner = PickyRunner(broken={0: RuntimeError("bad tensor")})

    def behave() -> None:
        if runner.ran.count([1]) == 1 and runner.ran[-1] == [1]:
            raise LOST

    runner.on_run = behave
    dispatcher = await desk.open(runner, health=QUICK)

    results = await asyncio.gather(*(answer(dispatcher, [text(n)]) for n in range(3)))

    assert [isinstance(result, Answers) for result in results] == [False, True, True]
    assert runner.ran == [[0, 1, 2], [0], [1], [1, 2]]


async def test_rows_that_are_cancelled_while_they_wait_to_run_again_never_do(
    desk: Desk, tasks: TaskScope
) -> None:
    device = lost_device()
    dispatcher = await desk.open(device, health=QUICK)
    unwanted = tasks.start(answer(dispatcher, [text(1)]), name="unwanted")
    await until(lambda: states(dispatcher) == [OUT])

    unwanted.cancel()
    await asyncio.wait([unwanted])
    device.lost.clear()
    await answer(dispatcher, [text(2)])

    assert device.seen == [2]


async def test_behind_cancelled_rows_the_others_that_came_back_are_found(
    desk: Desk, tasks: TaskScope
) -> None:
    # given
    held = PickyRunner()
    held.released.clear()
    bad = [StubRunner(width=4, failures=iter([LOST])) for _ in range(2)]
    dispatcher = await desk.open(held, *bad, health=NEVER_PROBED, max_rows=1)
    first = tasks.start(answer(dispatcher, [text(9)]), name="held")
    await until(held.entered.is_set)
    unwanted, wanted = (tasks.start(answer(dispatcher, [text(n)]), name=str(n)) for n in range(2))
    await until(lambda: states(dispatcher) == [HEALTHY, OUT, OUT])

    # when
    unwanted.cancel()
    held.released.set()

    # then
    assert isinstance(await wanted, Answers)
    await first
    assert held.seen == [9, 1]


async def test_a_runner_whose_probe_is_not_back_is_given_nothing(desk: Desk) -> None:
    rule = HealthRule(probe_every_s=0.02, probe_timeout_s=0.01, max_failed_probes=10_000)
    probed, other = StubRunner(width=4), PickyRunner()
    dispatcher = await desk.open(probed, other, health=rule)
    probed.released.clear()
    await until(lambda: dispatcher.runners()[0].failures > 0)

    for n in range(50):
        await answer(dispatcher, [text(n)])
        await asyncio.sleep(0.001)

    assert other.seen == list(range(50))
    assert probed.batches == []


async def test_an_idle_runner_is_put_out_by_its_probes_alone(desk: Desk) -> None:
    device = Device()
    dispatcher = await desk.open(device, health=QUICK)

    device.lost.set()
    await until(lambda: states(dispatcher) == [OUT])

    assert device.probes >= QUICK.max_failed_probes
    assert dispatcher.runners()[0].failures >= QUICK.max_failed_probes


async def test_a_runner_that_answers_is_not_probed(desk: Desk) -> None:
    clock, device = ManualClock(), Device()
    dispatcher = await desk.open(device, clock=clock)

    for _ in range(20):
        await answer(dispatcher, [text(1)])
        clock.advance_s(1)
    assert device.probes == 0

    clock.advance_s(5)
    await answer(dispatcher, [text(1)])
    await until(lambda: device.probes == 1)


async def test_a_runner_whose_runs_all_fail_is_probed_even_under_load(desk: Desk) -> None:
    class Confused(Device):
        def run(self, rows: Sequence[TokenRow]) -> FloatRows:
            raise RuntimeError(f"nonsense about {len(rows)} rows")

        def probe(self) -> None:
            self.run([])

    dispatcher = await desk.open(Confused(), health=QUICK)

    async def ask() -> None:
        while True:
            await answer(dispatcher, [text(1)])

    async with TaskScope() as load:
        for number in range(3):
            _ = load.start(ask(), name=f"asks {number}")
        await until(lambda: states(dispatcher) == [OUT])


async def test_a_probe_that_is_late_fails_and_the_runner_returns_with_it(desk: Desk) -> None:
    runner = StubRunner(width=4)
    dispatcher = await desk.open(runner, health=QUICK)
    runner.released.clear()

    await until(lambda: states(dispatcher) == [OUT])
    assert "its probe is not back after" in str(dispatcher.unserved)
    runner.released.set()

    await until(lambda: states(dispatcher) == [HEALTHY])
    assert desk.stuck == []


async def test_a_probe_that_never_comes_back_is_a_stuck_run(desk: Desk) -> None:
    runner = StubRunner(width=4)
    dispatcher = await desk.open(runner, health=QUICK, run_timeout_s=0.1)
    runner.released.clear()

    await until(lambda: bool(desk.stuck))

    assert isinstance(desk.stuck[0], StuckRun)
    assert str(desk.stuck[0]).startswith("probing runner 0 of stub@1: its probe is not back after")
    assert states(dispatcher) == [OUT]


async def test_the_busy_share_of_a_runner_is_what_it_spent_on_batches(desk: Desk) -> None:
    dispatcher = await desk.open(StubRunner(width=4, sleep_s_per_row=0.05), StubRunner(width=4))

    await answer(dispatcher, texts(range(6)))

    busy, idle = dispatcher.runners()
    assert 0.25 < busy.busy_share <= 1.0
    assert (busy.name, idle.name, idle.busy_share) == ("0", "1", 0.0)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.booleans(), max_size=12), min_size=1, max_size=3),
    st.lists(st.integers(1, 9), min_size=1, max_size=15),
)
def test_whatever_devices_do_every_row_is_answered_once_or_fails_with_the_device(
    faults: list[list[bool]], sizes: list[int]
) -> None:
    async def scenario() -> None:
        runners = [
            StubRunner(width=4, failures=_failures(plan), probe_failures=_failures(plan))
            for plan in faults
        ]
        async with AsyncExitStack() as scope, asyncio.timeout(20):
            rule = HealthRule(probe_every_s=0.002, give_up_after_s=60.0)
            dispatcher = await Desk(scope).open(
                *runners[:2], standby=tuple(runners[2:]), health=rule, max_rows=4
            )
            results = await asyncio.gather(
                *(answer(dispatcher, texts(range(size))) for size in sizes)
            )
        alone = StubRunner(width=4)
        for size, result in zip(sizes, results, strict=True):
            if isinstance(result, Answers):
                assert (result.matrix == alone.run(texts(range(size)))).all()
            else:
                assert result is LOST
        assert len(dispatcher.queue) == 0
        assert not any(dispatcher.running.values())

    asyncio.run(scenario())


def _failures(plan: list[bool]) -> Iterator[Exception | None]:
    yield from (LOST if fails else None for fails in plan)
    yield from repeat(None)
