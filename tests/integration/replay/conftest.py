"""Topics of each test's own, requests in them, and the command line, also as a process that can be killed."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from typer.testing import CliRunner

from cortex_stream.cli.main import app
from cortex_stream.devstack.stack import Stack
from cortex_stream.environment import subprocess_environment
from cortex_stream.kafka.admin import TopicAdmin
from cortex_stream.kafka.connection import connection_arguments
from cortex_stream.kafka.producer import KafkaProducer
from cortex_stream.kafka.reader import ReadRecord, TopicReader
from cortex_stream.record import OutgoingRecord
from cortex_stream.settings.kafka import KafkaSettings
from cortex_stream.settings.tree import Settings
from schemas.handovers import HANDOVER, Handover
from schemas.priority import Lane
from topics.names import AUDIT, MODELS, REPLAYS, RESULTS, request_topic

REPOSITORY = Path(__file__).parents[3]
MEDIUM = request_topic(Lane.MEDIUM)
REPLAY_LANE = request_topic(Lane.REPLAY)
COMMANDS_NEED = (MEDIUM, REPLAY_LANE, REPLAYS, RESULTS, AUDIT, MODELS)
"""Making all topics takes a second; without a worker nobody misses the others."""


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
        self,
        count: int,
        *,
        run: str = "r",
        attributes: Mapping[str, object] | None = None,
        model: str | None = None,
    ) -> list[OutgoingRecord]:
        """Produce embed requests `<run>-<n>`, each with a header of its own; return them."""
        named = {} if model is None else {"model": model}
        records = [
            OutgoingRecord(
                MEDIUM,
                f"{run}-{number}".encode(),
                orjson.dumps(
                    {
                        "id": f"{run}-{number}",
                        "type": "cortex.nlp.embed.v1",
                        **(attributes or {}),
                        "data": {"texts": [f"text {number} of {run}"], **named},
                    }
                ),
                (("x-number", str(number).encode()),),
            )
            for number in range(count)
        ]
        async with KafkaProducer(self.settings) as producer:
            await producer.send(*records)
        return records

    async def read(self, topic: str) -> list[ReadRecord]:
        """Return everything that is on a topic."""
        async with TopicReader(self.settings, [topic]) as reader:
            return [record async for record in reader.to_end()]

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start `cortex-stream <words>` as a process."""
        return self._popen(["-m", "cortex_stream", *words])

    async def start_worker(self, script: Path) -> subprocess.Popen[str]:
        """Make the topics that only workers need and start one; it is ready when it answers."""
        async with TopicAdmin(self.settings) as admin:
            await admin.apply((await admin.plan()).changes)
        return self._popen([str(script)])

    async def run(self, *words: str, code: int = 0) -> str:
        """Run `cortex-stream <words>` to its end, in this process; return what it printed."""
        result = await asyncio.to_thread(CliRunner().invoke, app, words)
        assert result.exit_code == code, result.output
        return result.output

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


def handover(record: ReadRecord) -> Handover:
    """Return what a record on the replay lane says of its origin: its last header."""
    name, value = record.headers[-1]
    assert name == HANDOVER
    return Handover.model_validate_json(value or b"")


def origins(records: Sequence[ReadRecord]) -> list[tuple[int, int]]:
    return [(each.partition, each.offset) for each in map(handover, records)]


@asynccontextmanager
async def open_scene(stack: Stack, topic_prefix: str, folder: Path) -> AsyncIterator[Scene]:
    """Make the topics that commands need; commands of this process work on them, in `folder`."""
    settings = Settings(
        kafka_brokers=stack.kafka_brokers, kafka=KafkaSettings(topic_prefix=topic_prefix)
    )
    needed = {settings.topic(name) for name in COMMANDS_NEED}
    async with TopicAdmin(settings) as admin:
        changes = (await admin.plan()).changes
        await admin.apply([change for change in changes if change.name in needed])
    scene = Scene(settings, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in scene.environment.items():
            patch.setenv(name, value)
        try:
            yield scene
        finally:
            scene.end_all()


@pytest.fixture
async def scene(stack: Stack, topic_prefix: str, tmp_path: Path) -> AsyncIterator[Scene]:
    async with open_scene(stack, topic_prefix, tmp_path) as scene:
        yield scene
