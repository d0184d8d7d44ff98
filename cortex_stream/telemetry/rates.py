"""How much happens a second, and what the worst of it was, per key, over the last minute.

Invariants: `record` is O(1) amortised and allocates nothing for a known key; memory is one slot a
second and key. Keys must be few by construction (lanes, models): they are never forgotten.
Owner: the event loop's thread.
"""

from typing import Final

from cortex_stream.clock import Clock

_SLOT_S: Final = 1.0


class RateMeter:
    """Counts per key in slots of one second, in a ring of the last `window_s` seconds."""

    def __init__(self, *, clock: Clock, window_s: int = 60) -> None:
        self._clock = clock
        self._slots = window_s + 1  # the last one is the second that still runs
        self._started_s = clock.monotonic_s()
        self._rings: dict[str, _Ring] = {}

    def record(self, key: str, amount: float = 1.0) -> None:
        """Count `amount` of `key` now."""
        ring = self._rings.get(key)
        if ring is None:
            ring = self._rings[key] = _Ring(self._slots)
        ring.forward_to(int(self._clock.monotonic_s() / _SLOT_S))
        ring.counts[ring.slot % self._slots] += amount

    def rate_per_s(self, key: str, *, over_s: int = 10) -> float:
        """Return the mean rate over the last `over_s` seconds (capped at the window).

        A meter younger than that divides by its age, but at least by one second, so that a first
        event does not look like a burst.
        """
        whole = min(over_s, self._slots - 1)
        counts = self._counts(key, whole)
        now_s = self._clock.monotonic_s()
        covered_s = whole + now_s % _SLOT_S
        return sum(counts) / max(_SLOT_S, min(covered_s, now_s - self._started_s))

    def recent_per_s(self, key: str) -> tuple[float, ...]:
        """Return one rate for each completed second of the window, oldest first."""
        return self._counts(key, self._slots - 1)[:-1]

    def _counts(self, key: str, whole: int) -> tuple[float, ...]:
        """Return `whole` completed seconds and the running one, oldest first."""
        ring = self._rings.get(key)
        if ring is None:
            return (0.0,) * (whole + 1)
        now = int(self._clock.monotonic_s() / _SLOT_S)
        ring.forward_to(now)
        return tuple(ring.counts[slot % self._slots] for slot in range(now - whole, now + 1))


class PeakMeter:
    """Keeps the largest value per key and second, of the last `window_s` seconds."""

    def __init__(self, *, clock: Clock, window_s: int = 60) -> None:
        self._clock = clock
        self._slots = window_s + 1
        self._rings: dict[str, _Ring] = {}

    def record(self, key: str, value: float) -> None:
        """Remember `value`, not negative, of `key` if it is the largest of this second."""
        ring = self._rings.get(key)
        if ring is None:
            ring = self._rings[key] = _Ring(self._slots)
        ring.forward_to(int(self._clock.monotonic_s() / _SLOT_S))
        slot = ring.slot % self._slots
        ring.counts[slot] = max(ring.counts[slot], value)

    def largest(self, key: str) -> float:
        """Return the largest value of the window; 0 without any."""
        ring = self._rings.get(key)
        if ring is None:
            return 0.0
        ring.forward_to(int(self._clock.monotonic_s() / _SLOT_S))
        return max(ring.counts)


class _Ring:
    """One key's slots; `slot` is the number of the second that `counts` has reached."""

    __slots__ = ("counts", "slot")

    def __init__(self, slots: int) -> None:
        self.counts = [0.0] * slots
        self.slot = 0

    def forward_to(self, slot: int) -> None:
        """Empty the slots of the seconds since the last call; at most the whole ring."""
        slots = len(self.counts)
        for passed in range(max(self.slot + 1, slot - slots + 1), slot + 1):
            self.counts[passed % slots] = 0.0
        self.slot = max(self.slot, slot)
