"""Who is next when some have used more than others: start-time fair queueing.

Everyone's use is counted in tokens per weight. Whoever has work and has used least is next, and
whoever comes back after a rest starts with what the least of the others has used: a rest saves
nothing up, and work done while nobody else wanted any is not held against anybody.

While two of them have work, their tokens per weight never differ by more than the largest charge
of each (Goyal, Vin and Cheng, "Start-Time Fair Queueing", 1996, theorem 1), and a quantum.

Within a quantum of use all are alike and take turns: else, of many who hardly use anything, whoever
had one long text waits with its next until all the others have caught up.

Whoever is not next may still ride in another's batch. Rides are charged, and they are rationed
until the rider's own turn has come: else a steady trickle of them would put that turn off for ever.

Owner: whoever calls it; it holds no lock.
"""

from collections.abc import Hashable
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

MOST_KNOWN: Final = 1000
"""Beside four times as many as have work."""


class FairShares(Generic[K]):
    """The use of each of many, in tokens per weight.

    Every operation costs O(log n) of those who are known, on average. Who rests is forgotten once
    the others have caught up, or the resting are many: each may then come back a charge or a quantum
    too soon.
    """

    def __init__(self, *, quantum: float = 0.0) -> None:
        """Tell use apart by steps of `quantum` tokens per weight; without one, to the token."""
        self._quantum = quantum
        self._used: dict[K, float] = {}
        self._working: set[K] = set()
        # One entry for each key of `_used`: its use in steps, its rank, when it came or last had its
        # turn. Use only grows, so an old entry stands too early and is put right when it comes to
        # the top.
        self._order: list[tuple[float, int, int, K]] = []
        self._ridden: dict[K, float] = {}  # since its last turn
        # The use of those who rest, within the step that is now the least: a short rest wins nothing.
        self._rested: dict[K, float] = {}
        self._turns = 0
        self._least = 0.0

    def __len__(self) -> int:
        """Return how many are known: those who have work, and those who rest."""
        return len(self._used)

    def join(self, key: K, *, rank: int = 0) -> None:
        """Count `key` among those who have work; of those alike the lowest `rank` is next.

        Those of one rank take turns.
        """
        self._working.add(key)
        if key in self._used:  # it rested for so short a time that the others have not caught up
            self._used[key] = max(self._used[key], self._least)
            return
        self._used[key] = max(self._least, self._rested.pop(key, 0.0))
        heappush(self._order, (self._least, rank, self._next_turn(), key))

    def leave(self, key: K) -> None:
        """Count `key` no more: it has no work."""
        self._working.discard(key)
        # Where everybody comes once, the others never catch up with anybody.
        if len(self._used) > MOST_KNOWN + 4 * len(self._working):
            self._used = {key: self._used[key] for key in self._working}
            self._ridden = {key: self._ridden[key] for key in self._working & self._ridden.keys()}
            self._order = [entry for entry in self._order if entry[3] in self._working]
            heapify(self._order)

    def take_turn(self) -> K | None:
        """Return who has work and has used least, or None when nobody has work."""
        self.catch_up()
        if not self._order:
            return None
        used, rank, _, key = self._order[0]
        heapreplace(self._order, (used, rank, self._next_turn(), key))
        _ = self._ridden.pop(key, None)
        return key

    def charge(self, key: K, tokens_per_weight: float) -> None:
        """Add what `key` has just used. One who left meanwhile pays too, and one forgotten not."""
        if key in self._used:
            self._used[key] += tokens_per_weight

    def charge_ride(self, key: K, tokens_per_weight: float) -> None:
        """Add what `key` has used as another's company."""
        self.charge(key, tokens_per_weight)
        self._ridden[key] = self._ridden.get(key, 0.0) + tokens_per_weight

    def may_ride(self, key: K, *, most: float) -> bool:
        """Tell whether `key` is ahead, and has ridden since its last turn, by `most` or less."""
        ahead = self._used[key] - self._least
        return ahead <= most and self._ridden.get(key, 0.0) <= most

    def catch_up(self) -> None:
        """Measure use from now on from whoever has work and has used least at this moment.

        Else it is measured from whose turn it was last, as it stood before that turn: whoever has
        just had a turn is then ahead of one who joins. So the one who joins is next even without a
        rank, and has little company.
        """
        while self._order:
            used, rank, turn, key = self._order[0]
            if (now_used := self._in_steps(key)) > used:
                heapreplace(self._order, (now_used, rank, turn, key))
                continue
            if used > self._least:
                self._least = used
                self._rested.clear()
            if key in self._working:
                return
            heappop(self._order)
            self._rest(key)

    def _rest(self, key: K) -> None:
        _ = self._ridden.pop(key, None)
        if len(self._rested) > MOST_KNOWN:
            self._rested.clear()
        if (used := self._used.pop(key)) > self._least:
            self._rested[key] = used

    def _in_steps(self, key: K) -> float:
        used = self._used[key]
        return used - used % self._quantum if self._quantum else used

    def _next_turn(self) -> int:
        self._turns += 1
        return self._turns
