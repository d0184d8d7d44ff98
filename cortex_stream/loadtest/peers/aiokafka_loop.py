"""The fastest loop that one writes by hand: deep polls, sorted by length, two models at work.

No validation, no priorities, no deadlines, no retries: what our worker adds to this has a price, and
here is what it is compared with. Offsets are committed once the answers of a poll are durable.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from cortex_stream.inference.session import usable_cores
from cortex_stream.inference.tensors import IntRows
from cortex_stream.loadtest.peers.command import Job, main, say_ready
from cortex_stream.loadtest.peers.model import PeerModel
from cortex_stream.loadtest.peers.wire import answer_to, texts_of

Poll = Callable[[AIOKafkaConsumer], Awaitable[Mapping[Any, Sequence[Any]]]]
"""Waits for records and returns some by partition; none after a while."""

_POLL_RECORDS: Final = 2048
_POLL_TIMEOUT_MS: Final = 1000
# A partition that was just emptied is asked for again only when the fetch under way returns.
_FETCH_MAX_WAIT_MS: Final = 50
_BATCH_ROWS: Final = 8
_BATCH_TOKENS: Final = 256  # padding included
_PRODUCE_BATCH_BYTES: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request whose texts are tokenised."""

    request: Mapping[str, Any]
    rows: Sequence[IntRows]

    @property
    def tokens(self) -> int:
        """The length of its longest text."""
        return max(map(len, self.rows))


async def poll_deep(consumer: AIOKafkaConsumer) -> Mapping[Any, Sequence[Any]]:
    """Return whatever has arrived, of all topics alike."""
    found: Mapping[Any, Sequence[Any]] = await consumer.getmany(
        timeout_ms=_POLL_TIMEOUT_MS, max_records=_POLL_RECORDS
    )
    return found


async def answer_requests(job: Job, poll: Poll) -> None:
    """Answer what `poll` returns, one poll after the other, until SIGTERM."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    model = PeerModel(job.model, sessions=usable_cores())
    consumer = AIOKafkaConsumer(
        *job.requests,
        bootstrap_servers=job.brokers,
        group_id=job.group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_wait_ms=_FETCH_MAX_WAIT_MS,
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=job.brokers,
        enable_idempotence=True,
        max_batch_size=_PRODUCE_BATCH_BYTES,
    )
    with ThreadPoolExecutor(usable_cores()) as pool:
        async with producer, consumer:  # entered once partitions are assigned
            say_ready()
            while True:
                polled = await poll(consumer)
                requests = [orjson.loads(each.value) for some in polled.values() for each in some]
                if requests:
                    await _answer(requests, model=model, pool=pool, producer=producer, job=job)
                    await consumer.commit()


async def _answer(
    requests: Sequence[Mapping[str, Any]],
    *,
    model: PeerModel,
    pool: ThreadPoolExecutor,
    producer: AIOKafkaProducer,
    job: Job,
) -> None:
    """Return when the answers to all requests are durable; each is sent as soon as it is known."""
    loop = asyncio.get_running_loop()
    waiting = await loop.run_in_executor(pool, _encode, requests, model)

    async def answer(batch: Sequence[Waiting]) -> None:
        rows = [row for each in batch for row in each.rows]
        vectors = await loop.run_in_executor(pool, model.run, rows)
        durable, start = [], 0
        for each in batch:
            end = start + len(each.rows)
            value = orjson.dumps(answer_to(each.request, vectors[start:end]))
            key = each.request["id"].encode()
            durable.append(await producer.send(job.results, key=key, value=value))
            start = end
        await asyncio.gather(*durable)

    async with asyncio.TaskGroup() as answering:
        for batch in batches(waiting):
            answering.create_task(answer(batch))


def _encode(requests: Sequence[Mapping[str, Any]], model: PeerModel) -> list[Waiting]:
    texts = [texts_of(request) for request in requests]
    rows = iter(model.encode([text for some in texts for text in some]))
    return [
        Waiting(request, [next(rows) for _ in some])
        for request, some in zip(requests, texts, strict=True)
    ]


def batches(waiting: Sequence[Waiting]) -> Iterator[Sequence[Waiting]]:
    """Cut requests of about equal length into runs of 8 rows and 256 padded tokens at most.

    The longest come first, so that no thread ends long after the other. A request that is larger
    by itself runs alone.
    """
    batch: list[Waiting] = []
    rows = 0
    for each in sorted(waiting, key=lambda one: one.tokens, reverse=True):
        rows += len(each.rows)
        longest = batch[0].tokens if batch else each.tokens
        if batch and (rows > _BATCH_ROWS or rows * longest > _BATCH_TOKENS):
            yield batch
            batch, rows = [], len(each.rows)
        batch.append(each)
    if batch:
        yield batch


def run(job: Job, poll: Poll) -> None:
    """Answer requests until SIGTERM. Blocks."""
    try:
        asyncio.run(answer_requests(job, poll))
    except asyncio.CancelledError:
        return  # told to stop


if __name__ == "__main__":
    main(lambda job: run(job, poll_deep))
