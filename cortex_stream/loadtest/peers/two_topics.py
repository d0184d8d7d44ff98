"""The hand-written loop with priorities, as one adds them: a topic of its own, polled first.

Where nothing urgent waits, the others come in small polls, so that what turns urgent need not wait
for long. Small polls are the price: few texts of equal length are found in them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer

from cortex_stream.loadtest.peers.aiokafka_loop import Poll, run
from cortex_stream.loadtest.peers.command import Job, main

_URGENT_RECORDS: Final = 2048
_OTHER_RECORDS: Final = 32
_POLL_TIMEOUT_MS: Final = 1000


def polling_first(urgent_topic: str) -> Poll:
    """Return how to poll when the records of one topic go before all others."""

    async def poll(consumer: AIOKafkaConsumer) -> Mapping[Any, Sequence[Any]]:
        partitions = consumer.assignment()
        urgent = [each for each in partitions if each.topic == urgent_topic]
        others = [each for each in partitions if each.topic != urgent_topic]
        found: Mapping[Any, Sequence[Any]] = {}
        if urgent:
            found = await consumer.getmany(*urgent, max_records=_URGENT_RECORDS)
        if others and not found:
            found = await consumer.getmany(*others, max_records=_OTHER_RECORDS)
        if not found:
            found = await consumer.getmany(timeout_ms=_POLL_TIMEOUT_MS, max_records=_OTHER_RECORDS)
        return found

    return poll


def work(job: Job) -> None:
    """Answer requests, those of the first topic first, until SIGTERM."""
    run(job, polling_first(job.requests[0]))


if __name__ == "__main__":
    main(work)
