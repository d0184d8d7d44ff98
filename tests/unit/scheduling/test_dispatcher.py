import asyncio
import os
import sys
import threading
import time

import numpy as np
import pytest

from cortex_stream.clock import ManualClock, SystemClock
from cortex_stream.deadline import Deadline
from cortex_stream.errors import CortexError, Expired, InferenceFailed, InvalidOutput, StuckRun
from cortex_stream.scheduling.batcher import BatchRule
from cortex_stream.scheduling.dispatcher import Dispatcher
from cortex_stream.scheduling.runner_thread import RUNNER_NICENESS, Crew
from cortex_stream.task_scope import TaskScope
from cortex_stream.testing.stub_runner import StubRunner
from schemas.priority import Lane
from tests.unit.scheduling.desk import Desk, PickyRunner, caught, text, texts, until


async def test_rows_are_answered_in_the_order_of_their_submission(desk: Desk) -> None:
    rows = [text(n, tokens=3 + n * 37 % 60) for n in range(50)]
    dispatcher = await desk.open(StubRunner(width=4), StubRunner(width=4))

    answers = await dispatcher.submit(rows, lane=Lane.LOW, tenant="//a", deadline=None)

    alone = StubRunner(width=4)
    assert np.array_equal(answers.matrix, np.vstack([alone.run([row]) for row in rows]))
    assert answers.queue_s >= 0


async def test_submissions_share_batches(desk: Desk, tasks: TaskScope) -> None:
    runner = PickyRunner()
    runner.released.clear()
    dispatcher = await desk.open(runner)
    first = tasks.start(
        dispatcher.submit([text(0)], lane=Lane.LOW, tenant="//a", deadline=None),
        name="held at the start",
    )
    await until(runner.entered.is_set)
    others = [
        tasks.start(
            dispatcher.submit([text(n)], lane=Lane.LOW, tenant="//a", deadline=None), name=str(n)
        )
        for n in range(1, 8)
    ]
    await until(lambda: len(dispatcher.queue) == 7)

    runner.released.set()
    await asyncio.gather(first, *others)

    assert runner.ran == [[0], [1, 2, 3, 4, 5, 6, 7]]


async def test_a_failing_row_fails_alone_and_its_company_succeeds(desk: Desk) -> None:
    runner = PickyRunner(broken={3: RuntimeError("bad tensor")})
    dispatcher = await desk.open(runner)

    results = await asyncio.gather(
        *(
            dispatcher.submit([text(n)], lane=Lane.LOW, tenant="//a", deadline=None)
            for n in range(6)
        ),
        return_exceptions=True,
    )

    failed = results.pop(3)
    assert isinstance(failed, InferenceFailed)
    assert str(failed) == "running the model: RuntimeError: bad tensor"
    assert isinstance(failed.__cause__, RuntimeError)
    assert not any(isinstance(result, BaseException) for result in results)


async def test_a_failing_row_takes_the_rest_of_its_submission_out_of_the_queue(desk: Desk) -> None:
    runner = PickyRunner(broken={0: RuntimeError("bad")})
    dispatcher = await desk.open(runner, max_rows=1)

    with pytest.raises(InferenceFailed):
        await dispatcher.submit(texts(range(20)), lane=Lane.LOW, tenant="//a", deadline=None)

    assert len(dispatcher.queue) == 0
    assert runner.seen == [0]


async def test_an_error_that_knows_its_fate_passes_unchanged(desk: Desk) -> None:
    error = InvalidOutput("output is not finite")
    dispatcher = await desk.open(PickyRunner(broken={1: error}))

    with pytest.raises(InvalidOutput) as raised:
        await dispatcher.submit([text(1)], lane=Lane.LOW, tenant="//a", deadline=None)

    assert raised.value is error


async def test_a_timeout_error_of_the_runner_itself_is_no_stuck_run(desk: Desk) -> None:
    dispatcher = await desk.open(PickyRunner(broken={1: TimeoutError("the device is busy")}))

    with pytest.raises(InferenceFailed, match="the device is busy"):
        await dispatcher.submit([text(1)], lane=Lane.LOW, tenant="//a", deadline=None)

    assert desk.stuck == []


async def test_expired_rows_never_run(desk: Desk, tasks: TaskScope) -> None:
    clock, runner = ManualClock(), PickyRunner()
    runner.released.clear()
    dispatcher = await desk.open(runner, clock=clock)
    deadline = Deadline(clock.monotonic_s() + 5)
    running = tasks.start(
        dispatcher.submit([text(0)], lane=Lane.LOW, tenant="//a", deadline=deadline), name="in time"
    )
    await until(runner.entered.is_set)
    late = tasks.start(
        caught(
            dispatcher.submit([text(1), text(2)], lane=Lane.LOW, tenant="//a", deadline=deadline)
        ),
        name="late",
    )
    await until(lambda: len(dispatcher.queue) == 2)

    clock.advance_s(7)
    runner.released.set()

    error = await late
    assert isinstance(error, Expired)
    assert str(error) == "starting inference 2.000 s after the deadline"
    assert len((await running).matrix) == 1  # began in time, so it is answered
    assert runner.seen == [0]


