"""Topics of each test's own, requests in them, and the command line as a process that can be killed."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import coverage
import orjson
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from cortex_stream.devstack.stack import Stack
from cortex_stream.environment import subprocess_environment
from cortex_stream.kafka.admin import TopicAdmin
from cortex_stream.kafka.connection import connection_arguments
from cortex_stream.kafka.producer import KafkaProducer
from cortex_stream.kafka.reader import ReadRecord, TopicReader
from cortex_stream.record import OutgoingRecord
from cortex_stream.settings.kafka import KafkaSettings
from cortex_stream.settings.tree import Settings
from schemas.priority import Lane
from topics.names import request_topic

REPOSITORY = Path(__file__).parents[3]
MEDIUM = request_topic(Lane.MEDIUM)
REPLAY_LANE = request_topic(Lane.REPLAY)


def _measured() -> tuple[str, ...]:
    """Return what lets a process of its own count for the coverage, where that is measured."""
    if coverage.Coverage.current() is None:
        return ()
    rcfile, data = REPOSITORY / "pyproject.toml", REPOSITORY / ".coverage"
    return ("-m", "coverage", "run", "--parallel-mode", f"--rcfile={rcfile}", f"--data-file={data}")


class Scene:
    """Requests on one cluster of topics, and commands that work on them."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.environment = {
            "KAFKA_BROKERS": settings.kafka_brokers,
            "CORTEX_KAFKA__TOPIC_PREFIX": settings.kafka.topic_prefix,
            "CORTEX_KAFKA__SESSION_TIMEOUT_S": "6",
            "CORTEX_WEB__PORT": "0",
            "CORTEX_LOG__FORMAT": "json",
            "CORTEX_MODELS__SERVE": '["stub"]',
            "CORTEX_MODELS__EMBED_DEFAULT": "stub",
        }
        self.processes: list[subprocess.Popen[str]] = []

    async def ask(
        self, count: int, *, run: str = "r", attributes: Mapping[str, object] | None = None
    ) -> list[OutgoingRecord]:
        """Produce embed requests `<run>-<n>`, each with a header of its own; return them."""
        records = [
            OutgoingRecord(
                MEDIUM,
                f"{run}-{number}".encode(),
                orjson.dumps(
                    {
                        "id": f"{run}-{number}",
                        "type": "cortex.nlp.embed.v1",
                        **(attributes or {}),
                        "data": {"texts": [f"text {number} of {run}"]},
                    }
                ),
                (("x-number", str(number).encode()),),
            )
            for number in range(count)
        ]
        producer = KafkaProducer(self.settings)
        await producer.start()
        await producer.send(*records)
        await producer.stop()
        return records

    async def read(self, topic: str) -> list[ReadRecord]:
        """Return everything that is on a topic."""
        async with TopicReader(self.settings, [topic]) as reader:
            return [record async for record in reader.to_end()]

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start `cortex-stream <words>` as a process."""
        return self._popen(["-m", "cortex_stream", *words])

    def start_worker(self, script: Path) -> subprocess.Popen[str]:
        """Start a worker; it is ready when requests are answered."""
        return self._popen([str(script)])

    async def run(self, *words: str, code: int = 0) -> str:
        """Run `cortex-stream <words>` to its end; return what it printed."""
        process = self._popen([*_measured(), "-m", "cortex_stream", *words])
        output, _ = await asyncio.to_thread(process.communicate, timeout=90)
        assert process.returncode == code, output
        return output

    async def until_records(self, topic: str, count: int, *, patience_s: float = 60) -> None:
        """Wait until a topic has at least so many records."""
        async with asyncio.timeout(patience_s), TopicReader(self.settings, [topic]) as reader:
            while sum((await reader.ends()).values()) < count:
                await asyncio.sleep(0.05)

    async def committed(self) -> dict[tuple[str, int], int]:
        """Return the live group's offsets, as another tool sees them."""
        admin = AIOKafkaAdminClient(**connection_arguments(self.settings))
        await admin.start()
        try:
            offsets = await admin.list_consumer_group_offsets(self.settings.group)
        finally:
            await admin.close()
        return {(at.topic, at.partition): each.offset for at, each in offsets.items()}

    def _popen(self, words: Sequence[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=self.folder,
            env=subprocess_environment(PYTHONPATH=str(REPOSITORY), **self.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.processes.append(process)
        return process

    def end_all(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture
async def scene(stack: Stack, topic_prefix: str, tmp_path: Path) -> AsyncIterator[Scene]:
    settings = Settings(
        kafka_brokers=stack.kafka_brokers, kafka=KafkaSettings(topic_prefix=topic_prefix)
    )
    async with TopicAdmin(settings) as admin:
        await admin.apply((await admin.plan()).changes)
    scene = Scene(settings, tmp_path)
    yield scene
    scene.end_all()
