"""A FastStream batch subscriber: what a poll returns is one batch for the model."""

import asyncio
from typing import Any, Final

import orjson
from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker

from cortex_stream.loadtest.peers.command import Job, main, say_ready
from cortex_stream.loadtest.peers.model import PeerModel
from cortex_stream.loadtest.peers.wire import answer_to, texts_of

_BATCH_RECORDS: Final = 32  # the usual batch of an embedding model
_POLL_TIMEOUT_MS: Final = 20  # how long a poll waits that finds nothing; 200 if not set


def embedding_app(job: Job) -> Any:
    """Return the application; it opens the model."""
    model = PeerModel(job.model)
    broker = KafkaBroker(job.brokers.split(","), logger=None)
    publisher = broker.publisher(job.results)

    @broker.subscriber(  # type: ignore[untyped-decorator]  # typed where it is installed
        *job.requests,
        group_id=job.group,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.ACK,
        batch=True,
        max_records=_BATCH_RECORDS,
        batch_timeout_ms=_POLL_TIMEOUT_MS,
    )
    async def embed(requests: list[dict[str, Any]]) -> None:
        texts = [text for request in requests for text in texts_of(request)]
        vectors = await asyncio.to_thread(model.embed, texts)
        durable, start = [], 0
        for request in requests:
            end = start + len(texts_of(request))
            value = orjson.dumps(answer_to(request, vectors[start:end]))
            key = request["id"].encode()
            durable.append(await publisher.publish(value, key=key, no_confirm=True))
            start = end
        await asyncio.gather(*durable)

    return FastStream(broker, logger=None, after_startup=[say_ready])


def work(job: Job) -> None:
    """Answer requests until SIGTERM."""
    asyncio.run(embedding_app(job).run())


if __name__ == "__main__":
    main(work)
