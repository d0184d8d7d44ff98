"""What rebalances cost: the time from when the intake stops until records come in again.

Owner: the worker's event loop.
"""

from collections.abc import Iterable

import structlog

from cortex_stream.clock import Clock
from cortex_stream.kafka.progress import Standing
from cortex_stream.telemetry import metrics
from cortex_stream.web.status import RebalanceStatus

log = structlog.stdlib.get_logger(__name__)


class Rebalances:
    """Measures the pause of each rebalance.

    Attributes:
        status: what the pages show.
    """

    def __init__(self, clock: Clock) -> None:
        self.status = RebalanceStatus()
        self._clock = clock
        self._stopped_s: float | None = None
        self._assigned_s = 0.0

    @property
    def pausing(self) -> bool:
        """Whether records do not come in yet."""
        return self._stopped_s is not None

    def stopped(self) -> None:
        """Note that nothing is taken from now on. Another rebalance may follow before that ends."""
        if self._stopped_s is None:
            self._stopped_s = self._clock.monotonic_s()

    def assigned(self) -> None:
        """Note that partitions are handed out; records may be taken."""
        self._assigned_s = self._clock.monotonic_s()

    def polled(self, records: int, partitions: Iterable[Standing]) -> None:
        """Note that a poll took `records`, or none: the pause is over once it is known why.

        Where no record waits, it was over with the assignment.
        """
        if not records and any(each.fetched or each.answered is None for each in partitions):
            return
        if self._stopped_s is not None:
            ended_s = self._clock.monotonic_s() if records else self._assigned_s
            pause_s, self._stopped_s = ended_s - self._stopped_s, None
            self.status = self.status.after(pause_s)
            metrics.REBALANCE_PAUSE_SECONDS.observe(pause_s)
            log.info("rebalance.over", pause_s=round(pause_s, 3))
