"""Sends requests and reads their outcomes, cheaply: in large bites, for it shares the cores.

Owner: the event loop that entered the session.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

from cortex_stream.clock import Clock
from cortex_stream.errors import OperatorError
from cortex_stream.kafka.producer import KafkaProducer
from cortex_stream.kafka.reader import TopicReader
from cortex_stream.loadtest.driver import Driver
from cortex_stream.loadtest.ledger import Ledger
from cortex_stream.loadtest.load import LoadRequest
from cortex_stream.loadtest.traffic import Traffic
from cortex_stream.settings.tree import Settings
from cortex_stream.task_scope import TaskScope
from schemas.priority import Lane
from topics.names import RESULTS, request_topic

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
        only_lane: send everything to the topic of this lane, for peers that have no lanes.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock,
        every_s: float,
        patience_s: float = _PATIENCE_S,
        only_lane: Lane | None = None,
    ) -> None:
        self._topic_of = lambda lane: request_topic(only_lane or lane)
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
            await opened.enter_async_context(self._producer)
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
        await self._driver(ledger).fill(requests)
        await self._collect(ledger, seen, sent_all=lambda: True, settled=lambda: ledger.complete)
        return ledger

    async def run(
        self,
        traffics: Sequence[Traffic],
        *,
        name: str,
        seconds: float,
        seed: int,
        seen: Seen,
        awaited: Collection[str] | None = None,
        settle_s: float | None = None,
    ) -> Ledger:
        """Send the traffics for so long; return when they are answered.

        Args:
            traffics: each is drawn from a seed of its own.
            name: begins every request id; never used before.
            seconds: how long is sent.
            seed: decides moments, texts and mixes.
            seen: is told after each bite.
            awaited: names of the traffics whose answers are waited for; None: of all.
            settle_s: after the last request wait at most so long, and return an incomplete ledger;
                None: wait as long as answers come.

        Raises:
            OperatorError: nothing came any more although answers are missing.
        """
        ledger = Ledger()
        driver, names = self._driver(ledger), awaited or [traffic.name for traffic in traffics]
        ended_s: float | None = None
        async with TaskScope() as scope:
            sending = [
                scope.start(
                    driver.drive(traffic, run=name, seconds=seconds, seed=seed + index),
                    name=f"traffic {traffic.name}",
                )
                for index, traffic in enumerate(traffics)
            ]

            def sent_all() -> bool:
                nonlocal ended_s
                if ended_s is None and all(each.done() for each in sending):
                    ended_s = self._clock.monotonic_s()
                return ended_s is not None

            def settled() -> bool:
                if ended_s is not None and settle_s is not None:
                    late = self._clock.monotonic_s() - ended_s > settle_s
                    return late or not any(map(ledger.waiting, names))
                return not any(map(ledger.waiting, names))

            await self._collect(ledger, seen, sent_all=sent_all, settled=settled)
        return ledger

    def _driver(self, ledger: Ledger) -> Driver:
        return Driver(self._producer, ledger, self._clock, self._topic_of)

    async def _collect(
        self,
        ledger: Ledger,
        seen: Seen,
        *,
        sent_all: Callable[[], bool],
        settled: Callable[[], bool],
    ) -> None:
        count, changed_s = 0, self._clock.monotonic_s()
        while True:
            last_bite = sent_all()  # asked before the bite: nothing is sent behind it
            async for record in self._reader.to_end():
                ledger.arrived(record.value or b"{}", append_ms=record.timestamp_ms, key=record.key)
            seen(ledger)
            if last_bite and settled():
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
