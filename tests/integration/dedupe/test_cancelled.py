"""Requests that are cancelled while Redis answers never leave their answer to others."""

import asyncio
import random

import psutil
import pytest
from pydantic import SecretStr

from cortex_stream.dedupe.redis_memory import RedisMemory
from cortex_stream.dedupe.window import TIMEOUT_S
from cortex_stream.devstack.stack import Stack
from cortex_stream.telemetry import metrics
from tests.contract.dedupe.test_memory_contract import of
from tests.integration.dedupe.conftest import OpenWindow
from tests.integration.dedupe.slow_link import slow_link

pytestmark = [pytest.mark.integration, pytest.mark.slow]

DELAY_S = 0.015  # each way
CANCELLED = 10_000
AT_ONCE = 500


def port_of(server: Stack) -> int:
    return int(server.redis_url.rpartition(":")[2].partition("/")[0])


async def test_ten_thousand_cancelled_requests_change_no_other_answer(
    open_window: OpenWindow, server: Stack
) -> None:
    """Every id has a payload of its own, so a stranger's answer would be a wrong one."""
    # given
    seeded = random.Random(17)  # noqa: S311 (a schedule, not a secret)
    unchecked = metrics.DEDUPE_CHECKS.labels("unchecked")._value
    false_alarms = missed = answered = cancelled = 0
    rss_bytes: list[int] = []
    async with (
        slow_link(port=port_of(server), delay_s=DELAY_S) as port,
        open_window(url=f"redis://127.0.0.1:{port}/0") as opened,
    ):
        ids = [f"own-{number}" for number in range(AT_ONCE)]
        before = -1.0
        while unchecked.get() != before:  # until each has been remembered
            before = unchecked.get()
            assert not any(await asyncio.gather(*(opened.ask(each, each) for each in ids)))

        # when
        while cancelled < CANCELLED:
            reused = [seeded.random() < 0.5 for _ in ids]
            asked = [
                asyncio.ensure_future(opened.ask(each, f"other-{each}" if again else each))
                for each, again in zip(ids, reused, strict=True)
            ]
            await asyncio.sleep(seeded.uniform(0, 3 * DELAY_S))
            for each in asked:
                if seeded.random() < 0.8:
                    cancelled += each.cancel()
            answers = await asyncio.gather(*asked, return_exceptions=True)
            for answer, again in zip(answers, reused, strict=True):
                if isinstance(answer, BaseException):
                    continue
                answered += 1
                false_alarms += answer and not again
                missed += again and not answer
            rss_bytes.append(psutil.Process().memory_info().rss)

    # then
    print(f"{cancelled} cancelled, {answered} answered, {unchecked.get() - before:.0f} unchecked")
    assert answered > 0
    assert false_alarms == 0
    assert missed <= unchecked.get() - before
    assert rss_bytes[-1] - rss_bytes[len(rss_bytes) // 5] < 5 << 20


async def test_a_call_cancelled_anywhere_leaves_the_next_one_its_own_answer(
    server: Stack,
) -> None:
    # given
    seeded = random.Random(19)  # noqa: S311
    async with slow_link(port=port_of(server), delay_s=0.002) as port:
        memory = RedisMemory(SecretStr(f"redis://127.0.0.1:{port}/0"), window_s=60)
        own = [of("cancelled", str(number), "own") for number in range(8)]
        other = [of("cancelled", str(number), "other") for number in range(8)]
        assert not await memory.conflicting(own)

        for _ in range(300):
            # when: a call that would find all eight is cut off, in its connecting too
            call = asyncio.ensure_future(memory.conflicting(other))
            await asyncio.sleep(seeded.uniform(0, 0.012))
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)

            # then
            chosen = seeded.randrange(8)
            mixed = [other[n] if n == chosen else own[n] for n in range(8)]
            async with asyncio.timeout(TIMEOUT_S * 8):
                assert set(await memory.conflicting(mixed)) == {chosen}
        await memory.close()
