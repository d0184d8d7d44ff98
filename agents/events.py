"""The agent of the platform's events."""

from typing import Any

import faust
from faust.types import StreamT

from agents.intake import Batch, Intake
from cortex_stream.settings.tree import Settings
from topics.names import EVENTS


def add_events(app: faust.App, *, intake: Intake, settings: Settings) -> None:
    """Follow the events of Lake, Stream and Forge."""

    @app.agent(app.topic(settings.topic(EVENTS)), name="events")
    async def events(batches: StreamT[Any]) -> None:
        """Handle the events of each partition strictly in order, partitions beside each other."""
        batch: Batch
        async for batch in batches:
            intake.take_events(batch)
