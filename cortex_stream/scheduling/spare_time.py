"""When replays may run: in the time of runners that live rows do not need.

Runners that stand idle are not all to spare. What reads, answers and stores live requests uses the
same cores, and the next live row may come at any moment. So beside live rows replays have less than
half of the runners, and rest the longer, the more the live rows take.

Owner: the event loop of the dispatcher.
"""

from math import inf
from typing import Final

from cortex_stream.clock import Clock
from cortex_stream.telemetry.rates import RateMeter

QUIET_S: Final = 1.0
"""Where no live row has come for so long, replays may have every runner."""

_RESTS: Final = 2.0
_OVER_S: Final = 10


class SpareTime:
    """Follows what live rows take, and says what is left."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._live_came_s = -inf
        self._live_s = RateMeter(clock=clock)
        self._rests_until_s = -inf

    def live_came(self) -> None:
        """Take note of live rows that begin to wait."""
        self._live_came_s = self._clock.monotonic_s()

    def live_ran(self, spent_s: float) -> None:
        """Take note of a runner's time for a batch of live rows."""
        self._live_s.record("live", spent_s)

    def replay_ran(self, spent_s: float, *, runners: int) -> None:
        """Take note of a runner's time for replays, interrupted or not: they rest after it.

        For twice that time where live rows take half of the `runners`; for less where they take less.
        """
        live = min(self._live_s.rate_per_s("live", over_s=_OVER_S) / max(1, runners), 0.99)
        rest_s = spent_s * _RESTS * live / (1 - live)
        self._rests_until_s = self._clock.monotonic_s() + rest_s

    def rest_s(self) -> float:
        """Return for how long replays rest yet, in seconds; not above zero: they need not."""
        return min(self._rests_until_s, self._quiet_from_s()) - self._clock.monotonic_s()

    def may_replay(self, *, busy: int, runners: int) -> bool:
        """Tell whether one of `runners`, of which `busy` are at work, may run a replay now."""
        quiet = self._clock.monotonic_s() >= self._quiet_from_s()
        return quiet or (2 * busy < runners and self.rest_s() <= 0)

    def _quiet_from_s(self) -> float:
        return self._live_came_s + QUIET_S


def must_give_way(*, busy: int, runners: int) -> bool:
    """Tell whether a replay must give way to a live row that comes now."""
    return 2 * (busy + 1) > runners
