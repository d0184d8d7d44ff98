"""Records of Kafka as values: where one came from, and one to be produced."""

from collections.abc import Sequence

from cortex_stream.values import value
from schemas.priority import Lane

Headers = Sequence[tuple[str, bytes | None]]


@value()
class RecordSource:
    """The coordinates and attributes of one record, apart from its value.

    Attributes:
        topic: the topic's name on the cluster, prefix included.
        lane: the lane its topic feeds; None for events, and for retries, which each say their own.
        stage: the stage to which it was handed over; None for a record of a client.
        timestamp_ms: the record's timestamp; negative when it has none.
        received_s: when it was polled, on the monotonic clock.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    received_s: float
    lane: Lane | None = None
    key: bytes | None = None
    headers: Headers = ()
    stage: str | None = None

    @property
    def is_event(self) -> bool:
        """Whether it tells that something happened, instead of asking for work."""
        return self.lane is None and self.stage is None


@value()
class OutgoingRecord:
    """One record to produce. `topic` is a catalogue name, without the prefix."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
