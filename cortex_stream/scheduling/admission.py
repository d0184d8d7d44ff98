"""How much may be inside the process: one bound per topic, in records and in bytes.

A record holds its credit from the poll that took it until its outcome is durable. There is no
other queue between Kafka and the runners, so this is the only bound, and a topic whose credit is
used up stops its own polls and nobody else's.

Owner: the event loop. `room` alone is also read by the consumer's thread; it is one dictionary
look-up on a value that only shrinks what that thread may take, so a stale reading is harmless.
"""

from dataclasses import dataclass

from cortex_stream.errors import InvariantError


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that one topic may have in the process.

    `max_bytes` can be overshot by the records of one poll, since their size is known only after.
    """

    max_records: int
    max_bytes: int


@dataclass(slots=True)
class _Use:
    records: int = 0
    size_bytes: int = 0


class Admission:
    """Counts the records and bytes of each topic that are polled and not yet finished."""

    def __init__(self, bounds: dict[str, Bound]) -> None:
        self._bounds = bounds
        self._used = {topic: _Use() for topic in bounds}

    def room(self, topic: str) -> int:
        """Return how many records of `topic` may be taken now; 0 when its bytes are used up."""
        bound, used = self._bounds[topic], self._used[topic]
        if used.size_bytes >= bound.max_bytes:
            return 0
        return max(0, bound.max_records - used.records)

    def capacity(self, topic: str) -> int:
        """Return how many records of `topic` may be in the process at once."""
        return self._bounds[topic].max_records

    def waiting(self, topic: str) -> int:
        """Return how many records of `topic` are in the process."""
        return self._used[topic].records

    def take(self, topic: str, *, records: int, size_bytes: int) -> None:
        """Charge polled records to `topic`."""
        used = self._used[topic]
        used.records += records
        used.size_bytes += size_bytes

    def give_back(self, topic: str, *, records: int, size_bytes: int) -> None:
        """Release what `take` charged: the outcomes are durable or the assignment is over."""
        used = self._used[topic]
        used.records -= records
        used.size_bytes -= size_bytes
        if used.records < 0 or used.size_bytes < 0:
            raise InvariantError(
                f"giving back more of {topic} than was taken; this is a bug in cortex-stream"
            )
