"""The agents of the request topics, one per lane."""

from typing import Any

import faust
from faust.types import StreamT

from agents.intake import Batch, Intake
from cortex_stream.settings.tree import Settings
from schemas.priority import Lane
from topics.names import request_topic


def add_lane(app: faust.App, lane: Lane, *, intake: Intake, settings: Settings) -> None:
    """Answer the requests of one lane."""

    @app.agent(app.topic(settings.topic(request_topic(lane))), name=f"{lane.value}_requests")
    async def requests(batches: StreamT[Any]) -> None:
        """Start the requests of each batch; a record is acknowledged once its outcome is durable.

        Nothing is yielded: Faust would send it where a header of the record says.
        """
        batch: Batch
        async for batch in batches:
            await intake.take_requests(batch, lane)
