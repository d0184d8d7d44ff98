"""What becomes of a request that met an error. Pure.

A failure that may heal is answered by further attempts: two at once, for a device that was lost and
left others behind, then three after a while, for what takes longer. Each must be paid for by the
budget, so that an outage is not answered by a multiple of its traffic.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from cortex_stream.deadline import Deadline
from cortex_stream.errors import CortexError, Disposition
from cortex_stream.settings.sections import RetriesSettings
from schemas.outcomes import OutcomeKind

FIRST_DELAY_S: Final = 0.05
DELAY_FACTOR: Final = 1.5
"""0.05 s, then 0.075 s: enough for a device to recover, short against any deadline."""

MOST_SAVED: Final = 100.0
"""Retries that the budget may save up: a batch for each runner may fail at once."""
FREE_PER_S: Final = 0.2
"""Retries that need no traffic: enough for a system with one request in half a minute."""


@dataclass(frozen=True, slots=True)
class Tries:
    """How often a request was tried.

    Attributes:
        attempt: the present one, from 1, over all workers.
        retry: how often it has waited in a retry topic.
        first_failed_unix_ms: None as long as no attempt has failed.
    """

    attempt: int = 1
    retry: int = 0
    first_failed_unix_ms: int | None = None

    def failed(self, *, now_unix_ms: int) -> "Tries":
        """Return the same once the present attempt has failed."""
        if self.first_failed_unix_ms is not None:
            return self
        return replace(self, first_failed_unix_ms=now_unix_ms)

    def next(self) -> "Tries":
        """Return the same at the attempt after the present one."""
        return replace(self, attempt=self.attempt + 1)


FIRST_TRY: Final = Tries()


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Run the stages once more, after a pause."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Let the request wait in the topic of its `retry`-th retry, so that nothing waits for it."""

    retry: int
    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End the request with an outcome of this kind."""

    kind: OutcomeKind


@dataclass(frozen=True, slots=True)
class Leave:
    """Answer nothing and acknowledge nothing: this process cannot decide the request's fate."""


Fate = TryAgain | RetryLater | GiveUp | Leave


_ENDS: Final[Mapping[Disposition, GiveUp | Leave]] = {
    Disposition.REJECT: GiveUp(OutcomeKind.REJECTED),
    Disposition.EXPIRE: GiveUp(OutcomeKind.EXPIRED),
    Disposition.DEAD_LETTER: GiveUp(OutcomeKind.DEAD_LETTER),
    Disposition.RETRY: GiveUp(OutcomeKind.DEAD_LETTER),
    Disposition.FATAL: Leave(),
}


def decide_end(error: CortexError) -> GiveUp | Leave:
    """Return how a request ends that is not tried again after `error`."""
    return _ENDS[error.disposition]


def decide_fate(
    error: CortexError,
    tries: Tries,
    *,
    max_attempts: int,
    settings: RetriesSettings,
    deadline: Deadline | None,
    now_s: float,
    now_unix_ms: int,
) -> Fate:
    """Return what follows on `error` in the present attempt.

    A retry is due before the deadline and within `settings.within_s` of the first failure, or it is
    not made at all.

    Args:
        error: what the attempt ended with.
        tries: the attempts so far, the failed one included.
        max_attempts: at once, before the request waits for the first time.
        settings: how often and how long it then waits.
        deadline: after which nobody waits for the answer.
        now_s: on the clock of the deadline.
        now_unix_ms: on the clock of `tries`.
    """
    if error.disposition is not Disposition.RETRY:
        return decide_end(error)
    first_ms = now_unix_ms if tries.first_failed_unix_ms is None else tries.first_failed_unix_ms
    left_s = settings.within_s - max(0, now_unix_ms - first_ms) / 1000
    if deadline is not None:
        left_s = min(left_s, deadline.remaining_s(now_s=now_s))
    if tries.retry == 0 and tries.attempt < max_attempts:
        delay_s = FIRST_DELAY_S * DELAY_FACTOR ** (tries.attempt - 1)
        if delay_s < left_s:
            return TryAgain(delay_s)
    elif tries.retry < settings.most:
        delay_s = settings.first_delay_s * settings.factor**tries.retry
        if delay_s < left_s:
            return RetryLater(tries.retry + 1, delay_s)
    return decide_end(error)


class RetryBudget:
    """Bounds retries to a share of the traffic: a bucket of tokens, one for each retry.

    Every request pays a part of a token in; a few come by themselves, for a quiet system.

    Invariants: over any stretch of time there are no more retries than `MOST_SAVED`, `share` of the
    requests, and `FREE_PER_S` a second.

    Owner: the event loop that runs the engine; it holds no lock.
    """

    def __init__(self, *, share: float, now_s: float) -> None:
        """Begin with a full bucket."""
        self._share = share
        self._left = MOST_SAVED
        self._seen_s = now_s

    def earn(self) -> None:
        """Count a request, once, at its first attempt."""
        self._left = min(MOST_SAVED, self._left + self._share)

    def left(self, *, now_s: float) -> float:
        """Return how many retries could be paid now."""
        self._left = min(MOST_SAVED, self._left + FREE_PER_S * max(0.0, now_s - self._seen_s))
        self._seen_s = max(self._seen_s, now_s)
        return self._left

    def try_spend(self, *, now_s: float) -> bool:
        """Pay for one retry; return False where too little is left."""
        if self.left(now_s=now_s) < 1:
            return False
        self._left -= 1
        return True
