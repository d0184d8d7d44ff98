"""What the edge knows of itself, for the pages and the readiness probe."""

from collections.abc import Callable
from typing import Final

from agents.intake import Intake
from agents.transport import EdgeConsumer
from cortex_stream.kafka.producer import KafkaProducer
from cortex_stream.web.status import PartitionStatus

_SILENT_MOST_S: Final = 5.0  # fetches are answered every 0.1 s, even when there is nothing new


class EdgeStatus:
    """Asked at any time from the worker's event loop, before the start as well.

    Attributes:
        draining: whether the process was told to stop.
    """

    def __init__(
        self,
        consumer: Callable[[], EdgeConsumer],
        intake: Intake,
        producer: KafkaProducer,
    ) -> None:
        self.draining = False
        self._consumer = consumer
        self._intake = intake
        self._producer = producer

    @property
    def producer_able(self) -> bool:
        """Whether outcomes can be produced: there is a client, and the brokers answer."""
        return (
            self._producer.able
            and not self._intake.unreachable
            and self._consumer().silent_s() < _SILENT_MOST_S
        )

    def partitions(self) -> tuple[PartitionStatus, ...]:
        """Return the assigned partitions; empty before the first assignment."""
        return self._consumer().partitions()
