"""Waiting rows in fair order: lanes by weight, in a lane its tenants alike, of a tenant by deadline.

The head of a batch is chosen by fairness alone: of the lanes with work the one that has used least
for its weight, of its tenants in turn one that has used least, of that tenant's rows the one with the
earliest deadline, then the oldest. Tokens are what is counted. The replay lane is served only when
no other has work, and keeps to itself.

Company is chosen by length, from any lane. It is charged to its own lane and tenant, and one that
is ahead of its share, or has ridden since its last turn, by half a batch (a tenant by two batches)
takes no more rides. So with batches of at most B tokens, over
any stretch of time in which two lanes have work:

- neither gets less than its share, by weight, of what both get, minus one batch of each;
- before a lane of weight w is served again, one of weight v gets at most B * v / w + B tokens.

The same holds for two tenants of a lane, with equal weights and four batches instead of one: with
less company, batches stay a third empty where a hundred tenants wait, and with less of a step in
which all are alike, whoever had one long text waits for all the others. (A row longer than B runs alone, and
its length stands for B then.)

A row costs O(log n) on its way: each structure below finds its first row by a heap.

Invariants: a row is in the queue exactly once; `len` counts rows; nothing but replays, and of one
tenant what its more urgent rows displace, waits for ever while `pop_head` is called.
Owner: whoever calls it; it holds no lock.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import islice
from math import inf
from typing import Final, Generic, TypeVar

from cortex_stream.deadline import Deadline
from cortex_stream.errors import InvariantError
from cortex_stream.scheduling.due_tokens import DueTokens
from cortex_stream.scheduling.fair_shares import FairShares
from cortex_stream.values import value
from schemas.priority import Lane

WEIGHTS: Final[dict[Lane, int]] = {Lane.CRITICAL: 8, Lane.HIGH: 4, Lane.MEDIUM: 2, Lane.LOW: 1}
"""The most urgent first: of lanes that have used alike, the first is served."""

RIDERS_TRIED: Final = 4
"""Tenants of one length that are asked to ride before a shorter length is tried, so that a search
among thousands of tenants that are all ahead of their share stays short."""

T = TypeVar("T")


@value(eq=False)
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


class _EarliestFirst(Generic[T]):
    """Rows of one tenant by deadline, then arrival.

    A row that was taken by another way is dropped when it comes to the top, or when the rows that
    are gone outnumber those that wait.
    """

    __slots__ = ("_heap", "_waiting", "count")

    def __init__(self, waiting: Mapping[Row[T], int]) -> None:
        """Hold rows of `waiting`, which knows the arrival of each that has not gone."""
        self._waiting = waiting
        self._heap: list[tuple[float, int, Row[T]]] = []
        self.count = 0
        """Rows that wait."""

    def add(self, row: Row[T], *, arrival: int) -> None:
        at_s = inf if row.deadline is None else row.deadline.at_s
        heappush(self._heap, (at_s, arrival, row))
        self.count += 1

    def first(self) -> Row[T]:
        """Return the first row; there must be one."""
        while not self._waits(self._heap[0]):
            heappop(self._heap)
        return self._heap[0][2]

    def removed_one(self) -> None:
        self.count -= 1
        if len(self._heap) > 2 * self.count + 8:
            self._heap = [entry for entry in self._heap if self._waits(entry)]
            heapify(self._heap)

    def _waits(self, entry: tuple[float, int, Row[T]]) -> bool:
        _, arrival, row = entry
        return self._waiting.get(row) == arrival  # a row may come back, with another arrival


@dataclass(slots=True)
class _LaneState(Generic[T]):
    """The rows of one lane, found by arrival, by tenant, and by length and tenant."""

    shares: FairShares[str]
    waiting: OrderedDict[Row[T], int] = field(default_factory=OrderedDict)
    tenants: dict[str, _EarliestFirst[T]] = field(default_factory=dict)  # none is empty
    # The tenants of a length take turns: whoever has ridden goes to the end. None is empty.
    by_length: dict[int, OrderedDict[str, _EarliestFirst[T]]] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)  # the keys of `by_length`, sorted
    tokens: dict[str, DueTokens] = field(default_factory=dict)  # of the same tenants

    def add(self, row: Row[T], *, arrival: int) -> None:
        self.waiting[row] = arrival
        if row.tenant not in self.tenants:
            self.tenants[row.tenant] = _EarliestFirst(self.waiting)
            self.tokens[row.tenant] = DueTokens()
            self.shares.join(row.tenant)
        self.tenants[row.tenant].add(row, arrival=arrival)
        self.tokens[row.tenant].add(row.length_tokens, row.deadline)
        if row.length_tokens not in self.by_length:
            self.by_length[row.length_tokens] = OrderedDict()
            insort(self.lengths, row.length_tokens)
        as_long = self.by_length[row.length_tokens]
        if row.tenant not in as_long:
            as_long[row.tenant] = _EarliestFirst(self.waiting)
        as_long[row.tenant].add(row, arrival=arrival)

    def remove(self, row: Row[T]) -> None:
        del self.waiting[row]
        self.tokens[row.tenant].remove(row.length_tokens, row.deadline)
        rows = self.tenants[row.tenant]
        rows.removed_one()
        if not rows.count:
            del self.tenants[row.tenant], self.tokens[row.tenant]
            self.shares.leave(row.tenant)
        as_long = self.by_length[row.length_tokens]
        as_long[row.tenant].removed_one()
        if as_long[row.tenant].count:
            as_long.move_to_end(row.tenant)
            return
        del as_long[row.tenant]
        if not as_long:
            del self.by_length[row.length_tokens]
            del self.lengths[bisect_left(self.lengths, row.length_tokens)]

    def head(self) -> Row[T]:
        """Return the row whose turn it is; one must wait."""
        tenant = self.shares.take_turn()
        if tenant is None:
            raise InvariantError("a lane with rows has no tenant with work; this is a bug")
        return self.tenants[tenant].first()

    def companion(
        self, lengths_tokens: range, *, whose_turn: str | None, ride_tokens: int
    ) -> Row[T] | None:
        """Return the longest row of such a length whose tenant has its turn or may ride, or None."""
        for index in range(bisect_left(self.lengths, lengths_tokens.stop) - 1, -1, -1):
            length = self.lengths[index]
            if length < lengths_tokens.start:
                return None
            for tenant, rows in islice(self.by_length[length].items(), RIDERS_TRIED):
                if tenant == whose_turn or self.shares.may_ride(tenant, most=ride_tokens):
                    return rows.first()
        return None


class FairQueue(Generic[T]):
    """Rows of all lanes, by fairness and by length at once."""

    def __init__(self, *, batch_tokens: int) -> None:
        """Serve batches of at most `batch_tokens`."""
        # A companion has half a batch at most, so a lane that rides ends up one batch ahead.
        self._lane_ride_tokens = batch_tokens // 2
        self._tenant_ride_tokens = 2 * batch_tokens
        self._lanes: dict[Lane, _LaneState[T]] = {
            lane: _LaneState(FairShares(quantum=batch_tokens)) for lane in Lane
        }
        self._shares: FairShares[Lane] = FairShares()
        self._ranks = {lane: rank for rank, lane in enumerate(WEIGHTS)}
        self._arrivals = 0
        self.with_deadline = 0
        """How many of the rows have a deadline."""

    def __len__(self) -> int:
        """Return how many rows wait."""
        return sum(len(state.waiting) for state in self._lanes.values())

    def push(self, row: Row[T]) -> None:
        """Add a row."""
        if row.lane in WEIGHTS and not self.depth(row.lane):
            self._shares.catch_up()  # ranks decide between lanes; company makes the batches cheap
            self._shares.join(row.lane, rank=self._ranks[row.lane])
        self._arrivals += 1
        self.with_deadline += row.deadline is not None
        self._lanes[row.lane].add(row, arrival=self._arrivals)

    def has(self, lane: Lane, *, tenant: str) -> bool:
        """Tell whether a row of this tenant waits in `lane`."""
        return tenant in self._lanes[lane].tenants

    def count(self, *, replays: bool) -> int:
        """Return how many rows wait; `replays` says whether those of the replay lane count."""
        return len(self) - (0 if replays else self.depth(Lane.REPLAY))

    def pop_head(self, *, replays: bool = True) -> Row[T] | None:
        """Remove and return the row whose turn it is, or None when none waits.

        A replay has its turn when nothing else waits, if `replays` allows it.
        """
        lane = self._shares.take_turn()
        if lane is None:
            if not replays or not self.depth(Lane.REPLAY):
                return None
            lane = Lane.REPLAY
        row = self._lanes[lane].head()
        self._remove(row)
        return row

    def pop_company(self, head: Row[T], *, min_length_tokens: int) -> Row[T] | None:
        """Remove and return a row to run with `head`, or None.

        It is no longer than `head`, and not shorter than `min_length_tokens`, which would be too
        much padding. The most urgent lane comes first, if it is the head's or may ride; of its
        rows the longest, and of equals the tenants take turns.
        """
        lengths_tokens = range(min_length_tokens, head.length_tokens + 1)
        for lane in WEIGHTS if head.lane in WEIGHTS else (head.lane,):
            own = lane is head.lane
            if not self.depth(lane) or not (own or self._may_ride(lane)):
                continue
            row = self._lanes[lane].companion(
                lengths_tokens,
                whose_turn=head.tenant if own else None,
                ride_tokens=self._tenant_ride_tokens,
            )
            if row is not None:
                self._remove(row)
                return row
        return None

    def charge(self, row: Row[T]) -> None:
        """Count what a popped head costs its lane and tenant. A row that does not run is free."""
        self._lanes[row.lane].shares.charge(row.tenant, row.length_tokens)
        if row.lane in WEIGHTS:
            self._shares.charge(row.lane, row.length_tokens / WEIGHTS[row.lane])

    def charge_company(self, row: Row[T], *, head: Row[T]) -> None:
        """Count what a popped companion of `head` costs its lane and tenant."""
        own_lane = row.lane is head.lane
        if own_lane and row.tenant == head.tenant:
            self.charge(row)
            return
        self._lanes[row.lane].shares.charge_ride(row.tenant, row.length_tokens)
        if row.lane in WEIGHTS:
            charge = self._shares.charge if own_lane else self._shares.charge_ride
            charge(row.lane, row.length_tokens / WEIGHTS[row.lane])

    def discard(self, row: Row[T]) -> bool:
        """Remove `row` wherever it waits; return False when it waits no more."""
        if row not in self._lanes[row.lane].waiting:
            return False
        self._remove(row)
        return True

    def depth(self, lane: Lane) -> int:
        """Return how many rows of `lane` wait."""
        return len(self._lanes[lane].waiting)

    def tokens_ahead(
        self,
        lane: Lane,
        *,
        tenant: str,
        deadline: Deadline,
        now_s: float,
        token_s: float,
        most: float,
    ) -> float:
        """Return about how many tokens of `lane` have their turn before a row that comes now.

        Of its tenant those that are due earlier, of each other tenant as many. They are not counted
        further than beyond `most`. `token_s`: seconds in which the lane is served one.
        """
        tenants = self._lanes[lane].tokens
        if tenant not in tenants:
            return 0.0
        own = tenants[tenant].before(deadline, now_s=now_s, token_s=token_s)
        ahead = own
        for name, each in tenants.items():
            if not 0 < ahead <= most:
                break
            if name != tenant:
                ahead += min(own, each.total)
        return ahead

    def oldest_s(self, lane: Lane) -> float | None:
        """Return when the longest-waiting row of `lane` was enqueued, or None."""
        state = self._lanes[lane]
        return next(iter(state.waiting)).enqueued_s if state.waiting else None

    def _remove(self, row: Row[T]) -> None:
        self._lanes[row.lane].remove(row)
        self.with_deadline -= row.deadline is not None
        if not self.depth(row.lane):
            self._shares.leave(row.lane)

    def _may_ride(self, lane: Lane) -> bool:
        self._shares.catch_up()
        return self._shares.may_ride(lane, most=self._lane_ride_tokens / WEIGHTS[lane])
