"""The stub worker, but it may not produce what has the key `refused`."""

import asyncio
from typing import Any
from unittest.mock import patch

from aiokafka import AIOKafkaProducer

from agents import faust_app
from agents.faust_worker import EdgeWorker
from cortex_stream.errors import BrokerUnavailable
from cortex_stream.kafka.producer import KafkaProducer
from cortex_stream.record import OutgoingRecord
from tests.integration.agents.stub_worker import build_app


class RefusingProducer(KafkaProducer):
    async def _enqueue(
        self, client: AIOKafkaProducer, record: OutgoingRecord
    ) -> asyncio.Future[Any]:
        if record.key and record.key.startswith(b"refused"):
            raise BrokerUnavailable("producing: not allowed")
        return await super()._enqueue(client, record)


def main() -> None:
    with patch.object(faust_app, "KafkaProducer", RefusingProducer):
        app = build_app()
    app.finalize()
    EdgeWorker(app, quiet=True).execute_from_commandline()


if __name__ == "__main__":
    main()
