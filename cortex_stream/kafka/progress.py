"""Whether every partition gets on: who owes its next step, and since when. Pure.

Three steps can be owed for a partition. Kafka answers a fetch, unless records that it gave wait
here to be taken. The worker takes records while there is room for them. And it commits what is
finished. A step is made when its mark has changed: the time of the answer, the position, the
committed offset. So idle partitions, full lanes, paused lanes and records in flight owe nothing:
runs, deadlines and retries have bounds of their own. Three more steps belong to the process: an
outcome becomes durable, the loop that polls comes round, and the group hands out partitions.

Time is counted from look to look, and `MAX_STEP_S` at most for each: a process that was stopped for
a while, or a machine that slept, gets the time to catch up before anything is held against it.

Invariants:
    A step that is made more often than every quarter of `timeout_s` is never overdue, except an
    answer of Kafka's and an outcome, which are sooner.
    A step that stays owed is overdue at the first look after its time, whatever the others do.

Owner: whoever calls it; it holds no lock.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple, TypeAlias

MAX_STEP_S: Final = 2.0  # two looks: a busy event loop is late, a stopped process is much later
_NAMED_MOST: Final = 3  # partitions in one reason

At: TypeAlias = tuple[str, int]
"""Topic and partition."""


class Step(StrEnum):
    """What can be owed; the value says what is missing, for a person."""

    ANSWER = "Kafka has not answered a fetch"
    TAKE = "records wait and none was taken"
    COMMIT = "what is finished was not committed"
    OUTCOME = "an outcome could not be delivered to Kafka"
    TURN = "the loop that polls hangs"
    ASSIGN = "the group has not handed out partitions"


# Fetches are answered every 0.1 s, and outcomes confirmed in milliseconds. A rebalance may take 20 s.
NOTICE_S: Final[Mapping[Step, float]] = {
    Step.ANSWER: 5.0,
    Step.TAKE: 30.0,
    Step.COMMIT: 30.0,
    Step.OUTCOME: 10.0,
    Step.TURN: 30.0,
    Step.ASSIGN: 30.0,
}


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one assigned partition stands, in offsets. None: not known yet.

    Attributes:
        position: the next record to take.
        highwater: the next one a producer will write, as of the last answer.
        answered: changes with every answer of Kafka's about this partition.
        fetched: whether records wait in the client; Kafka is not asked for more meanwhile.
        room: whether records of its topic may be taken.
        finished: the offset to commit; None before the first record.
        committed: the offset committed last.
    """

    position: int | None
    highwater: int | None
    answered: int | None
    fetched: bool
    room: bool
    finished: int | None
    committed: int | None


class Overdue(NamedTuple):
    """A step that is owed for too long; `at` is None where it is not about one partition."""

    step: Step
    at: At | None
    for_s: float


_Debt: TypeAlias = tuple[Step, At | None]


class ProgressWatch:
    """Looks at all partitions of a process now and then.

    Args:
        timeout_s: whoever owes a step for so long will never make it.
    """

    def __init__(self, *, timeout_s: float) -> None:
        self._notice_s = {step: min(most, timeout_s / 4) for step, most in NOTICE_S.items()}
        self._owed: dict[_Debt, tuple[Hashable, float]] = {}
        self._looked_s: float | None = None
        self._lived_s = 0.0  # the time that counts

    def look(
        self,
        partitions: Mapping[At, Standing] | None,
        *,
        turns: int,
        oldest_outcome: Hashable | None,
        now_s: float,
    ) -> tuple[Overdue, ...]:
        """Return what is overdue, the longest first.

        Args:
            partitions: all that are assigned; None while the group hands them out.
            turns: how often the loop that polls came round.
            oldest_outcome: which outcome waits longest to be durable; None: none waits.
            now_s: on the monotonic clock.
        """
        if self._looked_s is not None:
            self._lived_s += min(now_s - self._looked_s, MAX_STEP_S)
        self._looked_s = now_s
        marks: dict[_Debt, Hashable] = {}
        kept: dict[_Debt, tuple[Hashable, float]] = {}
        if oldest_outcome is not None:
            marks[Step.OUTCOME, None] = oldest_outcome
        if partitions is None:
            marks[Step.ASSIGN, None] = None
            # What a partition owes it owes still if it comes back unchanged.
            kept = {debt: owed for debt, owed in self._owed.items() if debt[1] is not None}
        else:
            marks[Step.TURN, None] = turns
            for at, standing in partitions.items():
                marks.update({(step, at): mark for step, mark in _owed(standing)})
        self._owed = kept | {debt: self._since(debt, mark) for debt, mark in marks.items()}
        overdue = [
            Overdue(*debt, for_s)
            for debt in marks
            if (for_s := self._lived_s - self._owed[debt][1]) >= self._notice_s[debt[0]]
        ]
        return tuple(sorted(overdue, key=lambda each: -each.for_s))

    def _since(self, debt: _Debt, mark: Hashable) -> tuple[Hashable, float]:
        before = self._owed.get(debt)
        return before if before is not None and before[0] == mark else (mark, self._lived_s)


def reasons(overdue: Iterable[Overdue]) -> tuple[str, ...]:
    """Return one line for each kind of step, for a person, with the partitions and the time."""
    lines = []
    for step, group in groupby(sorted(overdue, key=attrgetter("step")), key=attrgetter("step")):
        every = list(group)
        names = [f"{each.at[0]}-{each.at[1]}" for each in every if each.at is not None]
        named = ", ".join(names[:_NAMED_MOST])
        if len(names) > _NAMED_MOST:
            named += f" and {len(names) - _NAMED_MOST} more"
        longest_s = max(each.for_s for each in every)
        lines.append(f"{step.value} for {longest_s:.0f} s" + (f" ({named})" if named else ""))
    return tuple(lines)


def _owed(standing: Standing) -> Iterator[tuple[Step, Hashable]]:
    """Yield the steps that are due for a partition, each with what changes once it is made."""
    if not standing.fetched:
        yield Step.ANSWER, standing.answered
    lags = (
        standing.position is not None
        and standing.highwater is not None
        and standing.highwater > standing.position
    )
    if lags and standing.room:
        yield Step.TAKE, standing.position
    if standing.finished not in {None, standing.committed}:
        yield Step.COMMIT, standing.committed
