"""Fixtures of the tests at the edge."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cortex_stream.devstack.stack import Stack
from cortex_stream.settings.kafka import KafkaSettings
from cortex_stream.settings.tree import Settings
from tests.integration.agents.scene import Scene


@pytest.fixture
async def scene(stack: Stack, topic_prefix: str, tmp_path: Path) -> AsyncIterator[Scene]:
    """Topics of its own on the shared Kafka."""
    kafka = KafkaSettings(topic_prefix=topic_prefix)
    settings = Settings(kafka_brokers=stack.kafka_brokers, kafka=kafka)
    async with Scene(settings, tmp_path) as scene:
        yield scene


@pytest.fixture
def broker(stack: Stack) -> Iterator[Stack]:
    """The stack, to hurt its Kafka; it runs again afterwards."""
    yield stack
    stack.start_service("kafka")
