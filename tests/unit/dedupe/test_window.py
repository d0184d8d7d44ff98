import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import repeat

import pytest

from cortex_stream.circuit import Circuit
from cortex_stream.clock import ManualClock
from cortex_stream.dedupe import window as module
from cortex_stream.dedupe.window import DedupeWindow
from cortex_stream.task_scope import TaskScope
from cortex_stream.telemetry import metrics
from cortex_stream.testing.dict_memory import DictMemory

ONE, OTHER = bytes(32), bytes(range(32))


@asynccontextmanager
async def opened(memory: DictMemory, *, failures: int = 3) -> AsyncIterator[DedupeWindow]:
    """Yield a window that runs; its circuit stays open once it has opened."""
    circuit = Circuit("memory", clock=ManualClock(), failures=failures, rest_s=3600)
    window = DedupeWindow(memory, circuit, system="test")
    async with TaskScope() as scope:
        _ = scope.start(window.run(), name="window")
        await asyncio.sleep(0)
        yield window


async def ask(window: DedupeWindow, request_id: str, payload: bytes = ONE) -> bool:
    return await window.conflicts(source="//a", request_id=request_id, payload_digest=payload)


def counted(answer: str) -> float:
    return float(metrics.DEDUPE_CHECKS.labels(answer)._value.get())


async def test_the_first_payload_of_an_id_counts() -> None:
    async with opened(DictMemory()) as window:
        assert not await ask(window, "1", ONE)
        assert await ask(window, "1", OTHER)
        assert not await ask(window, "1", ONE)
        assert await ask(window, "1", OTHER)


async def test_of_two_at_once_with_different_payloads_exactly_one_is_a_conflict() -> None:
    async with opened(DictMemory()) as window:
        answers = await asyncio.gather(ask(window, "1", ONE), ask(window, "1", OTHER))

    assert list(answers) == [False, True]


async def test_what_is_asked_in_one_turn_of_the_loop_goes_in_one_call() -> None:
    memory = DictMemory()
    async with opened(memory) as window:
        await asyncio.gather(*(ask(window, str(number)) for number in range(300)))

    assert memory.calls == [300]


async def test_a_call_is_bounded_and_the_rest_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_AT_ONCE", 100)
    memory = DictMemory()
    async with opened(memory) as window:
        await asyncio.gather(*(ask(window, str(number)) for number in range(250)))

    assert memory.calls == [100, 100, 50]


async def test_what_is_asked_during_a_call_waits_for_the_next_one_together() -> None:
    memory = DictMemory()
    memory.released.clear()
    async with opened(memory) as window, asyncio.TaskGroup() as requests:
        requests.create_task(ask(window, "first"))
        await asyncio.sleep(0.01)
        for number in range(20):
            requests.create_task(ask(window, str(number)))
        await asyncio.sleep(0)
        memory.released.set()

    assert memory.calls == [1, 20]


async def test_a_silent_memory_lets_everybody_pass_after_the_time_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.05)
    memory = DictMemory()
    memory.released.clear()
    loop = asyncio.get_running_loop()
    async with opened(memory) as window:
        began_s = loop.time()
        first = asyncio.ensure_future(ask(window, "first"))
        await asyncio.sleep(0.02)
        later = asyncio.ensure_future(ask(window, "later"))

        assert [await first, await later] == [False, False]
        assert 0.04 < loop.time() - began_s < 0.5


async def test_while_the_circuit_is_open_nobody_waits_and_nobody_asks() -> None:
    memory = DictMemory(failures=repeat(ConnectionError("gone")))
    before = counted("unchecked")
    async with opened(memory, failures=3) as window:
        for number in range(3):
            assert not await ask(window, str(number))
        memory.released.clear()  # from here on a call would never return

        answers = [await ask(window, str(number)) for number in range(100)]

    assert not any(answers)
    assert memory.calls == [1, 1, 1]
    assert counted("unchecked") - before == 103


async def test_a_failed_call_counts_once_although_somebody_waited_for_the_next_one() -> None:
    memory = DictMemory(failures=repeat(ConnectionError("gone")))
    async with opened(memory, failures=3) as window:
        for number in range(4):
            memory.released.clear()
            first = asyncio.ensure_future(ask(window, f"first {number}"))
            await asyncio.sleep(0.01)
            later = asyncio.ensure_future(ask(window, f"later {number}"))
            await asyncio.sleep(0)
            memory.released.set()

            assert [await first, await later] == [False, False]
            await asyncio.sleep(0)

    assert memory.calls == [1, 1, 1], "and then the circuit is open, not before"


async def test_one_failure_does_not_open_the_circuit() -> None:
    failures: Iterator[Exception | None] = iter([ConnectionError("reset"), None, None])
    async with opened(DictMemory(failures=failures)) as window:
        assert not await ask(window, "1", ONE)  # not remembered
        assert not await ask(window, "1", OTHER)
        assert await ask(window, "1", ONE)


async def test_a_cancelled_request_leaves_the_others_of_its_call_alone() -> None:
    memory = DictMemory()
    async with opened(memory) as window:
        assert not await ask(window, "known", ONE)
        memory.released.clear()
        gone = asyncio.ensure_future(ask(window, "known", OTHER))
        stays = asyncio.ensure_future(ask(window, "known", OTHER))
        new = asyncio.ensure_future(ask(window, "new", OTHER))
        await asyncio.sleep(0.01)

        gone.cancel()
        memory.released.set()

        assert await stays
        assert not await new
        with pytest.raises(asyncio.CancelledError):
            await gone


async def test_a_window_that_has_ended_holds_nobody_up() -> None:
    memory = DictMemory()
    memory.released.clear()
    async with opened(memory) as window:
        asked = [asyncio.ensure_future(ask(window, str(number))) for number in range(3)]
        await asyncio.sleep(0.01)
        asked.append(asyncio.ensure_future(ask(window, "waits for the next call")))
        await asyncio.sleep(0)

    assert await asyncio.gather(*asked) == [False] * 4
    assert not await ask(window, "too late")


async def test_even_a_bug_in_the_memory_only_leaves_requests_unchecked() -> None:
    async with opened(DictMemory(failures=iter([TypeError("a bug")]))) as window:
        assert not await ask(window, "1")
        assert not await ask(window, "1")
        assert await ask(window, "1", OTHER)


async def test_every_question_is_counted_with_its_answer() -> None:
    before = {answer: counted(answer) for answer in ("passed", "conflict", "unchecked")}
    async with opened(DictMemory(failures=iter([None, ConnectionError("gone")]))) as window:
        await asyncio.gather(ask(window, "1", ONE), ask(window, "1", OTHER), ask(window, "2"))
        await ask(window, "3")

    after = {answer: counted(answer) - before[answer] for answer in before}
    assert after == {"passed": 2, "conflict": 1, "unchecked": 1}
