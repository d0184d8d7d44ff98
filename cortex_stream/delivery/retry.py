"""What becomes of a request that met an error."""

from dataclasses import dataclass
from typing import Final

from cortex_stream.deadline import Deadline
from cortex_stream.errors import CortexError, Disposition
from schemas.outcomes import OutcomeKind

FIRST_DELAY_S: Final = 0.05
DELAY_FACTOR: Final = 1.5
"""0.05 s, then 0.075 s: enough for a device to recover, short against any deadline."""


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Run the stages once more, after a pause."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End the request with an outcome of this kind."""

    kind: OutcomeKind


@dataclass(frozen=True, slots=True)
class Leave:
    """Answer nothing and acknowledge nothing: this process cannot decide the request's fate."""


Fate = TryAgain | GiveUp | Leave


_ENDS: Final = {
    Disposition.REJECT: OutcomeKind.REJECTED,
    Disposition.EXPIRE: OutcomeKind.EXPIRED,
    Disposition.DEAD_LETTER: OutcomeKind.DEAD_LETTER,
}


def decide_fate(
    error: CortexError, *, attempt: int, max_attempts: int, deadline: Deadline | None, now_s: float
) -> Fate:
    """Return what follows on `error` in the `attempt`-th try, counted from 1.

    A retry that could only begin after the deadline is not made.
    """
    if error.disposition in _ENDS:
        return GiveUp(_ENDS[error.disposition])
    if error.disposition is Disposition.FATAL:
        return Leave()
    delay_s = FIRST_DELAY_S * DELAY_FACTOR ** (attempt - 1)
    in_time = deadline is None or not deadline.expired(now_s=now_s + delay_s)
    if attempt < max_attempts and in_time:
        return TryAgain(delay_s)
    return GiveUp(OutcomeKind.DEAD_LETTER)
