"""Polls Kafka beside the worker's loop: each topic for no more than there is room for.

Leans on private names of Faust and aiokafka, as `agents.transport` does.

Owner: the loop of the consumer's own thread, which keeps the heartbeats going; `wake` alone is
called on the worker's.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol, cast

from aiokafka.errors import ConsumerStoppedError
from aiokafka.structs import TopicPartition
from faust.transport.drivers import aiokafka as driver

from agents.pace import Pace
from agents.polled import Taken
from cortex_stream.clock import SystemClock
from cortex_stream.kafka.fetch_sessions import use_fetch_sessions
from cortex_stream.kafka.undecodable import Record, keep_fetched_bytes, salvage
from cortex_stream.scheduling.admission import Room

_STEP_RECORDS: Final = 50  # weighed before more are taken: 50 of 256 texts each are 38 MB


class Asking(Protocol):
    """What a poll asks of the consumer that it is for."""

    def held(self, topic: str) -> int:
        """Return how many records of the topic are in the process."""
        ...

    def room(self, topic: str, *, beside_bytes: int) -> Room:
        """Return how much of `topic` to poll."""
        ...

    def weigh(self, record: Record) -> int:
        """Return what the record will hold in memory."""
        ...


class Polled(NamedTuple):
    """What one poll took, and the assignment it belongs to: aiokafka's object, by identity.

    The generation would not do: a static member that comes back keeps it.
    """

    assignment: object
    received_s: float
    taken: Mapping[TopicPartition, Taken]


class EdgeConsumerThread(driver.AIOKafkaConsumerThread):
    """Polls each topic for no more than there is room for."""

    _failure: Exception | None = None

    def _create_worker_consumer(self, transport: driver.Transport) -> Any:
        keep_fetched_bytes()
        self._turns: Counter[str] = Counter()
        self._pace = Pace(now_s=SystemClock().monotonic_s())
        consumer = super()._create_worker_consumer(transport)
        _, consumer._fetch_max_wait_ms = self._pace.fetch  # noqa: SLF001
        use_fetch_sessions(consumer)
        return consumer

    @property
    def _asking(self) -> Asking:
        return cast("Asking", self.consumer)

    def wake(self) -> None:
        """End a waiting poll. Called on the worker's loop when a full topic has room again."""
        self.thread_loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        fetcher = self._ensure_consumer()._fetcher  # noqa: SLF001
        if fetcher is not None:
            for waiter in list(fetcher._fetch_waiters):  # noqa: SLF001
                fetcher._notify(waiter)  # noqa: SLF001

    async def poll(self, timeout_s: float) -> Polled | None:
        """Return what is there, waiting at most `timeout_s` for it; None while rebalancing."""
        fetcher = self._ensure_consumer()._fetcher  # noqa: SLF001
        subscriptions = fetcher._subscriptions  # noqa: SLF001
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        # The context tells aiokafka that we are alive although every topic may be full.
        with subscriptions.fetch_context():
            while True:
                if fetcher._closed:  # noqa: SLF001
                    raise ConsumerStoppedError
                if (
                    not self.consumer.flow_active
                    or subscriptions.reassignment_in_progress
                    or subscriptions.subscription is None
                ):
                    return None
                assignment = subscriptions.subscription.assignment
                taken = await self._take(fetcher)
                now_s = SystemClock().monotonic_s()
                for at, (records, _) in taken.items():
                    self._pace.took(at.topic, len(records), held=self._asking.held(at.topic))
                self._pace.look(now_s=now_s)
                fetcher._fetch_min_bytes, fetcher._fetch_max_wait_ms = self._pace.fetch  # noqa: SLF001
                left_s = deadline - loop.time()
                if taken or left_s <= 0:
                    return Polled(assignment, now_s, taken)
                waiter = fetcher._create_fetch_waiter()  # noqa: SLF001
                done, _ = await asyncio.wait([waiter], timeout=left_s)
                if done:
                    waiter.result()  # raises what the coordinator or a fetch ran into
                else:
                    waiter.cancel()

    async def _take(self, fetcher: Any) -> dict[TopicPartition, Taken]:
        """Take fetched records topic by topic. Never suspends, so the assignment cannot change.

        Partition by partition, too: aiokafka would lose what it has taken from others before it
        meets one that raises.
        """
        self._raise_failure()
        topics: dict[str, list[TopicPartition]] = defaultdict(list)
        for at in list(self.consumer._active_partitions):  # noqa: SLF001
            topics[at.topic].append(at)
        taken: dict[TopicPartition, Taken] = {}
        taken_bytes = 0
        for topic, partitions in topics.items():
            room = self._asking.room(topic, beside_bytes=taken_bytes)
            fetched = sorted(at for at in partitions if at in fetcher._records)  # noqa: SLF001
            first = self._turns[topic] % max(1, len(fetched))  # each comes first in turn
            for at in fetched[first:] + fetched[:first]:
                pieces = Taken([], [])
                while min(room) > 0 and at in fetcher._records:  # noqa: SLF001
                    step = min(room.records, _STEP_RECORDS)
                    records = await self._take_from(fetcher, at, step)
                    if not records:
                        break
                    weights_bytes = [self._asking.weigh(record) for record in records]
                    pieces.records.extend(records)
                    pieces.weights_bytes.extend(weights_bytes)
                    weight_bytes = sum(weights_bytes)
                    taken_bytes += weight_bytes
                    room = Room(room.records - len(records), room.size_bytes - weight_bytes)
                if pieces.records:
                    taken[at] = pieces
            self._turns[topic] += any(at in taken for at in fetched)
        if not taken:
            self._raise_failure()
        return taken

    async def _take_from(self, fetcher: Any, at: TopicPartition, room: int) -> list[Record]:
        try:
            taken = await fetcher.fetched_records({at}, timeout=0, max_records=room)
        except Exception as error:  # noqa: BLE001 (raised once what was taken is delivered)
            records = salvage(fetcher, at, most_records=room)
            if not records:
                self._failure = error
            return records
        return cast("list[Record]", taken.get(at, []))

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
