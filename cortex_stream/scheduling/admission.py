"""How much may be inside the process: bounds per topic and in all, in records and in memory.

A record holds its credit from the poll that took it until its outcome is durable. There is no
other queue between Kafka and the runners, so this is the only bound, and a topic whose credit is
used up stops its own polls and nobody else's: half of the memory in all is kept for the topics in
equal parts, and only the other half can be taken by whoever comes first.

Owner: the event loop. `room` alone is also read by the consumer's thread; it reads a few numbers
that only change how much that thread takes, so a stale reading is harmless.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from cortex_stream.errors import InvariantError

_REQUEST_BYTES: Final = (
    11_000  # task, frames, envelope, validated request, the outcome's own fields
)
_RECORD_FACTOR: Final = 3  # the record as it came, its texts, and copies while they are read
_TEXT_BYTES: Final = 2_700  # a vector of 384 numbers in base64 is 2,048; and tokens, or its array
LEAST_RECORDS: Final = 50  # less room is not worth a poll: small batches cost more per record
_LEAST_SHARE: Final = 4  # nor is less than a quarter of a topic's own part of the memory
_CROWDED: Final = 8  # from an eighth of what a topic may hold on


def weight_bytes(*, record_bytes: int, texts: int) -> int:
    """Return what a request holds in memory at its heaviest: answered, and waiting for the broker.

    Until it is answered it holds less. Measured, in bytes, and held by a test:

        ===================  =========  =========  =========
        request                waiting   answered     weight
        ===================  =========  =========  =========
        1 text of 70 chars       8,200     11,000     14,100
        16 texts of 70          21,900     55,900     57,900
        256 texts of 70         38,300    694,900    758,400
        256 texts of 180        82,700    665,200    842,900
        256 texts of 4,000   2,464,000  3,492,000  3,777,000
        1 text of 30,000        75,300     75,600    103,900
        ===================  =========  =========  =========

    Beyond it can be: vectors as JSON numbers (4.7 KB each), vectors also written for a subject, of
    more than 384 numbers, and texts with characters of four bytes. Memory watermarks stand behind.

    Args:
        record_bytes: key, value and headers.
        texts: inputs, and labels that are compared with them.
    """
    return _REQUEST_BYTES + record_bytes * _RECORD_FACTOR + texts * _TEXT_BYTES


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that one topic may have in the process.

    `max_bytes` of memory can be overshot by a few records, since their weight is known only after.
    """

    max_records: int
    max_bytes: int


class Room(NamedTuple):
    """What may be taken now; nothing unless both are above zero."""

    records: int
    size_bytes: int


NO_ROOM: Final = Room(0, 0)


@dataclass(slots=True)
class _Use:
    records: int = 0
    size_bytes: int = 0


class Admission:
    """Counts the records of each topic that are polled and not yet finished, and their memory.

    Attributes:
        topics: all that have a bound.
        total_bytes: the most that all topics may hold together.
        paused: topics that get no room, whatever they hold; whoever watches the memory sets it.
    """

    def __init__(self, bounds: Mapping[str, Bound], *, total_bytes: int) -> None:
        self.topics = frozenset(bounds)
        self.total_bytes = total_bytes
        self.paused: frozenset[str] = frozenset()
        self._bounds = bounds
        self._used = {topic: _Use() for topic in bounds}
        self._own_bytes = total_bytes // (2 * len(bounds))
        self._shared_bytes = total_bytes - self._own_bytes * len(bounds)
        self._borrowed_bytes = 0  # what the topics hold beyond their own parts
        self._least = {topic: self._worth_a_poll(bound) for topic, bound in bounds.items()}

    def room(self, topic: str, *, beside_bytes: int = 0) -> Room:
        """Return how much of `topic` may be taken now; no room rather than too little for a poll.

        Args:
            topic: one that has a bound.
            beside_bytes: what was taken of other topics and is not charged yet.
        """
        if topic in self.paused:
            return NO_ROOM
        bound, used, least = self._bounds[topic], self._used[topic], self._least[topic]
        records = bound.max_records - used.records
        if records < least.records:
            return NO_ROOM
        size_bytes = self._left_bytes(bound, used, beside_bytes=beside_bytes)
        return NO_ROOM if size_bytes < least.size_bytes else Room(records, size_bytes)

    def crowded(self, topic: str) -> bool:
        """Tell whether `topic` holds an eighth of the memory or the records that it may.

        By default that is about as much as two cores do in a second. Of one tenant more would only
        wait here, and taking a request in costs more than setting it back. Few records are no crowd,
        unless they are three quarters of what there may be.
        """
        bound, used = self._bounds[topic], self._used[topic]
        few = min(LEAST_RECORDS, 3 * bound.max_records / 4)
        many = used.records >= max(bound.max_records / _CROWDED, few)
        return many or (_CROWDED - 1) * used.size_bytes >= self._left_bytes(bound, used)

    def capacity(self, topic: str) -> int:
        """Return how many records of `topic` may be in the process at once."""
        return self._bounds[topic].max_records

    def waiting(self, topic: str) -> int:
        """Return how many records of `topic` are in the process."""
        return self._used[topic].records

    def held_bytes(self, topic: str | None = None) -> int:
        """Return the weight of what is in the process, of `topic` or in all."""
        if topic is not None:
            return self._used[topic].size_bytes
        return sum(used.size_bytes for used in self._used.values())

    def take(self, topic: str, *, records: int, size_bytes: int) -> None:
        """Charge polled records to `topic`."""
        used = self._used[topic]
        used.records += records
        self._charge(used, size_bytes)

    def give_back(self, topic: str, *, records: int, size_bytes: int) -> None:
        """Release what `take` charged: the outcomes are durable or the assignment is over."""
        used = self._used[topic]
        used.records -= records
        self._charge(used, -size_bytes)
        if used.records < 0 or used.size_bytes < 0:
            raise InvariantError(
                f"giving back more of {topic} than was taken; this is a bug in cortex-stream"
            )

    def _left_bytes(self, bound: Bound, used: _Use, *, beside_bytes: int = 0) -> int:
        shared_bytes = self._shared_bytes - self._borrowed_bytes - beside_bytes
        own_bytes = self._own_bytes - used.size_bytes
        left_bytes = max(0, own_bytes) + max(0, shared_bytes)
        return min(left_bytes, bound.max_bytes - used.size_bytes)

    def _charge(self, used: _Use, size_bytes: int) -> None:
        own_bytes, before_bytes = self._own_bytes, used.size_bytes
        after_bytes = used.size_bytes = before_bytes + size_bytes
        if before_bytes > own_bytes:
            self._borrowed_bytes -= before_bytes - own_bytes
        if after_bytes > own_bytes:
            self._borrowed_bytes += after_bytes - own_bytes

    def _worth_a_poll(self, bound: Bound) -> Room:
        """Return the least room to poll for. An idle topic always has it."""
        own_bytes = min(bound.max_bytes, self._own_bytes)
        return Room(min(LEAST_RECORDS, bound.max_records), max(1, own_bytes // _LEAST_SHARE))
