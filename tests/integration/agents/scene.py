"""A cluster of topics of its own, worker processes on it, and an observer who trusts nobody."""

import asyncio
import itertools
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import aiohttp
import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from cortex_stream.clock import SystemClock
from cortex_stream.environment import subprocess_environment
from cortex_stream.kafka.admin import TopicAdmin
from cortex_stream.kafka.connection import connection_arguments
from cortex_stream.settings.tree import Settings
from schemas.priority import Lane, Priority
from topics.names import INVALIDATIONS, RESULTS, request_topic

REPOSITORY = Path(__file__).parents[3]
STUB = (str(Path(__file__).with_name("stub_worker.py")),)
PATIENCE_S = 40.0


class Place(NamedTuple):
    topic: str
    partition: int
    offset: int


class Worker:
    """One worker process and its log."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                cwd=REPOSITORY,
                stderr=stderr,
                env=subprocess_environment(PYTHONPATH=str(REPOSITORY), **environment),
            )

    def said(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of the log whose event contains `event`."""
        lines = [
            orjson.loads(line) for line in self.log.read_bytes().splitlines() if line[:1] == b"{"
        ]
        return [line for line in lines if event in line["event"]]

    async def says(self, event: str, *, times: int = 1) -> list[dict[str, Any]]:
        """Wait until the log has the event."""
        await eventually(lambda: len(self.said(event)) >= times or self.process.poll() is not None)
        assert len(self.said(event)) >= times, self.log.read_text()
        return self.said(event)

    async def ends(self) -> int:
        """Wait for the end; return the exit code."""
        await eventually(lambda: self.process.poll() is not None)
        return int(self.process.returncode)

    async def terminate(self) -> tuple[int, float]:
        """Send SIGTERM; return the exit code and how long it took."""
        clock = SystemClock()
        began_s = clock.monotonic_s()
        self.process.send_signal(signal.SIGTERM)
        code = await self.ends()
        return code, clock.monotonic_s() - began_s

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    async def get(self, path: str) -> tuple[int, str]:
        """Ask the worker's web server."""
        port = (await self.says("web.listening"))[0]["port"]
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}{path}", allow_redirects=False) as answer,
        ):
            return answer.status, await answer.text()

    async def is_ready(self) -> None:
        await self.says("web.listening")
        async with asyncio.timeout(PATIENCE_S):
            while (await self.get("/readyz"))[0] != 200:
                await asyncio.sleep(0.05)


CLIENTS_LANES = tuple(Lane(priority) for priority in Priority)


