"""The one reader of time: everything that needs the time takes a `Clock`."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings: one for durations, one for dates."""

    def monotonic_s(self) -> float:
        """Return seconds that never go backwards; only differences have a meaning."""
        ...

    def unix_ms(self) -> int:
        """Return milliseconds since 1970-01-01 UTC, as the machine believes; it may jump."""
        ...


class SystemClock:
    """The clock of this machine."""

    def monotonic_s(self) -> float:
        """Return seconds that never go backwards."""
        return time.monotonic()

    def unix_ms(self) -> int:
        """Return milliseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1_000_000


class ManualClock:
    """A clock for tests that stands still until told otherwise."""

    def __init__(self, *, monotonic_s: float = 1000.0, unix_ms: int = 1_700_000_000_000) -> None:
        self._monotonic_s = monotonic_s
        self._unix_ms = unix_ms

    def monotonic_s(self) -> float:
        """Return the seconds set so far."""
        return self._monotonic_s

    def unix_ms(self) -> int:
        """Return the milliseconds set so far."""
        return self._unix_ms

    def advance_s(self, seconds: float) -> None:
        """Move both readings forward."""
        self._monotonic_s += seconds
        self._unix_ms += round(seconds * 1000)
