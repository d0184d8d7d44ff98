"""A whole system under its own topic prefix: real broker, real model, real worker processes."""

import asyncio
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import ConsumerRecord, RecordMetadata

from cortex_stream.environment import subprocess_environment
from schemas.handovers import HANDOVER, Handover, Reinjection
from topics.names import VALIDATION

SESSION_TIMEOUT_S = 6.0  # the least the broker allows; a killed worker is missed after it
WORKER = ("-m", "agents")
COLLECTED = (
    "cortex.results",
    "cortex.replays",
    "cortex.dead-letters",
    "cortex.invalidations",
    "lake.vectors",
)


def put_back(replay_id: str) -> list[tuple[str, bytes]]:
    """Return the headers with which the replay lane takes a request; its outcome goes to everybody."""
    handover = Handover(
        version=1,
        stage=VALIDATION,
        topic="cortex.requests.low",
        partition=0,
        offset=0,
        timestamp_ms=0,
        attempt=1,
        spent_ms=0.0,
        left_ms=None,
        progress=None,
        reinjection=Reinjection(replay_id=replay_id, publish_to="results"),
    )
    return [(HANDOVER, handover.model_dump_json().encode())]


async def until(
    condition: Callable[[], bool], *, timeout_s: float, what: Callable[[], str]
) -> None:
    """Wait until `condition` holds; fail with `what()` when it does not within `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s} s: {what()}") from None


class WorkerProcess:
    """One `python -m agents`; its output goes to a file that a failing test shows."""

    def __init__(
        self, environment: dict[str, str], log: Path, *, port: int, command: Sequence[str]
    ) -> None:
        self.log = log
        self.port = port
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *command], env=environment, stdout=output, stderr=output
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.poll()

    def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body of a page; status 0 when nobody answers."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}{path}", timeout=2
            ) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError:
            return 0, b""

    async def ready(self, timeout_s: float = 40.0) -> Self:
        async with asyncio.timeout(timeout_s):
            while (await asyncio.to_thread(self.get, "/readyz"))[0] != 200:
                assert self.returncode is None, self.tail()
                await asyncio.sleep(0.05)
        return self

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    async def ended(self, timeout_s: float) -> int:
        return await asyncio.to_thread(self._process.wait, timeout_s)

    async def terminate(self, timeout_s: float = 15.0) -> int:
        self.signal(signal.SIGTERM)
        return await self.ended(timeout_s)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-6000:]


class System:
    """The topics of one prefix, its workers, a producer and everything that comes out."""

    def __init__(
        self, stack_environment: dict[str, str], *, prefix: str, models: Path, folder: Path
    ) -> None:
        self.prefix = prefix
        self.group = f"{prefix}.cortex-stream"
        self._brokers = stack_environment["KAFKA_BROKERS"]
        self.folder = folder
        self.environment = {
            **stack_environment,
            "CORTEX_KAFKA__TOPIC_PREFIX": prefix,
            "CORTEX_KAFKA__SESSION_TIMEOUT_S": str(SESSION_TIMEOUT_S),
            "CORTEX_MODELS__FOLDER": str(models),
        }
        self.workers: list[WorkerProcess] = []
        self.records: dict[str, list[ConsumerRecord[bytes, bytes]]] = {t: [] for t in COLLECTED}
        self.outcomes: dict[str, list[dict[str, Any]]] = {}  # by request id, oldest first
        self.sent: dict[str, RecordMetadata] = {}  # by request id
        self._tasks: list[asyncio.Task[None]] = []

    # ---- life ------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self.command("topics", "apply")
        self.producer = AIOKafkaProducer(
            bootstrap_servers=self._brokers,
            acks="all",
            enable_idempotence=True,
            linger_ms=2,
            max_request_size=16 << 20,
        )
        await self.producer.start()
        self.consumer = AIOKafkaConsumer(
            bootstrap_servers=self._brokers, enable_auto_commit=False, fetch_max_wait_ms=50
        )
        await self.consumer.start()
        self._partitions = [
            TopicPartition(self.topic(name), partition)
            for name in COLLECTED
            for partition in sorted(await self._partitions_of(name))
        ]
        self.consumer.assign(self._partitions)
        await self.consumer.seek_to_beginning()
        self._tasks.append(asyncio.get_running_loop().create_task(self._collect()))
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for worker in self.workers:
            if worker.returncode is None:
                worker.signal(signal.SIGTERM)
        for worker in self.workers:
            try:
                await worker.ended(12)
            except subprocess.TimeoutExpired:
                worker.kill()
        await self.consumer.stop()
        await self.producer.stop()
        if exc is not None:
            for worker in self.workers:
                sys.stderr.write(f"\n--- {worker.log}\n{worker.tail()}\n")

    def topic(self, name: str) -> str:
        return f"{self.prefix}.{name}"

    def command(self, *arguments: str, code: int = 0) -> str:
        """Run `cortex-stream` on this system and return its standard output."""
        done = subprocess.run(
            [sys.executable, "-m", "cortex_stream", *arguments],
            env=subprocess_environment(**self.environment),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, (
            f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout

    def start_worker(self, command: Sequence[str] = WORKER, **extra: str) -> WorkerProcess:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = subprocess_environment(
            **{**self.environment, "CORTEX_WEB__PORT": str(port), **extra}
        )
        log = self.folder / f"worker-{len(self.workers)}.log"
        worker = WorkerProcess(environment, log, port=port, command=command)
        self.workers.append(worker)
        return worker

    async def worker(self, command: Sequence[str] = WORKER, **extra: str) -> WorkerProcess:
        return await self.start_worker(command, **extra).ready()

    # ---- in --------------------------------------------------------------------------------------

    async def send_raw(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Awaitable[RecordMetadata]:
        """Enqueue one record; await the answer for its place on the log."""
        written: Awaitable[RecordMetadata] = await self.producer.send(
            self.topic(topic),
            value,
            key=key,
            headers=list(headers),
            partition=partition,
            timestamp_ms=timestamp_ms,
        )
        return written

    async def send(
        self, request_id: str, type_: str, data: Any, *, lane: str = "medium", **attributes: Any
    ) -> Awaitable[RecordMetadata]:
        """Enqueue one request and remember where it lies once the broker has it."""
        event = {"id": request_id, "type": type_, "data": data, **attributes}
        written = await self.send_raw(
            f"cortex.requests.{lane}",
            orjson.dumps(event),
            key=request_id.encode(),
            headers=put_back(request_id) if lane == "replay" else (),
        )
        future = asyncio.ensure_future(written)
        future.add_done_callback(lambda done: self.sent.__setitem__(request_id, done.result()))
        return future

    async def embed(self, ids: Iterable[str], text: str, *, lane: str = "medium") -> None:
        """Produce one small embed request for each id and wait until the broker has them."""
        pending = [
            await self.send(i, "cortex.nlp.embed.v1", {"texts": [f"{text} {i}"]}, lane=lane)
            for i in ids
        ]
        await asyncio.gather(*pending)

    # ---- out -------------------------------------------------------------------------------------

    async def outcome(self, request_id: str | None, timeout_s: float = 20.0) -> dict[str, Any]:
        """Return the first outcome of a request; of a record without id under the empty id."""
        await self.answered([request_id or ""], timeout_s=timeout_s)
        return self.outcomes[request_id or ""][0]

    async def answered(self, ids: Iterable[str], *, timeout_s: float) -> None:
        wanted = set(ids)
        await until(
            lambda: wanted <= self.outcomes.keys(),
            timeout_s=timeout_s,
            what=lambda: (
                f"{len(missing := wanted - self.outcomes.keys())} unanswered: {sorted(missing)[:5]}"
            ),
        )

    async def read_to_the_end(self) -> None:
        """Wait until everything that is on the collected topics now has been collected."""
        ends = await self.consumer.end_offsets(self._partitions)
        for partition, end in ends.items():
            async with asyncio.timeout(30):
                while await self.consumer.position(partition) < end:
                    await asyncio.sleep(0.02)
        await asyncio.sleep(0)

    async def committed(self) -> dict[tuple[str, int], int]:
        """Return the group's committed offsets, read from outside."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self._brokers)
        await admin.start()
        try:
            offsets = await admin.list_consumer_group_offsets(self.group)
        finally:
            await admin.close()
        return {(tp.topic, tp.partition): o.offset for tp, o in offsets.items() if o.offset >= 0}

    async def committed_past_unanswered(self) -> list[str]:
        """Return the requests below a committed offset without an outcome; the commit is read first.

        Only meaningful while no worker runs, or as a check that errs on the mild side.
        """
        committed = await self.committed()
        await self.read_to_the_end()
        return [
            request_id
            for request_id, place in self.sent.items()
            if place.offset < committed.get((place.topic, place.partition), 0)
            and request_id not in self.outcomes
        ]

    def conflicting(self) -> list[str]:
        """Return the requests whose outcomes differ in id or kind."""
        return [
            request_id
            for request_id, found in self.outcomes.items()
            if len({(outcome["id"], outcome["type"]) for outcome in found}) > 1
        ]

    async def _partitions_of(self, name: str) -> set[int]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._brokers)
        await admin.start()
        try:
            [described] = await admin.describe_topics([self.topic(name)])
        finally:
            await admin.close()
        return {partition["partition"] for partition in described["partitions"]}

    async def _collect(self) -> None:
        names = {self.topic(name): name for name in COLLECTED}
        while True:
            polled = await self.consumer.getmany(timeout_ms=100)
            for partition, records in polled.items():
                name = names[partition.topic]
                self.records[name].extend(records)
                if name == "cortex.results":
                    for record in records:
                        outcome = orjson.loads(record.value)
                        request_id = outcome["data"]["request_id"] or ""
                        self.outcomes.setdefault(request_id, []).append(outcome)