class Scene:
    """Topics, what was put in, what came out."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.workers: list[Worker] = []
        self.sent: dict[str, Place] = {}
        self.answers: list[dict[str, Any]] = []
        self._folder = folder
        self._numbers = itertools.count()
        arguments = connection_arguments(settings)
        self._producer = AIOKafkaProducer(**arguments, linger_ms=5, max_request_size=8 << 20)
        outputs = [settings.topic(name) for name in (RESULTS, INVALIDATIONS)]
        self._consumer = AIOKafkaConsumer(*outputs, **arguments, auto_offset_reset="earliest")

    async def __aenter__(self) -> Self:
        async with TopicAdmin(self.settings) as admin:
            await admin.apply((await admin.plan()).changes)
        await self._producer.start()
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.kill()
        await self._producer.stop()
        await self._consumer.stop()

    # ---- acting ----------------------------------------------------------------------------------

    def worker(self, command: Sequence[str] = STUB, **environment: str) -> Worker:
        """Start a worker."""
        base = {
            "KAFKA_BROKERS": self.settings.kafka_brokers,
            "CORTEX_KAFKA__TOPIC_PREFIX": self.settings.kafka.topic_prefix,
            "CORTEX_KAFKA__SESSION_TIMEOUT_S": "6",  # the least that the broker allows
            "CORTEX_KAFKA__COMMIT_INTERVAL_S": "0.2",
            "CORTEX_WEB__PORT": "0",
            "CORTEX_LOG__FORMAT": "json",
        }
        log = self._folder / f"worker-{len(self.workers)}.log"
        worker = Worker(command, log, base | environment)
        self.workers.append(worker)
        return worker

    async def ask(
        self, count: int, *, lanes: Iterable[Lane] = CLIENTS_LANES, **fields: Any
    ) -> list[str]:
        """Send requests round the lanes; return their ids. A callable field is asked each time."""
        topics = itertools.cycle([request_topic(lane) for lane in lanes])
        return await self.send([(next(topics), {}) for _ in range(count)], **fields)

    async def send(self, what: Iterable[tuple[str, dict[str, Any]]], **fields: Any) -> list[str]:
        """Send records to topics; return their ids."""
        pending = {}
        for topic, own in what:
            more = {k: v() if callable(v) else v for k, v in fields.items()}
            asked = {"id": f"r{next(self._numbers)}", **more, **own}
            pending[asked["id"]] = await self._producer.send(
                self.settings.topic(topic),
                orjson.dumps(asked),
                key=asked["id"].split("-")[0].encode(),
            )
        for name, future in pending.items():
            at = await future
            self.sent[name] = Place(at.topic, at.partition, at.offset)
        return list(pending)

    # ---- observing -------------------------------------------------------------------------------

    async def read(self) -> list[dict[str, Any]]:
        """Read what came out up to now; return all of it since the beginning."""
        ends = await self._consumer.end_offsets(self._consumer.assignment())
        for at, end in ends.items():
            while await self._consumer.position(at) < end:
                for records in (await self._consumer.getmany(timeout_ms=200)).values():
                    self.answers += [orjson.loads(record.value) for record in records]
        return self.answers

    async def answered(self, names: Iterable[str], patience_s: float = PATIENCE_S) -> None:
        """Wait until every record has an answer."""
        wanted = set(names)
        async with asyncio.timeout(patience_s):
            while wanted - {answer["id"] for answer in await self.read()}:
                await asyncio.sleep(0.05)

    async def committed(self) -> dict[tuple[str, int], int]:
        """Ask the cluster for the group's offsets."""
        admin = AIOKafkaAdminClient(**connection_arguments(self.settings))
        await admin.start()
        try:
            offsets = await admin.list_consumer_group_offsets(self.settings.group)
        finally:
            await admin.close()
        return {(at.topic, at.partition): o.offset for at, o in offsets.items() if o.offset >= 0}

    async def has_begun(self) -> None:
        """Wait until commits say that records may have begun, wherever some were sent."""
        sent = {at[:2] for at in self.sent.values()}
        async with asyncio.timeout(PATIENCE_S):
            while not (committed := await self.committed()) or sent - committed.keys():
                await asyncio.sleep(0.05)

    async def committed_but_unanswered(self) -> list[str]:
        """Return the records below a committed offset that have no answer: always a loss."""
        committed = await self.committed()  # first, since answers only become more
        answered = {answer["id"] for answer in await self.read()}
        return [
            name
            for name, at in self.sent.items()
            if at.offset < committed.get((at.topic, at.partition), 0) and name not in answered
        ]

    async def everything_committed(self) -> None:
        """Wait until the group has committed behind the last record of every partition."""
        ends: dict[tuple[str, int], int] = defaultdict(int)
        for at in self.sent.values():
            ends[at.topic, at.partition] = max(ends[at.topic, at.partition], at.offset + 1)
        async with asyncio.timeout(PATIENCE_S):
            while (await self.committed()) != ends:
                await asyncio.sleep(0.1)

    def duplicates(self) -> int:
        """Return how many answers too many were read."""
        return len(self.answers) - len({answer["id"] for answer in self.answers})


def lanes_of(records: int) -> dict[str, str]:
    """Return settings that keep the backlog in Kafka, so that work spreads over time."""
    return {f"CORTEX_LANES__{lane.name}": str(records) for lane in Lane}


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something about another process holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.02)
