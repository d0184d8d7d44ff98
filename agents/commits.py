"""What one assignment commits: where to go on, and how far records may have begun.

Invariants:
    No record begins before a commit says that it may have.
    Whoever leaves its partitions in order says so; whoever ends in any other way cannot.

Owner: the worker's event loop.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

from agents.suspects import Suspects
from agents.track import Partition, Tracks
from cortex_stream.delivery.attempts import Mark, mark_begun, mark_left, read_mark
from cortex_stream.kafka.commits import (
    Commit,
    Membership,
    Place,
    read_commits,
    read_ends,
    read_membership,
    seek_to,
    try_commit,
)

Marked = dict[Partition, Mark]
Beside = Callable[..., Awaitable[Any]]
"""Calls something of `cortex_stream.kafka.commits` beside the consumer, its first argument."""
_MOST_READS: Final = 10
_READ_AGAIN_S: Final = 0.2


class Commits:
    """The commits of the partitions that are assigned now."""

    def __init__(self, tracks: Tracks, beside: Beside) -> None:
        self._tracks = tracks
        self._beside = beside
        self._suspects = Suspects({})
        self._marks: Marked = {}
        self._known: dict[Place, int] = {}  # what this process has read or committed, whenever
        self._begun: dict[Partition, int] = {}  # after the last record, as of the last commit
        self._member: Membership | None = None  # before the first assignment
        self._one_by_one = asyncio.Lock()

    async def take_over(self, assigned: Iterable[Place]) -> dict[Partition, range]:
        """Begin an assignment; return the offsets of what may have ended the last owner."""
        async with self._one_by_one:  # a commit of the last assignment ends with that
            self._marks = {}  # who leaves before it is known what was found says nothing about it
            self._begun = {}
            self._member = await self._beside(read_membership)
        commits = await self._read([(topic, partition) for topic, partition in assigned])
        await self._beside(seek_to, {at: offset for at, (offset, _) in commits.items()})
        marks = {Partition(*at): read_mark(*commit) for at, commit in commits.items()}
        suspects = {at: mark.suspects for at, mark in marks.items() if mark.suspects}
        ends: dict[Place, int] = {}
        if suspects:
            ends = await self._beside(read_ends, list(suspects))
        self._marks = marks
        # What came after the end has not begun.
        return {
            at: range(offsets.start, min(offsets.stop, ends.get(at, offsets.stop)))
            for at, offsets in suspects.items()
        }

    async def _read(self, places: list[Place]) -> dict[Place, Commit]:
        """Read the commits; again, for two seconds, while they are fewer than is known.

        A coordinator that has just come back may tell older ones, or none. After that they are taken
        for what they are: somebody may have set the group back.
        """
        known = {at: self._known[at] for at in places if at in self._known}
        reads_left = _MOST_READS
        while True:
            commits: dict[Place, Commit] = await self._beside(read_commits, places)
            reads_left -= 1
            told = all(at in commits and commits[at][0] >= offset for at, offset in known.items())
            if told or not reads_left:
                break
            await asyncio.sleep(_READ_AGAIN_S)
        self._known.update((at, offset) for at, (offset, _) in commits.items())
        return commits

    def begin(self, suspects: Suspects) -> None:
        """Know the suspects of the assignment: their partitions are not in order without them."""
        self._suspects = suspects

    def offset(self, at: Partition) -> int | None:
        """Return the committed offset of a partition, None before its first commit."""
        mark = self._marks.get(at)
        return None if mark is None else mark.offset

    def offsets(self) -> dict[Partition, int]:
        """Return the committed offset of each partition that has one."""
        return {at: mark.offset for at, mark in self._marks.items()}

    async def may_begin(self, polled: Mapping[Partition, range]) -> bool:
        """See that a commit says that the offsets `polled` may have begun.

        Returns False if it is too late: the assignment has ended.
        """
        if all(
            at in self._marks and offsets.stop <= (self._marks[at].until or 0)
            for at, offsets in polled.items()
        ):
            return True
        return await self._commit(lambda: self._ahead(polled))

    async def go_on(self) -> bool:
        """Commit how far the partitions have got; tell whether there was anything to commit."""
        return await self._commit(self._moved)

    async def leave(self) -> bool:
        """Commit for the last time: all that had begun is finished, or will begin anew."""
        return await self._commit(self._left)

    async def _commit(self, choose: Callable[[], Marked]) -> bool:
        async with self._one_by_one:
            marks = choose()
            for at in self._marks.keys() & marks.keys():
                # It may say less than the commit before: what only that one covers waits.
                until = min(self._marks[at].until or 0, marks[at].until or 0) or None
                self._marks[at] = self._marks[at]._replace(until=until)
            commits = {at: (mark.offset, mark.metadata) for at, mark in marks.items()}
            committed = bool(marks) and await self._beside(try_commit, self._member, commits)
            if committed:
                self._marks.update(marks)
                self._known.update(
                    ((at.topic, at.partition), mark.offset) for at, mark in marks.items()
                )
            return committed

    def _ahead(self, polled: Mapping[Partition, range]) -> Marked:
        positions = self._tracks.positions()
        return {
            at: self._going_on(at, positions.get(at, offsets.start), begun=offsets.stop)
            for at, offsets in polled.items()
        }

    def _moved(self) -> Marked:
        ends = self._tracks.ends()
        return {
            at: self._going_on(at, offset, begun=ends[at])
            for at, offset in self._tracks.positions().items()
            if offset != self.offset(at)
        }

    def _going_on(self, at: Partition, offset: int, *, begun: int) -> Mark:
        before = self._begun.get(at, begun)
        self._begun[at] = begun
        return mark_begun(offset, before=before, begun=begun, suspects=self._suspects.of(at))

    def _left(self) -> Marked:
        positions = self._tracks.positions()
        marks = {
            at: mark_left(positions.get(at, mark.offset), suspects=self._suspects.of(at))
            for at, mark in self._marks.items()
        }
        return {at: mark for at, mark in marks.items() if mark != self._marks[at]}
