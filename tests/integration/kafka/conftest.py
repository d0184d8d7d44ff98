from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from cortex_stream.devstack.stack import Stack
from cortex_stream.kafka.admin import TopicAdmin
from cortex_stream.settings.kafka import KafkaSecurity, KafkaSettings
from cortex_stream.settings.tree import Settings


@pytest.fixture
def settings(stack: Stack, topic_prefix: str) -> Settings:
    return Settings(
        kafka_brokers=stack.kafka_brokers, kafka=KafkaSettings(topic_prefix=topic_prefix)
    )


@pytest.fixture
async def applied(settings: Settings) -> Settings:
    """Settings whose topics exist."""
    async with TopicAdmin(settings) as admin:
        await admin.apply((await admin.plan()).changes)
    return settings


@pytest.fixture
async def by_hand(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """What an operator would use beside us."""
    client = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_brokers)
    await client.start()
    yield client
    await client.close()


@pytest.fixture(scope="module")
def secure_stack(
    stack_programs: None,  # noqa: ARG001
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stacks") / "secure", secure=True)
    try:
        stack.start_service("kafka")
        yield stack
    finally:
        stack.wipe()


@pytest.fixture
def secure_settings(secure_stack: Stack, topic_prefix: str) -> Settings:
    """Settings as `stack env` gives them: TLS and a password."""
    security: dict[str, Any] = {
        name.removeprefix("CORTEX_KAFKA__SECURITY__").lower(): value
        for name, value in secure_stack.environment().items()
        if name.startswith("CORTEX_KAFKA__SECURITY__")
    }
    return Settings(
        kafka_brokers=secure_stack.kafka_brokers,
        kafka=KafkaSettings(
            topic_prefix=topic_prefix, security=KafkaSecurity.model_validate(security)
        ),
    )


@pytest.fixture
def wrong_password(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text("wrong", encoding="utf-8")
    return file
