"""What the edge asks of the engine, and what it gets: the contract between the two."""

from typing import Protocol

from cortex_stream.delivery.outcome import Answering, Outcome
from cortex_stream.errors import OutcomeTooLarge
from cortex_stream.record import RecordSource
from cortex_stream.values import value


class Engine(Protocol):
    """Answers requests and events."""

    def begin(self, value: bytes | None, source: RecordSource) -> Outcome | Answering:
        """Return the outcome of a request if it is known at once, else what finds it.

        Whatever either of them raises means: this process cannot go on.
        """
        ...

    def due_in_s(self, source: RecordSource) -> float:
        """Return how long to keep a retry before `begin`; 0 or less: not at all."""
        ...

    def process_event(self, value: bytes | None, source: RecordSource) -> Outcome:
        """Return the effect of one event."""
        ...

    def unreadable(self, source: RecordSource, reason: str) -> Outcome:
        """Reject a record of which only the coordinates are known."""
        ...

    def poisonous(
        self, value: bytes | None, source: RecordSource, *, deliveries: int, readable: bool
    ) -> Outcome:
        """Give up a record that ended its worker each time it ran."""
        ...

    def too_large(
        self, outcome: Outcome, value: bytes | None, source: RecordSource, error: OutcomeTooLarge
    ) -> Outcome:
        """Return what to publish in place of `outcome`."""
        ...


class Core(Protocol):
    """The worker behind the edge, started."""

    @property
    def engine(self) -> Engine:
        """Answers the records."""
        ...

    @property
    def busy(self) -> bool:
        """Whether a model runs something; a run may outlive the request that gave it up."""
        ...

    def settled(self, outcome: Outcome, source: RecordSource) -> None:
        """Count an outcome that is durable now."""
        ...


@value()
class Answer:
    """An outcome on its way into the log, and the record that it answers."""

    value: bytes | None
    source: RecordSource
    outcome: Outcome
