"""A circuit breaker around a dependency that a worker can do without for a while.

After a few failures in a row the circuit is open: the dependency is left alone for some seconds,
and whoever would have asked it goes on at once without. Then one call probes it, and its success
closes the circuit.
"""

from dataclasses import dataclass
from types import TracebackType
from typing import Final

import structlog
from circuitbreaker import CircuitBreaker

from cortex_stream.clock import Clock
from cortex_stream.telemetry import metrics

_FAILURES: Final = 3
_REST_S: Final = 5.0  # half of the 10 s within which work must go on as before after a repair

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outage:
    """Since when a dependency is left alone, and the failure that decided it, for people."""

    since_unix_ms: int
    reason: str


class Circuit:
    """Lets calls through, or not. Ask `open` first, then wrap the call in `with circuit:`.

    Every exception that leaves the block is a failure, a time limit of the caller's included; the
    end of a cancelled task is none.

    Owner: the event loop.

    Attributes:
        outage: None while calls go through; it ends with the first that succeeds.
    """

    def __init__(
        self, dependency: str, *, clock: Clock, failures: int = _FAILURES, rest_s: float = _REST_S
    ) -> None:
        """Guard calls to `dependency`: after so many `failures` it is left alone for `rest_s`."""
        self.outage: Outage | None = None
        self._dependency = dependency
        self._clock = clock
        self._breaker = CircuitBreaker(
            failure_threshold=failures, recovery_timeout=rest_s, name=dependency
        )
        self._probing = False
        self._gauge = metrics.CIRCUIT_OPEN.labels(dependency)
        self._gauge.set(0)

    @property
    def open(self) -> bool:
        """Whether to go on without the dependency; also while another call probes it."""
        return self.outage is not None and (self._probing or self._breaker.opened)

    @property
    def rests_s(self) -> float:
        """How much longer nobody asks; 0.0 where the next call goes through, as a probe or as ever."""
        return max(0.0, self._breaker.open_remaining) if self._breaker.opened else 0.0

    def __enter__(self) -> None:
        """Begin a call."""
        self._probing = self.outage is not None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Count how the call ended."""
        self._probing = False
        if error is not None and not isinstance(error, Exception):
            return
        self._breaker.__exit__(kind, error, traceback)
        if self.outage is None and self._breaker.opened:
            reason = str(error) or type(error).__name__
            self.outage = Outage(self._clock.unix_ms(), reason)
            self._gauge.set(1)
            log.warning("circuit.opened", dependency=self._dependency, reason=reason)
        elif self.outage is not None and self._breaker.closed:
            lasted_s = (self._clock.unix_ms() - self.outage.since_unix_ms) / 1000
            self.outage = None
            self._gauge.set(0)
            log.info("circuit.closed", dependency=self._dependency, lasted_s=lasted_s)
