import asyncio
import logging
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from cortex_stream.devstack.stack import Stack

pytestmark = pytest.mark.integration


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


def client_of(stack: Stack, *, password: str | None = None) -> AIOKafkaProducer:
    """Return a client that follows what `stack env` says, if need be with another password."""
    variables = stack.environment()
    security: dict[str, Any] = {
        name.removeprefix("CORTEX_KAFKA__SECURITY__"): value for name, value in variables.items()
    }
    known = Path(security["PASSWORD_FILE"]).read_text(encoding="utf-8")
    return AIOKafkaProducer(
        bootstrap_servers=variables["KAFKA_BROKERS"],
        security_protocol=security["PROTOCOL"],
        ssl_context=ssl.create_default_context(cafile=security["CA_FILE"]),
        sasl_mechanism=security["MECHANISM"],
        sasl_plain_username=security["USERNAME"],
        sasl_plain_password=password or known,
    )


async def test_the_secure_listener_serves_the_user_over_tls(secure_stack: Stack) -> None:
    client = client_of(secure_stack)

    await client.start()
    brokers = client.client.cluster.brokers()
    await client.stop()

    assert {f"{broker.host}:{broker.port}" for broker in brokers} == {secure_stack.kafka_brokers}


async def test_the_secure_listener_refuses_a_wrong_password(
    secure_stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="aiokafka")  # whatever tests before have silenced
    client = client_of(secure_stack, password="guessed")  # noqa: S106

    with pytest.raises(KafkaError):
        await client.start()
    await client.stop()

    assert "SaslAuthenticationFailed" in caplog.text


async def test_the_secure_listener_refuses_a_client_without_tls(secure_stack: Stack) -> None:
    client = AIOKafkaProducer(bootstrap_servers=secure_stack.kafka_brokers)

    with pytest.raises(KafkaError):
        await asyncio.wait_for(client.start(), 10)
    await client.stop()


def test_secrets_are_for_their_owner_alone(secure_stack: Stack) -> None:
    folder = secure_stack.folder / "kafka"
    password = (folder / "password").read_text(encoding="utf-8")

    holders = [p for p in folder.iterdir() if p.is_file() and password.encode() in p.read_bytes()]

    assert [p.name for p in holders] == ["password"]
    for name in ("password", "server.pem"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


async def test_a_record_of_eight_mebibytes_passes(stack: Stack, topic_prefix: str) -> None:
    value = b"x" * ((8 << 20) - 1024)
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka_brokers)
    producer = AIOKafkaProducer(bootstrap_servers=stack.kafka_brokers, max_request_size=9 << 20)
    await admin.start()
    await admin.create_topics([NewTopic(topic_prefix, 1, 1)])
    await admin.close()

    await producer.start()
    await producer.send_and_wait(topic_prefix, value)
    await producer.stop()
    consumer = AIOKafkaConsumer(
        topic_prefix, bootstrap_servers=stack.kafka_brokers, auto_offset_reset="earliest"
    )
    await consumer.start()
    record = await asyncio.wait_for(consumer.getone(), 10)
    await consumer.stop()

    assert record.value == value


async def test_a_topic_that_nobody_created_does_not_appear(stack: Stack, topic_prefix: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=stack.kafka_brokers, request_timeout_ms=500)
    await producer.start()

    with pytest.raises(KafkaError):
        await producer.send_and_wait(topic_prefix, b"lost")

    topics = await producer.client.fetch_all_metadata()
    await producer.stop()
    assert topic_prefix not in topics.topics()
