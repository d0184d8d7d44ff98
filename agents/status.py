"""What the edge knows of itself, for the pages, the readiness probe and the watchdog."""

from collections.abc import Callable

from agents.intake import Intake
from agents.transport import EdgeConsumer
from cortex_stream.kafka.producer import KafkaProducer
from cortex_stream.kafka.progress import Standing
from cortex_stream.web.status import PartitionStatus, RebalanceStatus


class EdgeStatus:
    """Asked at any time from the worker's event loop, before the start as well.

    Attributes:
        draining: whether the process was told to stop.
        stalls: what does not get on, a line for each reason; the watchdog says so.
    """

    def __init__(
        self,
        consumer: Callable[[], EdgeConsumer],
        intake: Intake,
        producer: KafkaProducer,
    ) -> None:
        self.draining = False
        self.stalls: tuple[str, ...] = ()
        self._consumer = consumer
        self._intake = intake
        self._producer = producer

    @property
    def producer_able(self) -> bool:
        """Whether outcomes can be produced: there is a client, and the brokers take them."""
        return self._producer.able and not (
            self._intake.outbox.unreachable or self._intake.suspects.waiting
        )

    def partitions(self) -> tuple[PartitionStatus, ...]:
        """Return the assigned partitions; empty before the first assignment."""
        return self._consumer().partitions()

    def standings(self) -> dict[tuple[str, int], Standing] | None:
        """Return who may owe what for each assigned partition; None while they are handed out."""
        return self._consumer().standings()

    @property
    def rebalances(self) -> RebalanceStatus:
        """How often partitions were handed out anew since the start, and at what cost."""
        return self._consumer().rebalances.status

    @property
    def turns(self) -> int:
        """How often the loop that polls and delivers came round."""
        return self._consumer().turns
