"""Looks at the system every 200 ms: what is committed, what waits, how the workers are."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Self

import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from cortex_stream.clock import SystemClock
from tests.acceptance.system import WorkerProcess
from tests.chaos.history import Journal, Place, written_places
from tests.chaos.proxy import Proxy

_PERIOD_S = 0.2
_PATIENCE_S = 2.0


class Offsets:
    """Asks the broker about a group and its topics; all names are without prefix."""

    def __init__(self, brokers: str, prefix: str, topics: Iterable[str]) -> None:
        self._brokers = brokers
        self._prefix = prefix
        self._names = [f"{prefix}.{topic}" for topic in topics]
        self._partitions: list[TopicPartition] = []

    async def __aenter__(self) -> Self:
        self._admin = AIOKafkaAdminClient(bootstrap_servers=self._brokers)
        await self._admin.start()
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._brokers, enable_auto_commit=False, request_timeout_ms=5000
        )
        await self._consumer.start()
        for described in await self._admin.describe_topics(self._names):
            self._partitions += [
                TopicPartition(described["topic"], each["partition"])
                for each in described["partitions"]
            ]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()
        await self._admin.close()

    async def committed(self) -> dict[Place, int]:
        """Return what the group has committed.

        Raises:
            KafkaError: the broker does not answer.
            TimeoutError: it does not answer in time.
        """
        group = f"{self._prefix}.cortex-stream"
        async with asyncio.timeout(_PATIENCE_S):
            offsets = await self._admin.list_consumer_group_offsets(group)
        return {
            (self._without_prefix(at.topic), at.partition): found.offset
            for at, found in offsets.items()
            if found.offset >= 0
        }

    async def ends(self) -> dict[Place, int]:
        """Return how far each partition reaches. Raises as `committed`."""
        async with asyncio.timeout(_PATIENCE_S):
            ends = await self._consumer.end_offsets(self._partitions)
        return {
            (self._without_prefix(at.topic), at.partition): offset for at, offset in ends.items()
        }

    async def delete_topics(self) -> None:
        """Leave nothing of the round on the broker."""
        await self._admin.delete_topics(self._names)

    def _without_prefix(self, topic: str) -> str:
        return topic.removeprefix(f"{self._prefix}.")


class Probing:
    """Writes a line to its journal each period until it is left."""

    def __init__(
        self,
        offsets: Offsets,
        workers: Callable[[], Sequence[WorkerProcess]],
        proxy: Proxy,
        journal: Journal,
    ) -> None:
        self._offsets = offsets
        self._proxy = proxy
        self._workers = workers
        self._journal = journal
        self._clock = SystemClock()

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            at_ms = self._clock.unix_ms()
            committed: dict[Place, int] = {}
            ends: dict[Place, int] = {}
            try:
                committed, ends = await self._offsets.committed(), await self._offsets.ends()
            except (KafkaError, TimeoutError, OSError):
                committed, ends = {}, {}
            workers = await asyncio.gather(
                *(asyncio.to_thread(_look, worker) for worker in self._workers())
            )
            self._journal.write(
                at_ms=at_ms,
                committed=written_places(committed),
                ends=written_places(ends),
                workers=[worker for worker in workers if worker is not None],
                connections=self._proxy.connections,
            )
            spent_s = (self._clock.unix_ms() - at_ms) / 1000
            await asyncio.sleep(max(0.0, _PERIOD_S - spent_s))


def _look(worker: WorkerProcess) -> dict[str, int] | None:
    try:
        process = psutil.Process(worker.pid)
        if process.status() in {psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED}:
            return None
        seen = {"rss_bytes": process.memory_info().rss, "fds": process.num_fds()}
    except psutil.NoSuchProcess:
        return None
    return {"pid": worker.pid, **seen, "ready": worker.get("/readyz")[0]}
