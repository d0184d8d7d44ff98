"""What the edge knows of itself, for the pages, the readiness probe and the watchdog."""

from collections.abc import Callable
from typing import Final

from agents.intake import Intake
from agents.transport import EdgeConsumer
from cortex_stream.kafka.progress import Standing
from cortex_stream.web.status import PartitionStatus, RebalanceStatus
from topics.names import ATTEMPTS

_MOST_REASONS: Final = 3


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
    ) -> None:
        self.draining = False
        self.stalls: tuple[str, ...] = ()
        self._consumer = consumer
        self._intake = intake

    @property
    def obstacles(self) -> tuple[str, ...]:
        """Why outcomes cannot be produced, or suspects not run, a line for each reason."""
        obstacles = list(self._intake.outbox.unreachable[:_MOST_REASONS])
        if self._intake.suspects.waiting:
            obstacles.append(f"suspects wait: their counts in {ATTEMPTS} are not read yet")
        return tuple(obstacles)

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
