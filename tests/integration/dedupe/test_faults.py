"""What breaks: Redis stops, dies, is full, may not write. Requests go on, unchecked."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from cortex_stream.dedupe.window import TIMEOUT_S
from cortex_stream.devstack.stack import Stack
from tests.integration.dedupe.conftest import OpenWindow, longest_s
from tests.integration.dedupe.slow_link import slow_link
from tests.suspending import resume, suspend

pytestmark = pytest.mark.integration

SLACK_S = 0.25  # what a busy machine may take on top

Blow = Callable[[Stack, Redis], Awaitable[None]]


async def stop(server: Stack, _: Redis) -> None:
    suspend(server.pid("redis"))


async def go_on(server: Stack, _: Redis) -> None:
    resume(server.pid("redis"))


async def kill(server: Stack, _: Redis) -> None:
    os.kill(server.pid("redis") or 0, signal.SIGKILL)


async def start(server: Stack, _: Redis) -> None:
    await asyncio.to_thread(server.start_service, "redis")


async def fill(_: Stack, by_hand: Redis) -> None:
    await by_hand.config_set("maxmemory-policy", "noeviction")
    await by_hand.config_set("maxmemory", "1")


async def make_room(_: Stack, by_hand: Redis) -> None:
    await by_hand.config_set("maxmemory", 0)


async def forbid_writes(_: Stack, by_hand: Redis) -> None:
    await by_hand.slaveof("127.0.0.1", 1)


async def allow_writes(_: Stack, by_hand: Redis) -> None:
    await by_hand.slaveof()


@pytest.mark.parametrize(
    "fault",
    [
        (stop, go_on, "no answer within"),
        (kill, start, "Connect"),
        (fill, make_room, "OOM"),
        (forbid_writes, allow_writes, "READONLY"),
    ],
    ids=["stopped", "killed", "full", "read-only"],
)
async def test_nobody_waits_longer_than_the_time_limit_and_checking_comes_back(
    open_window: OpenWindow, server: Stack, by_hand: Redis, fault: tuple[Blow, Blow, str]
) -> None:
    hurt, heal, reason = fault
    async with open_window() as opened:
        # given
        assert not await opened.ask("before", "first")
        assert await opened.ask("before", "second")

        # when
        await hurt(server, by_hand)
        waits_s = [
            await longest_s([opened.ask(f"{round_}-{n}", "payload") for n in range(50)])
            for round_ in range(20)
        ]

        # then
        assert opened.circuit.outage is not None
        assert reason in opened.circuit.outage.reason
        print(f"waited at most {max(waits_s):.3f} s, {sum(s > 0.05 for s in waits_s)} of 20 rounds")
        assert max(waits_s) <= TIMEOUT_S + SLACK_S
        assert sorted(waits_s)[10] < SLACK_S / 5  # the circuit is open: no waiting at all

        # when
        await heal(server, by_hand)

        # then
        await opened.heals()
        assert opened.circuit.outage is None
        assert await opened.ask("before", "second")  # what was remembered still is


async def test_a_redis_slower_than_the_limit_is_left_alone(
    open_window: OpenWindow, server: Stack
) -> None:
    port = int(server.redis_url.rpartition(":")[2].partition("/")[0])
    async with (
        slow_link(port=port, delay_s=2 * TIMEOUT_S) as slow_port,
        open_window(url=f"redis://127.0.0.1:{slow_port}/0") as opened,
    ):
        for number in range(5):
            assert await longest_s([opened.ask(str(number), "x")]) <= TIMEOUT_S + SLACK_S

        assert opened.circuit.outage is not None


async def test_a_redis_that_was_never_there_is_found_when_it_comes(
    open_window: OpenWindow, server: Stack
) -> None:
    await asyncio.to_thread(server.stop_service, "redis")
    async with open_window() as opened:
        assert not await opened.ask("1", "first")

        await asyncio.to_thread(server.start_service, "redis")

        await opened.heals()


@pytest.mark.alone
async def test_the_probe_of_an_open_circuit_holds_up_one_call_only(
    open_window: OpenWindow, server: Stack
) -> None:
    async with open_window() as opened:
        suspend(server.pid("redis"))
        while opened.circuit.outage is None:
            await opened.ask("1", "x")
        async with asyncio.timeout(5):
            while opened.circuit.open:
                await asyncio.sleep(0.01)

        probe = asyncio.ensure_future(opened.ask("probe", "x"))
        await asyncio.sleep(0.01)
        others_s = await longest_s([opened.ask(str(n), "x") for n in range(50)])

        assert not probe.done()
        assert others_s < SLACK_S / 5
        assert not await probe
