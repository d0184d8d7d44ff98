"""A TCP link that takes its time, in both directions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from cortex_stream.task_scope import TaskScope


@asynccontextmanager
async def slow_link(*, port: int, delay_s: float) -> AsyncIterator[int]:
    """Yield the port of a way to `port` on which every byte travels for `delay_s`."""
    ends: list[asyncio.StreamWriter] = []
    async with TaskScope() as scope:

        async def linked(near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
            far_in, far_out = await asyncio.open_connection("127.0.0.1", port)
            ends.extend((near_out, far_out))
            _ = scope.start(_pump(near_in, far_out, delay_s), name="there")
            _ = scope.start(_pump(far_in, near_out, delay_s), name="back")

        server = await asyncio.start_server(linked, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
    for end in ends:
        end.close()
        with suppress(ConnectionError):
            await end.wait_closed()
    await asyncio.sleep(2 * delay_s)  # what was under way arrives nowhere


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter, delay_s: float) -> None:
    loop = asyncio.get_running_loop()
    with suppress(ConnectionError):
        while data := await source.read(1 << 16):
            loop.call_later(delay_s, target.write, data)
    loop.call_later(delay_s, target.close)
