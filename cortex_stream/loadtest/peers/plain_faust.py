"""A Faust agent as the first page of Faust's documentation shows it: one event at a time.

The model runs in a thread, so that the event loop keeps answering Kafka. Faust's own settings,
except where they would leave something behind: no web server, no folder, no topic of its own.
"""

import asyncio
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faust
from faust.types import StreamT

from cortex_stream.loadtest.peers.command import Job, main, say_ready
from cortex_stream.loadtest.peers.model import PeerModel
from cortex_stream.loadtest.peers.wire import answer_to, texts_of


def embedding_app(job: Job) -> faust.App:
    """Return the app; it opens the model."""
    model, pool = PeerModel(job.model), ThreadPoolExecutor(1)
    app = faust.App(
        job.group,
        broker=[f"kafka://{address}" for address in job.brokers.split(",")],
        value_serializer="json",
        web_enabled=False,
        worker_redirect_stdouts=False,  # `say_ready` goes to stdout, not into Faust's log
        topic_disable_leader=True,
        datadir=tempfile.gettempdir(),
    )
    results = app.topic(job.results)

    @app.agent(app.topic(*job.requests))
    async def embed(requests: StreamT[Any]) -> None:
        loop = asyncio.get_running_loop()
        async for request in requests:
            vectors = await loop.run_in_executor(pool, model.embed, texts_of(request))
            answer = answer_to(request, vectors)
            await results.send(key=request["id"], value=answer)  # type: ignore[unused-awaitable]  # as documented: queued is enough

    @app.on_partitions_assigned.connect
    async def assigned(*_: Any, **_more: Any) -> None:
        say_ready()

    return app


def work(job: Job) -> None:
    """Answer requests until SIGTERM."""
    worker = faust.Worker(embedding_app(job), loglevel="warning", stdout=sys.stderr)  # its spinner
    worker.execute_from_commandline()


if __name__ == "__main__":
    main(work)
