"""A deadline that cannot move when the wall clock does."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """The moment after which nobody waits for the answer, on the monotonic clock of this process.

    Compared and sorted by that moment. To send it to another process, send `remaining_s` and let
    the receiver start it anew: monotonic clocks of two processes have nothing in common.
    """

    at_s: float

    def remaining_s(self, *, now_s: float) -> float:
        """Return the seconds left; negative once expired."""
        return self.at_s - now_s

    def expired(self, *, now_s: float) -> bool:
        """Tell whether the moment has passed."""
        return now_s >= self.at_s
