import asyncio

import pytest

from cortex_stream.task_scope import TaskScope


async def sleep_for_ever() -> None:
    await asyncio.Event().wait()


async def fail(message: str) -> None:
    raise ValueError(message)


async def test_leaving_the_scope_cancels_what_runs_and_waits_for_its_end() -> None:
    cleaned_up = []

    async def careful() -> None:
        try:
            await sleep_for_ever()
        finally:
            await asyncio.sleep(0)
            cleaned_up.append("yes")

    async with TaskScope() as scope:
        task = scope.start(careful(), name="careful")
        await asyncio.sleep(0)
        assert len(scope) == 1

    assert task.cancelled()
    assert cleaned_up == ["yes"]
    assert len(scope) == 0


async def test_a_task_that_others_start_while_the_scope_closes_is_no_orphan() -> None:
    started: list[asyncio.Task[None]] = []

    async with TaskScope() as scope:

        async def start_another() -> None:
            try:
                await sleep_for_ever()
            finally:
                started.append(scope.start(sleep_for_ever(), name="late child"))

        _ = scope.start(start_another(), name="parent")
        await asyncio.sleep(0)

    assert [task.cancelled() for task in started] == [True]


async def test_the_first_failure_is_raised_on_leaving() -> None:
    async def scene() -> None:
        async with TaskScope() as scope:
            _ = scope.start(fail("first"), name="first")
            _ = scope.start(fail("second"), name="second")
            await asyncio.sleep(0.001)

    with pytest.raises(ValueError, match="first"):
        await scene()


async def test_an_error_of_the_body_is_not_hidden_by_a_failed_task() -> None:
    async def scene() -> None:
        async with TaskScope() as scope:
            _ = scope.start(fail("of a task"), name="task")
            await asyncio.sleep(0.001)
            raise KeyError("of the body")

    with pytest.raises(KeyError, match="of the body"):
        await scene()


async def test_wait_failed_raises_the_error_as_soon_as_a_task_fails() -> None:
    async def scene() -> None:
        async with TaskScope() as scope, asyncio.timeout(5):
            _ = scope.start(sleep_for_ever(), name="sound")
            _ = scope.start(fail("broken"), name="broken")
            await scope.wait_failed()

    with pytest.raises(ValueError, match="broken"):
        await scene()


async def test_a_waiter_that_gives_up_leaves_the_scope_intact() -> None:
    async with TaskScope() as scope:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(scope.wait_failed(), 0.001)

        task = scope.start(asyncio.sleep(0, "fine"), name="fine")
        assert await task == "fine"


async def test_a_task_that_ends_by_itself_or_is_cancelled_is_no_failure() -> None:
    async with TaskScope() as scope:
        done = scope.start(asyncio.sleep(0), name="done")
        cancelled = scope.start(sleep_for_ever(), name="cancelled")
        await done
        cancelled.cancel()
        await asyncio.wait([cancelled])

        assert len(scope) == 0


async def test_close_can_be_repeated() -> None:
    async with TaskScope() as scope:
        _ = scope.start(sleep_for_ever(), name="x")
        await scope.close()
        await scope.close()


async def test_nothing_starts_outside_the_scope() -> None:
    scope = TaskScope()

    with pytest.raises(RuntimeError, match="starting task 'early' outside its scope"):
        _ = scope.start(sleep_for_ever(), name="early")
    with pytest.raises(RuntimeError, match="waiting outside the scope"):
        await scope.wait_failed()

    async with scope:
        pass
    with pytest.raises(RuntimeError, match="starting task 'late' outside its scope"):
        _ = scope.start(sleep_for_ever(), name="late")
