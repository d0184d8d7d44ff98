"""What the window promises while Redis works."""

import asyncio

import pytest
from redis.asyncio import Redis

from cortex_stream.devstack.stack import Stack
from tests.integration.dedupe.conftest import OpenWindow

pytestmark = pytest.mark.integration


async def test_what_one_worker_has_seen_is_a_conflict_in_another(open_window: OpenWindow) -> None:
    async with open_window() as one, open_window() as other:
        assert not await one.ask("1", "first")

        assert await other.ask("1", "second")
        assert not await other.ask("1", "first")  # delivered again, after a rebalance say


async def test_of_two_workers_at_once_exactly_one_wins_each_id(open_window: OpenWindow) -> None:
    ids = [str(number) for number in range(100)]
    async with open_window() as one, open_window() as other:
        answers = await asyncio.gather(
            asyncio.gather(*(one.ask(each, "first") for each in ids)),
            asyncio.gather(*(other.ask(each, "second") for each in ids)),
        )

    assert all(a != b for a, b in zip(*answers, strict=True))


async def test_systems_that_share_a_redis_do_not_share_ids(open_window: OpenWindow) -> None:
    async with open_window(system="staging") as one, open_window(system="") as other:
        assert not await one.ask("1", "first")

        assert not await other.ask("1", "second")


async def test_after_its_time_an_id_is_forgotten(open_window: OpenWindow, by_hand: Redis) -> None:
    async with open_window(window_s=0.3) as opened:
        assert not await opened.ask("1", "first")
        assert await opened.ask("1", "second")
        async with asyncio.timeout(5):
            while await by_hand.keys("dedup:*"):
                await asyncio.sleep(0.01)

        assert not await opened.ask("1", "second")
        assert await opened.ask("1", "first")


async def test_a_second_use_does_not_prolong_the_time(
    open_window: OpenWindow, by_hand: Redis
) -> None:
    async with open_window(window_s=60) as opened:
        await opened.ask("1", "first")
        [key] = await by_hand.keys("dedup:*")
        await by_hand.pexpire(key, 1000)

        await opened.ask("1", "first")
        await opened.ask("1", "second")

        assert await by_hand.pttl(key) <= 1000


async def test_when_redis_has_lost_everything_each_payload_is_a_request_of_its_own(
    open_window: OpenWindow, by_hand: Redis
) -> None:
    async with open_window() as opened:
        assert not await opened.ask("1", "first")

        await by_hand.flushall()
        await by_hand.script_flush()

        assert not await opened.ask("1", "second")
        assert await opened.ask("1", "first")


async def test_an_id_takes_about_as_much_memory_as_the_settings_say(
    open_window: OpenWindow, by_hand: Redis
) -> None:
    before_bytes = (await by_hand.info("memory"))["used_memory"]
    async with open_window() as opened:
        for batch in range(100):
            await asyncio.gather(*(opened.ask(f"{batch}-{n}", "payload") for n in range(500)))

    each_bytes = ((await by_hand.info("memory"))["used_memory"] - before_bytes) / 50_000
    print(f"{each_bytes:.0f} bytes an id")
    assert each_bytes < 180


async def test_the_password_of_the_address_is_used_and_never_shown(
    open_window: OpenWindow, server: Stack
) -> None:
    url = server.redis_url.replace("redis://", "redis://somebody:geheim@")
    async with open_window(url=url) as opened:
        for number in range(3):
            assert not await opened.ask(str(number), "payload")

        assert opened.circuit.outage is not None
        assert "geheim" not in opened.circuit.outage.reason
