"""Who holds more of a lane than its other tenants, so that their next requests wait outside. Pure.

A lane takes requests from its topic in the order of the log. The queues in memory are fair between
tenants, but only between requests that have got there: one tenant with a long backlog fills the
lane, and the others wait behind it in the log. So while a topic is crowded, requests of a tenant
that holds much more of its lane than the others are set back, to be read again later; and so are
those that lowered themselves to a lane that gets on more slowly.

A tenant counts for a while after its last request has ended: that none of it is in the process says
little about the log behind a flood.

Invariants: whoever enters leaves once; a tenant without requests is forgotten in the end.
Owner: the event loop that runs the engine; it holds no lock.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from cortex_stream.clock import Clock
from schemas.priority import Lane

MUCH: Final = 1.5
"""Times the mean of all tenants in the lane. Tenants with like backlogs are not told apart: they
are next to each other in the log, too, and setting them back would cost twice the intake."""

PART: Final = 128
"""Nor is a tenant set back that holds less than such a part of its lane, however many tenants there
are: a few requests are no flood, and would wait behind one."""

REMEMBERED_S: Final = 10.0
"""How long a tenant counts after its last request."""


class Crowding:
    """Weighs the requests of each lane and tenant in the process."""

    def __init__(self, is_crowded: Callable[[str], bool], *, clock: Clock) -> None:
        """Ask `is_crowded` whether a topic holds much of what it may."""
        self._is_crowded = is_crowded
        self._clock = clock
        self._held: dict[Lane, Counter[str]] = {lane: Counter() for lane in Lane}
        # Tenants without requests and when they had their last, the oldest first; in `_held` with 0.
        self._rested: dict[Lane, OrderedDict[str, float]] = {lane: OrderedDict() for lane in Lane}
        self._in_all: Counter[Lane] = Counter()  # bytes, as in `_held`

    @contextmanager
    def counted(self, lane: Lane, tenant: str, weight_bytes: int) -> Iterator[None]:
        """Count a request while it is in the process; it weighs something."""
        held, rested = self._held[lane], self._rested[lane]
        held[tenant] += weight_bytes
        rested.pop(tenant, None)
        self._in_all[lane] += weight_bytes
        try:
            yield
        finally:
            self._in_all[lane] -= weight_bytes
            held[tenant] -= weight_bytes
            if not held[tenant]:
                rested[tenant] = self._clock.monotonic_s()
                self._forget(lane)

    def must_wait(
        self, lane: Lane, tenant: str, *, topic: str, topic_lane: Lane | None = None
    ) -> bool:
        """Tell whether the next request of `tenant` in `lane` must leave the room to others.

        Its topic is crowded, and it belongs to another lane than the topic, or the tenant holds
        much more of the lane than the others, and a good part of it. Replays never must.
        """
        if lane is Lane.REPLAY or not self._is_crowded(topic):
            return False
        if topic_lane is not None and lane is not topic_lane:
            return True
        self._forget(lane)
        held, in_all = self._held[lane], self._in_all[lane]
        return held[tenant] * PART >= in_all and held[tenant] * len(held) > MUCH * in_all

    def _forget(self, lane: Lane) -> None:
        """Forget tenants that have rested for long."""
        held, rested = self._held[lane], self._rested[lane]
        before_s = self._clock.monotonic_s() - REMEMBERED_S
        while rested and next(iter(rested.values())) <= before_s:
            tenant, _ = rested.popitem(last=False)
            del held[tenant]
