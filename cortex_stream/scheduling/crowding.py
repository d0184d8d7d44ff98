"""Who holds more of a lane than its other tenants, so that their next requests wait outside. Pure.

A lane takes requests from its topic in the order of the log. The queues in memory are fair between
tenants, but only between requests that have got there: one tenant with a long backlog fills the
lane, and the others wait behind it in the log. So while a lane is crowded, requests of a tenant
that holds much more of it than the others are set back, to be read again later.

A tenant counts for a while after its last request has ended: that none of it is in the process says
little about the log behind a flood.

Invariants: whoever enters leaves once; a tenant without requests is forgotten in the end.
Owner: the event loop that runs the engine; it holds no lock.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from cortex_stream.clock import Clock
from schemas.priority import Lane

MUCH: Final = 1.5
"""Times the mean of all tenants in the lane. Tenants with like backlogs are not told apart: they
are next to each other in the log, too, and setting them back would cost twice the intake."""


REMEMBERED_S: Final = 10.0
"""How long a tenant counts after its last request."""


class Crowding:
    """Counts the requests of each lane and tenant in the process."""

    def __init__(self, crowded_requests: Mapping[Lane, int], *, clock: Clock) -> None:
        """Call a lane crowded from so many requests on; one that is not named never is."""
        self._crowded_requests = crowded_requests
        self._clock = clock
        self._held: dict[Lane, Counter[str]] = {lane: Counter() for lane in Lane}
        # Tenants without requests and when they had their last, the oldest first; in `_held` with 0.
        self._rested: dict[Lane, OrderedDict[str, float]] = {lane: OrderedDict() for lane in Lane}
        self._in_all: Counter[Lane] = Counter()

    @contextmanager
    def counted(self, lane: Lane, tenant: str) -> Iterator[None]:
        """Count a request while it is in the process."""
        held, rested = self._held[lane], self._rested[lane]
        held[tenant] += 1
        rested.pop(tenant, None)
        self._in_all[lane] += 1
        try:
            yield
        finally:
            self._in_all[lane] -= 1
            held[tenant] -= 1
            if not held[tenant]:
                rested[tenant] = self._clock.monotonic_s()
                self._forget(lane)

    def too_many(self, lane: Lane, tenant: str) -> bool:
        """Tell whether `lane` is crowded and `tenant` holds much more of it than the others."""
        least = self._crowded_requests.get(lane)
        in_all = self._in_all[lane]
        if least is None or in_all < least:
            return False
        self._forget(lane)
        held = self._held[lane]
        return held[tenant] * len(held) > MUCH * in_all

    def _forget(self, lane: Lane) -> None:
        """Forget tenants that have rested for long."""
        held, rested = self._held[lane], self._rested[lane]
        before_s = self._clock.monotonic_s() - REMEMBERED_S
        while rested and next(iter(rested.values())) <= before_s:
            tenant, _ = rested.popitem(last=False)
            del held[tenant]
