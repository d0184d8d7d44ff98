"""A Quix Streams application: one streaming data frame per topic, one text at a time."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
from quixstreams import Application

from cortex_stream.loadtest.peers.command import Job, main, say_ready
from cortex_stream.loadtest.peers.model import PeerModel
from cortex_stream.loadtest.peers.wire import answer_to, texts_of


def embedding_app(job: Job, *, state: Path) -> Any:
    """Return the application; it opens the model, and makes `state` though it keeps none."""
    model = PeerModel(job.model)
    app = Application(
        broker_address=job.brokers,
        consumer_group=job.group,
        auto_offset_reset="earliest",
        auto_create_topics=False,
        state_dir=state,
        loglevel="WARNING",
        # The library has no word for "assigned"; its Kafka client tells it among its figures.
        consumer_extra_config={"stats_cb": _say_ready_once_assigned, "statistics.interval.ms": 500},
    )
    results = app.topic(job.results)

    def embed(request: dict[str, Any]) -> dict[str, Any]:
        return answer_to(request, model.embed(texts_of(request)))

    for topic in job.requests:
        answers = app.dataframe(app.topic(topic)).apply(embed)
        answers.to_topic(results, key=lambda answer: answer["subject"])
    return app


def work(job: Job) -> None:
    """Answer requests until SIGTERM."""
    with TemporaryDirectory() as folder:
        embedding_app(job, state=Path(folder)).run()


def _say_ready_once_assigned(statistics: str) -> None:
    if orjson.loads(statistics)["cgrp"]["assignment_size"]:
        say_ready()


if __name__ == "__main__":
    main(work)
