"""A Redis of these tests alone, so that it may be hurt."""

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from cortex_stream.circuit import Circuit
from cortex_stream.clock import SystemClock
from cortex_stream.dedupe.redis_memory import RedisMemory
from cortex_stream.dedupe.window import DedupeWindow
from cortex_stream.devstack.stack import Stack
from cortex_stream.task_scope import TaskScope

REST_S = 0.2
"""How long the circuit of these tests stays open: the product's 5 s would only take longer."""


@dataclass(frozen=True, slots=True)
class Open:
    """A window on a real Redis, and its parts."""

    window: DedupeWindow
    circuit: Circuit

    async def ask(self, request_id: str, payload: str) -> bool:
        digest = payload.encode().ljust(32, b"\0")
        return await self.window.conflicts(
            source="//test", request_id=request_id, payload_digest=digest
        )

    async def heals(self) -> None:
        """Return once an id that is used twice is a conflict again."""
        async with asyncio.timeout(10):
            while True:
                request_id = secrets.token_hex(8)
                await self.ask(request_id, "first")
                if await self.ask(request_id, "second"):
                    return
                await asyncio.sleep(0.01)


OpenWindow = Callable[..., AbstractAsyncContextManager[Open]]


@pytest.fixture(scope="package")
def redis_of_its_own(
    stack_programs: None,  # noqa: ARG001
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stacks") / "redis-alone")
    try:
        stack.start_service("redis")
        yield stack
    finally:
        stack.wipe()


@pytest.fixture
async def server(redis_of_its_own: Stack) -> AsyncIterator[Stack]:
    """The stack, to hurt its Redis; it is whole and empty again afterwards."""
    yield redis_of_its_own
    pid = redis_of_its_own.pid("redis")
    if pid is not None:
        os.kill(pid, signal.SIGCONT)
    await asyncio.to_thread(redis_of_its_own.start_service, "redis")
    async with Redis.from_url(redis_of_its_own.redis_url) as by_hand:
        await by_hand.slaveof()
        await by_hand.config_set("maxmemory", 0)
        await by_hand.flushall()


@pytest.fixture
async def by_hand(server: Stack) -> AsyncIterator[Redis]:
    """What an operator would use beside us."""
    async with Redis.from_url(server.redis_url) as client:
        yield client


@pytest.fixture
def open_window(server: Stack) -> OpenWindow:
    """Open windows as workers do, on the Redis of these tests or at another address."""

    @asynccontextmanager
    async def opened(
        *, url: str | None = None, window_s: float = 60, system: str = "test"
    ) -> AsyncIterator[Open]:
        memory = RedisMemory(SecretStr(url or server.redis_url), window_s=window_s)
        circuit = Circuit("redis", clock=SystemClock(), rest_s=REST_S)
        window = DedupeWindow(memory, circuit, system=system)
        async with TaskScope() as scope:
            _ = scope.start(window.run(), name="window")
            await asyncio.sleep(0)
            yield Open(window, circuit)
        await memory.close()

    return opened


async def longest_s(questions: list[Awaitable[bool]]) -> float:
    """Ask all at once and return how long the slowest waited."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await asyncio.gather(*questions)
    return loop.time() - began_s
