"""Sends requests and reads their outcomes, cheaply: in large bites, for it shares the cores.

Owner: the event loop that entered the session.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

from cortex_stream.clock import Clock
from cortex_stream.errors import OperatorError
from cortex_stream.kafka.producer import KafkaProducer
from cortex_stream.kafka.reader import TopicReader
from cortex_stream.loadtest.ledger import Ledger
from cortex_stream.loadtest.load import LoadRequest, drive, fill
from cortex_stream.settings.tree import Settings
from cortex_stream.task_scope import TaskScope
from topics.names import RESULTS

_PATIENCE_S: Final = 60.0

Seen = Callable[[Ledger], None]
"""Called after each bite; an error that it raises ends the load."""


class LoadSession:
    """A producer of requests and a reader of outcomes; use it as an async context manager.

    Args:
        settings: where Kafka is.
        clock: gives produce times and patience.
        every_s: pause between two bites of outcomes.
        patience_s: how long nothing new may come while answers are missing.
    """

    def __init__(
        self, settings: Settings, *, clock: Clock, every_s: float, patience_s: float = _PATIENCE_S
    ) -> None:
        self._clock = clock
        self._every_s = every_s
        self._patience_s = patience_s
        self._producer = KafkaProducer(settings)
        self._reader = TopicReader(settings, [RESULTS], start="end")
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            BrokerUnavailable: no broker answers.
            TopicsMismatch: there are no topics yet.
        """
        async with AsyncExitStack() as opened:
            # First of all: it fixes where reading begins, so that no outcome can be missed.
            await opened.enter_async_context(self._reader)
            opened.push_async_callback(self._producer.stop)
            await self._producer.start()
            self._opened = opened.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Disconnect."""
        await self._opened.aclose()

    async def burst(
        self, requests: Sequence[LoadRequest], *, seen: Seen, keep_events: bool = False
    ) -> Ledger:
        """Send everything at once; return when all of it is answered.

        Raises:
            OperatorError: nothing came any more although answers are missing.
        """
        ledger = Ledger(keep_events=keep_events)
        await fill(self._producer, requests, ledger=ledger, clock=self._clock)
        await self._collect(ledger, seen, sent_all=lambda: True)
        return ledger

    async def steady(
        self, requests: Iterable[LoadRequest], *, rate_per_s: float, seed: int, seen: Seen
    ) -> Ledger:
        """Send at random moments, `rate_per_s` on average; return when all of it is answered.

        Raises:
            OperatorError: nothing came any more although answers are missing.
        """
        ledger = Ledger()
        async with TaskScope() as scope:
            driving = scope.start(
                drive(
                    self._producer,
                    requests,
                    rate_per_s=rate_per_s,
                    seed=seed,
                    ledger=ledger,
                    clock=self._clock,
                ),
                name="driver",
            )
            await self._collect(ledger, seen, sent_all=driving.done)
        return ledger

    async def _collect(self, ledger: Ledger, seen: Seen, *, sent_all: Callable[[], bool]) -> None:
        count, changed_s = 0, self._clock.monotonic_s()
        while True:
            last_bite = sent_all()  # asked before the bite: nothing is sent behind it
            async for record in self._reader.to_end():
                ledger.arrived(record.value or b"{}", append_ms=record.timestamp_ms)
            seen(ledger)
            if last_bite and ledger.complete:
                return
            if len(ledger.answers) > count or ledger.complete:
                count, changed_s = len(ledger.answers), self._clock.monotonic_s()
            elif self._clock.monotonic_s() - changed_s > self._patience_s:
                raise OperatorError(
                    f"waiting for outcomes: {len(ledger.missing())} of {ledger.sent_count} requests"
                    f" have none, and for {self._patience_s:g} s none came",
                    repair="look into the worker's log, and at its status page",
                )
            await asyncio.sleep(self._every_s)