async def test_rows_that_expire_while_their_company_fails_never_run_alone(desk: Desk) -> None:
    clock = ManualClock()
    runner = PickyRunner(broken={0: RuntimeError("bad")})
    runner.on_run = lambda: clock.advance_s(10)
    dispatcher = await desk.open(runner, clock=clock)
    sooner, deadline = (Deadline(clock.monotonic_s() + after_s) for after_s in (14, 15))

    results = await asyncio.gather(
        dispatcher.submit([text(0)], lane=Lane.LOW, tenant="//a", deadline=sooner),
        dispatcher.submit([text(1)], lane=Lane.LOW, tenant="//a", deadline=deadline),
        return_exceptions=True,
    )

    assert [type(result) for result in results] == [InferenceFailed, Expired]
    assert runner.ran == [[0, 1], [0]]


async def test_a_thousand_expired_rows_leave_turns_to_others(desk: Desk) -> None:
    clock = ManualClock()
    dispatcher = await desk.open(PickyRunner(), clock=clock)
    gone = Deadline(clock.monotonic_s() - 1)

    results = await asyncio.gather(
        *(
            dispatcher.submit([text(n)], lane=Lane.LOW, tenant="//a", deadline=gone)
            for n in range(1000)
        ),
        dispatcher.submit([text(1000)], lane=Lane.LOW, tenant="//a", deadline=None),
        return_exceptions=True,
    )

    assert [type(result) for result in results[:1000]] == [Expired] * 1000
    assert not isinstance(results[1000], BaseException)


async def test_a_cancelled_submission_never_runs(desk: Desk, tasks: TaskScope) -> None:
    runner = PickyRunner()
    runner.released.clear()
    dispatcher = await desk.open(runner)
    first = tasks.start(
        dispatcher.submit([text(0)], lane=Lane.LOW, tenant="//a", deadline=None), name="first"
    )
    await until(runner.entered.is_set)
    unwanted = tasks.start(
        dispatcher.submit(texts(range(1, 5)), lane=Lane.LOW, tenant="//a", deadline=None),
        name="unwanted",
    )
    await until(lambda: len(dispatcher.queue) == 4)

    unwanted.cancel()
    with pytest.raises(asyncio.CancelledError):
        await unwanted
    assert len(dispatcher.queue) == 0

    runner.released.set()
    await first
    await dispatcher.submit([text(9)], lane=Lane.LOW, tenant="//a", deadline=None)
    assert runner.seen == [0, 9]


async def test_rows_cancelled_in_the_turn_in_which_a_runner_is_freed_do_not_run(
    desk: Desk, tasks: TaskScope
) -> None:
    runner = PickyRunner()
    dispatcher = await desk.open(runner)
    unwanted = tasks.start(
        dispatcher.submit([text(1)], lane=Lane.LOW, tenant="//a", deadline=None), name="unwanted"
    )
    await asyncio.sleep(0)
    assert len(dispatcher.queue) == 1  # pushed, and the runner's task has not had its turn yet

    unwanted.cancel()
    await dispatcher.submit([text(2)], lane=Lane.LOW, tenant="//a", deadline=None)

    assert runner.seen == [2]


async def test_a_stuck_run_fails_its_rows_and_the_other_runner_goes_on(desk: Desk) -> None:
    stuck, sound = PickyRunner(), PickyRunner()
    stuck.released.clear()
    dispatcher = await desk.open(stuck, sound, run_timeout_s=0.1, max_rows=1)

    results = await asyncio.gather(
        *(
            caught(dispatcher.submit([text(n)], lane=Lane.HIGH, tenant="//a", deadline=None))
            for n in range(10)
        )
    )

    errors = [result for result in results if isinstance(result, Exception)]
    assert [str(error) for error in errors] == [
        "running 1 rows of stub@1: not back after 0.1 s (CORTEX_INFERENCE__RUN_TIMEOUT_S)"
    ]
    assert desk.stuck == errors
    assert len(stuck.ran) == 1
    assert dispatcher.busy == 0
    assert not any(dispatcher.running.values())


