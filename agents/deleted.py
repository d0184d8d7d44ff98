"""Records that Kafka deleted before this group had read them: noticed, told and counted.

Kafka tells a reader nothing when retention was faster: the position is out of range, and the client
goes on where the log begins. So a position, or a first record, beyond the offset that was due shows
a gap, and Kafka is asked where its log begins: what lies before that was deleted. Other gaps are
transaction markers and what compaction took away.

Does not tell markers that were deleted, too, from records: of a topic with transactions, unread for
longer than it keeps, it may tell one too many. Until the next record of the partition comes, whoever
takes it over tells the same records again, since nothing was committed behind them.

Invariants:
    Delivery never waits for this, nor fails with it.
    One question is asked at a time, and one a second at most.

Owner: the worker's event loop.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from typing import Any, Final

import structlog

from agents.track import Partition
from cortex_stream.telemetry import metrics

Starts = Mapping[tuple[str, int], int]
"""Where the logs of partitions begin; those of which it could not be read are missing."""

LOOK_EVERY_S: Final = 1.0
_ASK_AGAIN_S: Final = 1.0
_MOST_GAPS: Final = 1_000  # that wait for Kafka's word: of retention there is one a partition

log = structlog.stdlib.get_logger(__name__)


class DeletedUnread:
    """Compares where the partitions that are assigned stand with where they should."""

    def __init__(
        self,
        read_starts: Callable[[Collection[Partition]], Awaitable[Starts]],
        start: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        """Ask Kafka by `read_starts`, in a task that `start` begins."""
        self._read_starts = read_starts
        self._start = start
        self._due: dict[Partition, int] = {}
        self._told: dict[Partition, int] = {}  # after the last record that was told as deleted
        self._gaps: list[tuple[Partition, range]] = []
        self._asking = False
        self._looked_s = 0.0

    def begin(self, assigned: Iterable[Partition], commits: Mapping[Partition, int]) -> None:
        """Begin an assignment: of what is not committed nothing is due."""
        for at in assigned:  # an alert sees no increase of a series that begins with its first one
            metrics.RECORDS_DELETED_UNREAD.labels(at.topic)
        self._due = dict(commits)

    def deliver(self, at: Partition, *, first: int, end: int) -> None:
        """Note what one poll took of a partition: from `first`, and nothing from `end` on."""
        due = self._due.get(at, first)
        self._due[at] = end
        if first > due:
            self._ask(at, range(due, first))

    def due_to_look(self, now_s: float) -> bool:
        """Tell, once a second at most, whether to `look`."""
        if now_s - self._looked_s < LOOK_EVERY_S:
            return False
        self._looked_s = now_s
        return True

    def look(self, positions: Iterable[tuple[Partition, int]]) -> None:
        """Compare positions. To be called between two polls, with all that was taken delivered."""
        for at, position in positions:
            self.deliver(at, first=position, end=position)

    def _ask(self, at: Partition, gap: range) -> None:
        if len(self._gaps) < _MOST_GAPS:
            self._gaps.append((at, gap))
        if not self._asking:
            self._asking = True
            self._start(self._ask_all())

    async def _ask_all(self) -> None:
        try:
            while self._gaps:
                starts = await self._starts({at for at, _ in self._gaps})
                gaps, self._gaps = self._gaps, []
                for at, gap in gaps:
                    if at in starts:
                        self._tell(at, gap, log_start=starts[at])
                    else:
                        self._gaps.append((at, gap))
                await asyncio.sleep(_ASK_AGAIN_S)
        finally:
            self._asking = False

    async def _starts(self, places: Collection[Partition]) -> Starts:
        try:
            return await self._read_starts(places)
        except Exception as error:  # noqa: BLE001 (whatever it is, it must not end the worker)
            log.warning("records.gap_not_looked_at", message=str(error) or type(error).__name__)
            return {}

    def _tell(self, at: Partition, gap: range, *, log_start: int) -> None:
        first = max(gap.start, self._told.get(at, 0))
        count = min(gap.stop, log_start) - first
        if count <= 0:
            return
        self._told[at] = first + count
        metrics.RECORDS_DELETED_UNREAD.labels(at.topic).inc(count)
        log.error(
            "records.deleted_unread",
            topic=at.topic,
            partition=at.partition,
            first=first,
            count=count,
            repair="have their producers send them again; keep records longer (retention.ms)",
        )
