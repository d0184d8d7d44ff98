"""What breaks: workers are killed, stopped, joined by others; the broker restarts. Nothing is lost."""

import asyncio
import itertools
import os
import random
import signal
import time
from collections.abc import Iterator
from typing import Self

import pytest

from cortex_stream.devstack.stack import Stack
from tests.acceptance.system import SESSION_TIMEOUT_S, System, until

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

LANES = ("critical", "high", "medium", "low")
MOST_UNANSWERED = 2000  # a machine slower than the load is not buried under it


class Load:
    """An open loop: sends small requests on all lanes, answered or not, until too many wait."""

    def __init__(self, system: System, *, rate_per_s: float) -> None:
        self._system = system
        self._pause_s = 0.1
        self._burst = max(1, round(rate_per_s * self._pause_s))
        self._numbers: Iterator[int] = itertools.count()
        self.ids: list[str] = []

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._system.producer.flush()

    async def _run(self) -> None:
        while True:
            full = len(self.ids) - len(self._system.outcomes) >= MOST_UNANSWERED
            for number in itertools.islice(self._numbers, 0 if full else self._burst):
                _ = await self._system.send(
                    f"r{number}",
                    "cortex.nlp.embed.v1",
                    {"texts": [f"request number {number} on its way " * (1 + number % 4)]},
                    lane=LANES[number % 4],
                )
                self.ids.append(f"r{number}")  # now: a send that is cancelled may never happen
            await asyncio.sleep(self._pause_s)


async def assert_nothing_lost(system: System, ids: list[str], *, timeout_s: float = 60) -> None:
    await system.answered(ids, timeout_s=timeout_s)
    await system.read_to_the_end()
    assert not system.conflicting()


@pytest.mark.alone
async def test_a_worker_killed_in_mid_batch_ten_times_loses_nothing(system: System) -> None:
    """Every request is answered; no commit lies past an unfinished record, seen from outside."""
    # given
    seeded = random.Random(11)  # noqa: S311 (a schedule, not a secret)
    recoveries_s: list[float] = []
    async with Load(system, rate_per_s=120) as load:
        for blow in range(10):
            # when
            began = time.monotonic()
            before = len(system.outcomes)
            worker = system.start_worker()
            await until(
                lambda before=before: len(system.outcomes) > before + 20,  # type: ignore[misc]
                timeout_s=40,
                what=worker.tail,
            )
            recoveries_s.append(time.monotonic() - began)
            await asyncio.sleep(seeded.uniform(0.2, 1.5))  # the blow falls at a random moment
            worker.kill()

            # then
            assert await system.committed_past_unanswered() == [], f"after blow {blow}"
    await system.worker()
    await assert_nothing_lost(system, load.ids)
    print(f"first new results after {[round(s, 1) for s in recoveries_s]} s")
    assert max(recoveries_s) <= SESSION_TIMEOUT_S + 4


@pytest.mark.alone
async def test_workers_that_join_and_leave_under_load_ten_times_lose_and_repeat_nothing(
    system: System,
) -> None:
    # given
    await system.worker()
    async with Load(system, rate_per_s=120) as load:
        for _ in range(10):
            # when
            second = await system.worker()
            assert await second.terminate() == 0

            # then
            assert await system.committed_past_unanswered() == []
    await assert_nothing_lost(system, load.ids)
    repeated = [i for i, outcomes in system.outcomes.items() if len(outcomes) > 1]
    assert repeated == []


@pytest.mark.alone
async def test_sigterm_under_load_drains_and_exits_within_10_s(system: System) -> None:
    # given
    async with Load(system, rate_per_s=200) as load:
        worker = await system.worker()
        await until(lambda: len(system.outcomes) > 200, timeout_s=30, what=worker.tail)

        # when
        began = time.monotonic()
        code = await worker.terminate()

        # then
        assert code == 0
        assert time.monotonic() - began <= 10
        assert await system.committed_past_unanswered() == []
    await system.worker()
    await assert_nothing_lost(system, load.ids)
    repeated = [i for i, outcomes in system.outcomes.items() if len(outcomes) > 1]
    assert repeated == [], "a drained worker commits what it answered"


async def test_a_broker_that_is_killed_and_comes_back_loses_nothing(
    system: System, stack: Stack
) -> None:
    # given
    worker = await system.worker()
    async with Load(system, rate_per_s=80) as load:
        await until(lambda: len(system.outcomes) > 50, timeout_s=30, what=worker.tail)

        # when
        broker = stack.pid("kafka")
        assert broker is not None
        os.kill(broker, signal.SIGKILL)
        await asyncio.to_thread(stack.start_service, "kafka")
        healed = time.monotonic()
        before = len(system.outcomes)
        await until(lambda: len(system.outcomes) > before + 20, timeout_s=60, what=worker.tail)
        print(f"results again {time.monotonic() - healed:.1f} s after the broker was back")

    # then
    await assert_nothing_lost(system, load.ids)
    assert worker.returncode is None, worker.tail()


async def test_a_worker_started_before_its_topics_exist_exits_2_and_says_what_to_do(
    system: System,
) -> None:
    # when
    worker = system.start_worker(CORTEX_KAFKA__TOPIC_PREFIX=f"{system.prefix}-not-there")

    # then
    assert await worker.ended(30) == 2
    assert "topics apply" in worker.tail()
    assert "Traceback" not in worker.tail()
