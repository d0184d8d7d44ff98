"""Waiting rows in fair order: deficit round robin between lanes, arrival order within a lane.

Each visit gives a lane credit in tokens by its weight, and the lane serves rows until its credit
is used up. The replay lane is served only when no other lane has work, and keeps to itself.

Rows of another lane may ride along as company, on credit: up to what their lane's next visit
brings, less one token. So a visit always finds credit, and while every lane has work:

- each round serves the oldest row of every lane, so a row at the head of its lane waits for at
  most `QUANTUM_TOKENS` tokens per weight of each other lane, and one batch of each;
- the tokens per weight of two lanes never differ by more than three quanta.

(A lane whose own batches are larger than its visit's credit, as on a GPU, pays the debt off
first, and waits for as many rounds as the batch was worth.)

Source: Shreedhar and Varghese, "Efficient Fair Queuing Using Deficit Round Robin", 1995.

Invariants: a row is in the queue exactly once; `len` counts rows; nothing but replays waits for
ever while `pop_head` is called.
Owner: whoever calls it; it holds no lock.
"""

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from math import inf
from typing import Final, Generic, TypeVar

from cortex_stream.deadline import Deadline
from schemas.priority import Lane

WEIGHTS: Final[dict[Lane, int]] = {Lane.CRITICAL: 8, Lane.HIGH: 4, Lane.MEDIUM: 2, Lane.LOW: 1}

QUANTUM_TOKENS: Final = 512
"""Credit per weight and visit: low serves two full batches of 256 tokens when its turn comes."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Row(Generic[T]):
    """One input of a request, ready to run.

    Attributes:
        tenant: for whom; tenants share a lane equally.
        length_tokens: what it costs, and what it must be padded to alone.
        enqueued_s: when it began to wait, on the monotonic clock.
        payload: what the runner needs; opaque here.
    """

    lane: Lane
    tenant: str
    length_tokens: int
    enqueued_s: float
    deadline: Deadline | None
    payload: T

    def late_s(self, *, now_s: float) -> float:
        """Return the seconds since its deadline: negative before it, -inf without one."""
        return -inf if self.deadline is None else -self.deadline.remaining_s(now_s=now_s)


@dataclass(slots=True)
class _LaneState(Generic[T]):
    """The rows of one lane twice: all of them, and those of each length, both oldest first.

    So a row comes and goes at a cost that depends on how many lengths there are (a few hundred:
    a model has a longest input), not on how many rows wait.
    """

    waiting: OrderedDict[Row[T], None] = field(default_factory=OrderedDict)
    by_length: dict[int, OrderedDict[Row[T], None]] = field(default_factory=dict)  # none is empty
    lengths: list[int] = field(default_factory=list)  # the keys of `by_length`, sorted
    credit_tokens: int = 0

    def oldest(self) -> Row[T]:
        return next(iter(self.waiting))

    def add(self, row: Row[T]) -> None:
        self.waiting[row] = None
        if row.length_tokens not in self.by_length:
            self.by_length[row.length_tokens] = OrderedDict()
            insort(self.lengths, row.length_tokens)
        self.by_length[row.length_tokens][row] = None

    def remove(self, row: Row[T]) -> None:
        del self.waiting[row]
        as_long = self.by_length[row.length_tokens]
        del as_long[row]
        if not as_long:
            del self.by_length[row.length_tokens]
            del self.lengths[bisect_left(self.lengths, row.length_tokens)]

    def longest(self, *, within_tokens: int) -> Row[T] | None:
        """Return the longest row within `within_tokens`, of equals the oldest."""
        after = bisect_right(self.lengths, within_tokens)
        return next(iter(self.by_length[self.lengths[after - 1]])) if after else None


class FairQueue(Generic[T]):
    """Rows of all lanes, by fairness and by length at once.

    The head is chosen by fairness; its company by length, from the most urgent lane first.
    """

    def __init__(self) -> None:
        self._lanes: dict[Lane, _LaneState[T]] = {lane: _LaneState() for lane in Lane}
        self._round = deque(WEIGHTS)
        self._round.rotate(1)  # the first to be visited is the most urgent

    def __len__(self) -> int:
        """Return how many rows wait."""
        return sum(len(state.waiting) for state in self._lanes.values())

    def push(self, row: Row[T]) -> None:
        """Append a row to its lane."""
        self._lanes[row.lane].add(row)

    def pop_head(self) -> Row[T] | None:
        """Remove and return the row whose turn it is, or None when none waits."""
        lane = self._next_lane()
        if lane is None:
            return None
        row = self._lanes[lane].oldest()
        self._lanes[lane].remove(row)
        return row

    def pop_company(self, head: Row[T], *, min_length_tokens: int) -> Row[T] | None:
        """Remove and return a row to run with `head`, or None.

        It is no longer than `head`, and not shorter than `min_length_tokens`, which would be too
        much padding. The most urgent lane comes first, if it is the head's or has credit to ride
        on; of its rows that fit, the longest, and of equals the oldest.
        """
        for lane in WEIGHTS if head.lane in WEIGHTS else (head.lane,):
            row = self._lanes[lane].longest(within_tokens=head.length_tokens)
            if row is None or row.length_tokens < min_length_tokens:
                continue
            if lane is head.lane or self._may_ride(row):
                self._lanes[lane].remove(row)
                return row
        return None

    def charge(self, row: Row[T]) -> None:
        """Take what a popped row costs from its lane's credit. A row that does not run is free."""
        if row.lane in WEIGHTS:
            self._lanes[row.lane].credit_tokens -= row.length_tokens

    def discard(self, row: Row[T]) -> bool:
        """Remove `row` wherever it waits; return False when it waits no more."""
        state = self._lanes[row.lane]
        if row not in state.waiting:
            return False
        state.remove(row)
        return True

    def depth(self, lane: Lane) -> int:
        """Return how many rows of `lane` wait."""
        return len(self._lanes[lane].waiting)

    def oldest_s(self, lane: Lane) -> float | None:
        """Return when the longest-waiting row of `lane` was enqueued, or None."""
        state = self._lanes[lane]
        return state.oldest().enqueued_s if state.waiting else None

    def _next_lane(self) -> Lane | None:
        if not any(self.depth(lane) for lane in WEIGHTS):
            return Lane.REPLAY if self.depth(Lane.REPLAY) else None
        while True:  # ends: some lane has work, and every round adds to its credit
            lane = self._round[0]
            state = self._lanes[lane]
            if state.waiting and state.credit_tokens > 0:
                return lane
            if not state.waiting:
                state.credit_tokens = 0  # an idle lane saves nothing up
            self._round.rotate(-1)
            following = self._round[0]
            self._lanes[following].credit_tokens += WEIGHTS[following] * QUANTUM_TOKENS

    def _may_ride(self, row: Row[T]) -> bool:
        credit_tokens = self._lanes[row.lane].credit_tokens - row.length_tokens
        return credit_tokens + WEIGHTS[row.lane] * QUANTUM_TOKENS > 0
