"""Lets a bounded number in at once. Who waits enters in the order of the fair queue.

Invariants: never more inside than places; whoever has entered leaves; nobody waits while a place is
free.
Owner: the event loop of those who enter; it holds no lock.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cortex_stream.deadline import Deadline
from cortex_stream.scheduling.fair_queue import FairQueue, Row
from schemas.priority import Lane


class FairGate:
    """A semaphore that is fair: lanes by weight, tenants alike, of a tenant by deadline."""

    def __init__(self, places: int) -> None:
        """Let at most `places` in, at least one."""
        self._free = places
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue(batch_tokens=1)

    @property
    def full(self) -> bool:
        """Whether who comes now has to wait."""
        return not self._free

    @asynccontextmanager
    async def entered(
        self, *, lane: Lane, tenant: str, deadline: Deadline | None = None, cost: int = 1
    ) -> AsyncIterator[None]:
        """Wait for a place and keep it; `cost` is what it counts for among those who wait."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(lane, tenant, deadline, cost)
        try:
            yield
        finally:
            self._leave()

    async def _wait(self, lane: Lane, tenant: str, deadline: Deadline | None, cost: int) -> None:
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        row = Row(lane, tenant, cost, 0.0, deadline, called)
        self._waiting.push(row)
        try:
            await called
        except BaseException:
            if not self._waiting.discard(row):  # called in the turn in which it was cut off
                self._leave()
            raise

    def _leave(self) -> None:
        """Hand the place to whose turn it is."""
        row = self._waiting.pop_head()
        if row is None:
            self._free += 1
            return
        self._waiting.charge(row)
        if row.payload.cancelled():  # it learns so in its next turn, and leaves then
            return
        row.payload.set_result(None)
