"""When replays may run: in the time of runners that live rows do not need.

Runners that stand idle are not all to spare. What reads, answers and stores live requests uses the
same cores, and the next live row may come at any moment. So beside live rows replays begin only
while less than half of the runners are at work, and rest the longer, the more the live rows take. The
models of a process share its cores, so live rows of one make replays of another give way.

Owner: the event loop of the dispatchers.
"""

from math import inf
from typing import Final, Protocol

from cortex_stream.clock import Clock
from cortex_stream.telemetry.rates import RateMeter

QUIET_S: Final = 1.0
"""Where no live row has come for so long, replays may have every runner."""

_RESTS: Final = 2.0
_OVER_S: Final = 10


class Sharing(Protocol):
    """What the runners of one model are asked by those of another."""

    @property
    def busy(self) -> int:
        """How many runners are at work."""
        ...

    def give_way(self) -> bool:
        """Interrupt a run of replays; return False if there is none to interrupt."""
        ...

    def look_again(self) -> None:
        """See whether replays may run now."""
        ...


class SpareTime:
    """Follows what live rows take, and says what is left. One for all models of a process."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._live_came_s = -inf
        self._live_s = RateMeter(clock=clock)
        self._rests_until_s = -inf
        self._sharing: list[Sharing] = []

    def join(self, sharing: Sharing) -> None:
        """Share with one more model."""
        self._sharing.append(sharing)

    def live_came(self, model: Sharing, *, runs: int, runners: int) -> None:
        """Take note of live rows of `model`, and interrupt replays for them.

        For each of the `runs` that they will take, one: first the model's own, whose runners they
        need. Where half of the `runners` or less would be at work anyway, none.
        """
        self._live_came_s = self._clock.monotonic_s()
        busy = self._busy()
        for more in range(1, runs + 1):
            if 2 * (busy + more) > runners and not (model.give_way() or self._other_gives_way()):
                return

    def live_ran(self, spent_s: float) -> None:
        """Take note of a runner's time for a batch of live rows."""
        self._live_s.record("live", spent_s)
        self._look_again()

    def replay_ran(self, spent_s: float, *, runners: int) -> None:
        """Take note of a runner's time for replays, interrupted or not: they rest after it.

        For twice that time where live rows take half of the `runners`; for less where they take less.
        """
        live = min(self._live_s.rate_per_s("live", over_s=_OVER_S) / max(1, runners), 0.99)
        rest_s = spent_s * _RESTS * live / (1 - live)
        self._rests_until_s = max(self._rests_until_s, self._clock.monotonic_s() + rest_s)
        self._look_again()

    def rest_s(self) -> float:
        """Return for how long replays rest yet, in seconds; not above zero: they need not."""
        return min(self._rests_until_s, self._quiet_from_s()) - self._clock.monotonic_s()

    def may_replay(self, *, runners: int) -> bool:
        """Tell whether one of a model's `runners` may run a replay now."""
        quiet = self._clock.monotonic_s() >= self._quiet_from_s()
        return quiet or (2 * self._busy() < runners and self.rest_s() <= 0)

    def _quiet_from_s(self) -> float:
        return self._live_came_s + QUIET_S

    def _busy(self) -> int:
        return sum(each.busy for each in self._sharing)

    def _other_gives_way(self) -> bool:
        return any(each.give_way() for each in self._sharing)

    def _look_again(self) -> None:
        for each in self._sharing:
            each.look_again()
