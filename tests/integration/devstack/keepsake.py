"""What the tests keep in a stack, and what they look for."""

from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from redis.asyncio import Redis

from cortex_stream.devstack.progress import Quiet
from cortex_stream.devstack.stack import Stack


class Heard(Quiet):
    """Keeps what a stack says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """Keep the line."""
        self.lines.append(line)


@dataclass(frozen=True, slots=True)
class Keepsake:
    """A word kept in each of the three services."""

    stack: Stack
    word: str

    async def keep(self) -> None:
        """Store the word everywhere."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.stack.kafka_brokers)
        await admin.start()
        await admin.create_topics([NewTopic(self.word, 1, 1)])
        await admin.close()
        producer = AIOKafkaProducer(bootstrap_servers=self.stack.kafka_brokers)
        await producer.start()
        await producer.send_and_wait(self.word, self.word.encode())
        await producer.stop()
        async with Redis.from_url(self.stack.redis_url) as redis:
            await redis.set(self.word, self.word)
        connection = await asyncpg.connect(self.stack.postgres_url)
        await connection.execute(f'CREATE TABLE "{self.word}" AS SELECT 1')
        await connection.close()

    async def places(self) -> list[str]:
        """Return the services that still have it."""
        found = []
        consumer = AIOKafkaConsumer(bootstrap_servers=self.stack.kafka_brokers)
        await consumer.start()
        consumer.assign([TopicPartition(self.word, 0)])
        await consumer.seek_to_beginning()
        records = await consumer.getmany(timeout_ms=10_000)
        await consumer.stop()
        if [r.value for batch in records.values() for r in batch] == [self.word.encode()]:
            found.append("kafka")
        async with Redis.from_url(self.stack.redis_url) as redis:
            if await redis.get(self.word) == self.word.encode():
                found.append("redis")
        connection = await asyncpg.connect(self.stack.postgres_url)
        if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f'"{self.word}"'):
            found.append("postgres")
        await connection.close()
        return found


def processes_in(folder: Path) -> list[psutil.Process]:
    """Return every process that works in the folder, as the services and their children do."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
            continue
    return found
