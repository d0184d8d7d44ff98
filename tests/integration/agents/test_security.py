"""A broker that demands TLS and a password."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex_stream.devstack.stack import Stack
from cortex_stream.settings.kafka import KafkaSecurity, KafkaSettings
from cortex_stream.settings.tree import Settings
from tests.integration.agents.scene import Scene

pytestmark = pytest.mark.integration
_VARIABLE = "CORTEX_KAFKA__SECURITY__"


@pytest.fixture
def secure_stack(tmp_path: Path, stack_programs: None) -> Iterator[Stack]:  # noqa: ARG001
    stack = Stack(tmp_path / "stack", secure=True)
    stack.start_service("kafka")
    yield stack
    stack.wipe()


async def test_requests_are_answered_over_tls_with_a_password(
    secure_stack: Stack, topic_prefix: str, tmp_path: Path
) -> None:
    variables = {k: v for k, v in secure_stack.environment().items() if k.startswith(_VARIABLE)}
    security = KafkaSecurity.model_validate(
        {name.removeprefix(_VARIABLE).lower(): value for name, value in variables.items()}
    )
    settings = Settings(
        kafka_brokers=secure_stack.kafka_brokers,
        kafka=KafkaSettings(topic_prefix=topic_prefix, security=security),
    )

    async with Scene(settings, tmp_path) as scene:
        names = await scene.ask(200)
        worker = scene.worker(**variables)
        await scene.answered(names)
        await scene.everything_committed()
        code, _ = await worker.terminate()

    assert security.protocol == "SASL_SSL"
    assert code == 0
    assert security.sasl_password() not in worker.log.read_text()
