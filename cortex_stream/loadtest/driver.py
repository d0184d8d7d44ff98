"""Sends load: at once, at moments of its own (the open loop), or as a backlog.

The open loop never waits for an outcome before it sends the next request: a slow system meets the
same load as a fast one, as it would in life.

Owner: the event loop that runs these functions.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from cortex_stream.clock import Clock
from cortex_stream.errors import CortexError
from cortex_stream.loadtest.ledger import Ledger
from cortex_stream.loadtest.load import LoadRequest
from cortex_stream.loadtest.traffic import Kept, Traffic, arrivals, requests
from cortex_stream.record import OutgoingRecord
from schemas.priority import Lane
from topics.names import request_topic

_FILL_RECORDS: Final = 500  # one call's worth: the producer forms batches of 256 KiB out of them
_TICK_S: Final = 0.01  # requests due within a tick are sent together: a timer each costs more
_KEEP_EVERY_S: Final = 0.05


class Sender(Protocol):
    """Produces records durably; `kafka.producer.KafkaProducer` is one."""

    async def send(self, *records: OutgoingRecord) -> None:
        """Return once all of them are durable."""
        ...


@dataclass(frozen=True, slots=True)
class Driver:
    """Sends requests and notes them in the ledger.

    Args:
        topic_of: where requests of a lane go; peers without lanes read one topic.
    """

    sender: Sender
    ledger: Ledger
    clock: Clock
    topic_of: Callable[[Lane], str] = request_topic

    async def fill(self, load: Sequence[LoadRequest]) -> None:
        """Send everything as fast as Kafka takes it; return when all of it is durable."""
        for start in range(0, len(load), _FILL_RECORDS):
            await self._send([(request, None) for request in load[start : start + _FILL_RECORDS]])

    async def drive(self, traffic: Traffic, *, run: str, seconds: float, seed: int) -> None:
        """Send one traffic for so many seconds from now; return when all of it is durable."""
        load, ends_s = requests(traffic, run=run, seed=seed), min(traffic.ends_s, seconds)
        match traffic.pace:
            case Kept(waiting=waiting):
                await self._keep(traffic, load, waiting=waiting, ends_s=ends_s)
            case pace:
                moments = arrivals(pace, begins_s=traffic.begins_s, ends_s=ends_s, seed=seed)
                await self.send_at(moments, load)

    async def send_at(self, moments: Iterable[float], load: Iterator[LoadRequest]) -> None:
        """Send a request at each moment, in seconds from now, whatever became of the last one.

        Requests that became due while the loop was busy follow at once: the load never sags.
        """
        began_s, began_ms = self.clock.monotonic_s(), self.clock.unix_ms()
        batch: list[tuple[LoadRequest, float | None]] = []
        try:
            async with asyncio.TaskGroup() as sending:
                for due_s in moments:
                    wait_s = began_s + due_s - self.clock.monotonic_s()
                    if wait_s > _TICK_S:
                        if batch:
                            sending.create_task(self._send(batch))
                            batch = []
                        await asyncio.sleep(wait_s)
                    elif len(batch) >= _FILL_RECORDS:  # far behind: let the results be read, too
                        sending.create_task(self._send(batch))
                        batch = []
                        await asyncio.sleep(0)
                    batch.append((next(load), began_ms + 1000 * due_s))
                await self._send(batch)
        except* CortexError as failed:
            raise failed.exceptions[0] from failed

    async def _keep(
        self, traffic: Traffic, load: Iterator[LoadRequest], *, waiting: int, ends_s: float
    ) -> None:
        began_s = self.clock.monotonic_s()
        await asyncio.sleep(traffic.begins_s)
        while self.clock.monotonic_s() - began_s < ends_s:
            wanted = waiting - self.ledger.waiting(traffic.name)
            await self._send([(next(load), None) for _ in range(wanted)])
            await asyncio.sleep(_KEEP_EVERY_S)

    async def _send(self, batch: Sequence[tuple[LoadRequest, float | None]]) -> None:
        if not batch:
            return
        now_ms = self.clock.unix_ms()
        for request, due_ms in batch:
            self.ledger.sent(request, at_ms=now_ms, due_ms=due_ms)
        await self.sender.send(
            *(
                OutgoingRecord(
                    self.topic_of(request.lane), request.request_id.encode(), request.value
                )
                for request, _ in batch
            )
        )
