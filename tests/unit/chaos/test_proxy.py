"""The proxy does to bytes what the weather says, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cortex_stream.devstack import ports
from tests.chaos.proxy import DOWN, HALF_OPEN, Proxy, Weather

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[Proxy, Client]]:
    """A proxy before a server that says what it hears, and a client of it."""
    here = ports.choose(preferred=None, avoid=())
    there = ports.choose(preferred=None, avoid=(here,))
    server = await asyncio.start_server(echo, "127.0.0.1", there)
    async with server, Proxy(here, there) as proxy:
        client = await asyncio.open_connection("127.0.0.1", here)
        try:
            yield proxy, client
        finally:
            client[1].transport.abort()
            proxy.reset_all()
            await asyncio.sleep(0.05)


async def say(client: Client, words: bytes) -> bytes:
    reader, writer = client
    writer.write(words)
    await writer.drain()
    return await reader.readexactly(len(words))


async def test_in_fair_weather_bytes_come_through_unchanged() -> None:
    async with proxied() as (proxy, client):
        words = bytes(range(256)) * 4000

        assert await say(client, words) == words
        assert proxy.connections == proxy.open_connections == 1


async def test_latency_counts_once_each_way() -> None:
    async with proxied() as (proxy, client):
        proxy.weather = Weather(latency_s=0.05)
        loop = asyncio.get_running_loop()
        began_s = loop.time()

        await say(client, b"hello")

        assert loop.time() - began_s >= 0.1


async def test_a_half_open_connection_carries_nothing_and_delivers_it_when_healed() -> None:
    async with proxied() as (proxy, client):
        proxy.weather = HALF_OPEN
        said = asyncio.ensure_future(say(client, b"hello"))
        done, _ = await asyncio.wait([said], timeout=0.1)

        proxy.weather = Weather()

        assert not done
        assert await said == b"hello"


async def test_a_reset_reaches_the_client() -> None:
    async with proxied() as (proxy, client):
        await say(client, b"hello")

        proxy.reset_all()

        with pytest.raises(ConnectionResetError):
            await client[0].read(1)


async def test_a_connection_is_cut_after_so_many_bytes() -> None:
    async with proxied() as (proxy, client):
        proxy.weather = Weather(closed_after_bytes=10)

        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await say(client, b"hello" * 1_000_000)


async def test_who_is_refused_is_cut_off_at_once() -> None:
    async with proxied() as (proxy, client):
        proxy.weather = DOWN
        port = client[1].get_extra_info("peername")[1]

        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await reader.readexactly(1)
        finally:
            writer.transport.abort()
