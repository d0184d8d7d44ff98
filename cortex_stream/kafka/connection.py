"""How every client of ours reaches the brokers, and what it says when it cannot."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import BrokerResponseError, KafkaConnectionError, KafkaError

from cortex_stream.errors import BrokerUnavailable
from cortex_stream.kafka.security import security_arguments
from cortex_stream.settings.tree import Settings


def connection_arguments(settings: Settings) -> dict[str, Any]:
    """Return the keyword arguments that every aiokafka client takes for addresses and identity."""
    return {
        "bootstrap_servers": settings.kafka_brokers,
        "client_id": "cortex-stream",
        **security_arguments(settings.kafka.security),
    }


@asynccontextmanager
async def connected(settings: Settings, client: Any) -> AsyncIterator[Any]:
    """Start a client of aiokafka and give it; stop it at the end, and where it could not start.

    Raises:
        BrokerUnavailable: no broker answers.
    """
    try:
        with reaching_brokers(settings):
            await client.start()
        yield client
    finally:
        await (client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop())


@contextmanager
def reaching_brokers(settings: Settings) -> Iterator[None]:
    """Turn every failure of a Kafka client inside the block into `BrokerUnavailable`.

    A refusal (no permission, a broken rule) is told apart by its text: it names no repair, since
    the brokers are up.
    """
    try:
        yield
    except (KafkaError, OSError, TimeoutError) as error:
        no_answer = isinstance(
            error, KafkaConnectionError
        )  # its own text is Python's repr of a list
        detail = "no broker answers" if no_answer else str(error) or type(error).__name__
        refused = isinstance(error, BrokerResponseError) and not error.retriable
        raise BrokerUnavailable(
            f"talking to Kafka at {settings.kafka_brokers}: {detail}",
            repair=None if refused else "start it (cortex-stream stack up) or set KAFKA_BROKERS",
        ) from error
