"""The stub worker, but each of its producers has lost its place in the broker's sequence."""

import os
from contextlib import suppress
from unittest.mock import patch

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError

from agents import faust_app
from agents.faust_worker import EdgeWorker
from cortex_stream.kafka.producer import KafkaProducer
from tests.integration.agents.stub_worker import build_app
from topics.catalogue import SMALL_BYTES
from topics.names import INVALIDATIONS

KEY = b"unlucky"
"""The subject whose partition is spoilt."""


class UnluckyProducer(KafkaProducer):
    _spoilt: AIOKafkaProducer | None = None

    async def _connected(self) -> AIOKafkaProducer:
        client = await super()._connected()
        if client is not self._spoilt:
            self._spoilt = client
            topic = self._settings.topic(INVALIDATIONS)
            await client.send_and_wait(topic, key=KEY, value=b'{"id":"the broker knows it"}')
            with suppress(MessageSizeTooLargeError):  # what comes next is out of order
                await client.send_and_wait(topic, key=KEY, value=os.urandom(2 * SMALL_BYTES))
        return client


def main() -> None:
    with patch.object(faust_app, "KafkaProducer", UnluckyProducer):
        app = build_app()
    app.finalize()
    EdgeWorker(app, quiet=True).execute_from_commandline()


if __name__ == "__main__":
    main()
