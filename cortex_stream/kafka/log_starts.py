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
    """Return the offset at which the log of each place begins; of none without a quick answer."""
    asked = list(places)  # one by one: a partition without a leader would keep all from an answer
    starts = await asyncio.gather(*(_start(consumer, at) for at in asked))
    return {at: start for at, start in zip(asked, starts, strict=True) if start is not None}


async def _start(consumer: Any, at: Place) -> int | None:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            (start,) = (await consumer.beginning_offsets([TopicPartition(*at)])).values()
    except (KafkaError, TimeoutError):
        return None
    return int(start)
