"""Where the log of a partition begins: what is before was deleted.

Owner: the thread that runs the aiokafka consumer; awaited there.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from cortex_stream.kafka.commits import Place

_TIMEOUT_S: Final = 2.0


async def read_log_starts(consumer: Any, places: Iterable[Place]) -> dict[Place, int]:
    """Return the offset at which the log of each place begins; none without a quick answer."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            starts = await consumer.beginning_offsets([TopicPartition(*at) for at in places])
    except (KafkaError, TimeoutError):
        return {}
    return {tuple(at): start for at, start in starts.items()}