async def test_a_request_of_several_texts_is_tried_though_it_seems_late(desk: Desk) -> None:
    clock, runner = ManualClock(), PickyRunner()
    dispatcher = await desk.open(runner, clock=clock)
    for tokens in range(1, 101):  # a machine that was slow for a while
        dispatcher.latency.observe(tokens, spent_s=float(tokens))

    _ = await caught(
        dispatcher.submit(
            texts(range(8)),
            lane=Lane.HIGH,
            tenant="//a",
            deadline=Deadline(clock.monotonic_s() + 1),
        )
    )
    await until(lambda: len(runner.seen) == 1)

    assert runner.ran == [[0]]


async def test_a_run_under_which_the_process_was_stopped_is_not_stuck(desk: Desk) -> None:
    runner = PickyRunner()
    runner.released.clear()
    dispatcher = await desk.open(runner, run_timeout_s=0.5)
    answers = asyncio.ensure_future(
        dispatcher.submit([text(1)], lane=Lane.HIGH, tenant="//a", deadline=None)
    )
    await until(runner.entered.is_set)

    time.sleep(0.7)  # noqa: ASYNC251 (no loop runs in a process that is stopped)
    await asyncio.sleep(0)
    runner.released.set()

    assert len((await answers).matrix) == 1
    assert desk.stuck == []


async def test_a_run_that_gets_stuck_after_a_failure_fails_every_row_without_an_answer(
    desk: Desk,
) -> None:
    # given: the batch of three fails; alone, row 0 is answered, row 1 hangs, row 2 never gets there
    runner = PickyRunner()

    def behave() -> None:
        if len(runner.ran) == 1:
            raise RuntimeError("bad batch")
        if runner.ran[-1] == [1]:
            runner.released.clear()
            runner.released.wait()

    runner.on_run = behave
    dispatcher = await desk.open(runner, run_timeout_s=0.1)

    results = await asyncio.gather(
        *(
            dispatcher.submit([text(n)], lane=Lane.LOW, tenant="//a", deadline=None)
            for n in range(3)
        ),
        return_exceptions=True,
    )

    assert not isinstance(results[0], BaseException)
    assert [type(result) for result in results[1:]] == [StuckRun, StuckRun]


async def test_running_and_busy_say_what_runs_and_return_to_zero(
    desk: Desk, tasks: TaskScope
) -> None:
    runner = PickyRunner()
    runner.released.clear()
    dispatcher = await desk.open(runner)
    answered = tasks.start(
        dispatcher.submit(texts(range(3)), lane=Lane.HIGH, tenant="//a", deadline=None),
        name="running",
    )
    await until(runner.entered.is_set)

    assert dispatcher.busy == 1
    assert dispatcher.running[Lane.HIGH] == 1  # one request of three rows

    runner.released.set()
    await answered
    await until(lambda: dispatcher.busy == 0)
    assert not any(dispatcher.running.values())


async def test_leaving_the_scope_stops_the_tasks_and_waits_for_no_run(tasks: TaskScope) -> None:
    runner = PickyRunner()
    runner.released.clear()
    dispatcher = Dispatcher(
        Crew([runner], BatchRule(max_rows=8, max_tokens=256)),
        model="stub@1",
        run_timeout_s=30,
        clock=SystemClock(),
        on_stuck=lambda _: None,
    )
    async with dispatcher:
        abandoned = tasks.start(
            dispatcher.submit([text(0)], lane=Lane.LOW, tenant="//a", deadline=None),
            name="abandoned",
        )
        await until(runner.entered.is_set)
    names = {task.get_name() for task in asyncio.all_tasks()}

    assert "serve stub@1 #0" not in names
    assert not abandoned.done()  # its owner cancels it
    assert not any(dispatcher.running.values())
    runner.released.set()


async def test_a_bug_in_the_dispatcher_is_told_rather_than_hangs(
    tasks: TaskScope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cortex_stream.scheduling.waiting.form_batch", None)  # the bug
    told: list[CortexError] = []
    dispatcher = Dispatcher(
        Crew([StubRunner()], BatchRule(max_rows=8, max_tokens=256)),
        model="stub@1",
        run_timeout_s=30,
        clock=SystemClock(),
        on_stuck=told.append,
    )

    async def serve() -> None:
        async with dispatcher:
            _ = tasks.start(
                dispatcher.submit([text(0)], lane=Lane.LOW, tenant="//a", deadline=None),
                name="waits for ever",
            )
            await until(lambda: bool(told))

    with pytest.raises(TypeError):
        await serve()
    assert "this is a bug" in str(told[0])


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a niceness of their own on Linux")
async def test_a_runner_gives_way_to_the_event_loop(desk: Desk) -> None:
    niceness: list[int] = []
    runner = PickyRunner()
    runner.on_run = lambda: niceness.append(
        os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    )
    dispatcher = await desk.open(runner)

    await dispatcher.submit([text(1)], lane=Lane.LOW, tenant="//a", deadline=None)

    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert niceness == [min(19, own + RUNNER_NICENESS)]
