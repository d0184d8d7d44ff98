"""The agents of what gives a worker work items: request topics, and hand-over topics."""

from typing import Any

import faust
from faust.types import StreamT

from agents.intake import Batch, Intake
from cortex_stream.routing.hosting import Feed
from cortex_stream.settings.tree import Settings


def add_lane(app: faust.App, feed: Feed, *, intake: Intake, settings: Settings) -> None:
    """Answer the requests of one topic."""

    @app.agent(app.topic(settings.topic(feed.topic)), name=feed.topic)
    async def requests(batches: StreamT[Any]) -> None:
        """Start the requests of each batch; a record is acknowledged once its outcome is durable.

        Nothing is yielded: Faust would send it where a header of the record says.
        """
        batch: Batch
        async for batch in batches:
            await intake.take_requests(batch, feed)
