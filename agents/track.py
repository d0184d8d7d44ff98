"""Which offsets may be committed although records finish out of order.

A partition's offset to commit is that of its first unfinished record. Gaps in the log (compaction,
transaction markers) need no special case: what was never delivered is never unfinished.

Invariants:
    A position never passes an unfinished record.
    A record gives its credit back exactly once: when it finishes, or when its track is abandoned.

Owner: the worker's event loop.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from cortex_stream.errors import OperatorError


class Partition(NamedTuple):
    """One partition of a topic; equal to the client libraries' tuples of the same two."""

    topic: str
    partition: int


class Credits(Protocol):
    """Bounds what is in the process, by topic."""

    def take(self, topic: str, *, records: int, size_bytes: int) -> None:
        """Charge polled records."""
        ...

    def give_back(self, topic: str, *, records: int, size_bytes: int) -> None:
        """Release what was charged."""
        ...


@dataclass(slots=True, eq=False)
class Track:
    """The records of one partition during one assignment.

    Attributes:
        ended: set once the assignment ends.
        in_order: held by whoever handles records that must take effect in their order; who waits
            for it gets it in the order of asking.
        unfinished: bytes of each unfinished record by its offset, in the order of the log.
        end: the offset after the last delivered record; None before the first.
    """

    at: Partition
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    in_order: asyncio.Lock = field(default_factory=asyncio.Lock)
    unfinished: dict[int, int] = field(default_factory=dict)
    end: int | None = None

    @property
    def open(self) -> bool:
        """Whether new work may start."""
        return not self.ended.is_set()

    @property
    def position(self) -> int | None:
        """The offset to commit, or None before the first record."""
        return next(iter(self.unfinished), self.end)

    async def ends_within(self, wait_s: float) -> bool:
        """Wait so long, or until the assignment ends; tell whether it has."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, wait_s)):
                _ = await self.ended.wait()
        return not self.open


class Tracks:
    """The tracks of everything that is assigned now.

    Attributes:
        on_room: told the topic whenever the credit of a finished record came back.
    """

    def __init__(self, credits_: Credits) -> None:
        self.on_room: Callable[[str], None] = _nobody_waits
        self._credits = credits_
        self._tracks: dict[Partition, Track] = {}

    def deliver(self, at: Partition, sizes_bytes: Iterable[tuple[int, int]]) -> Track:
        """Add polled records, as (offset, bytes) in the order of the log, and return their track.

        Raises:
            OperatorError: the log went back, so the topic was made anew under our feet.
        """
        track = self._tracks.get(at)
        if track is None:
            track = self._tracks[at] = Track(at)
        new = dict(sizes_bytes)
        first = next(iter(new))
        if track.end is not None and first < track.end:
            raise OperatorError(
                f"reading {at.topic}-{at.partition}: offset {first} came after {track.end - 1};"
                " was the topic deleted and created again?",
                repair="restart the worker: it goes on at the first record that is there",
            )
        track.unfinished.update(new)
        track.end = next(reversed(new)) + 1
        self._credits.take(at.topic, records=len(new), size_bytes=sum(new.values()))
        return track

    def finish(self, track: Track, offset: int) -> None:
        """Note that what the record asked for is durable. Harmless after `abandon`."""
        size_bytes = track.unfinished.pop(offset, None)
        if size_bytes is not None:
            topic = track.at.topic
            self._credits.give_back(topic, records=1, size_bytes=size_bytes)
            self.on_room(topic)

    def positions(self) -> dict[Partition, int]:
        """Return the offset to commit for each partition that delivered something."""
        return {
            at: track.position for at, track in self._tracks.items() if track.position is not None
        }

    def ends(self) -> dict[Partition, int]:
        """Return the offset after the last delivered record, for each partition that has one."""
        return {at: track.end for at, track in self._tracks.items() if track.end is not None}

    def close(self) -> None:
        """Let nothing new start. What runs may still finish, and counts for the last commit."""
        for track in self._tracks.values():
            track.ended.set()

    def abandon(self) -> None:
        """Forget the assignment: whatever is unfinished will be delivered to somebody again."""
        self.close()
        for at, track in self._tracks.items():
            sizes = track.unfinished
            self._credits.give_back(at.topic, records=len(sizes), size_bytes=sum(sizes.values()))
            sizes.clear()
        self._tracks.clear()


def _nobody_waits(_topic: str) -> None:
    """Do nothing."""
