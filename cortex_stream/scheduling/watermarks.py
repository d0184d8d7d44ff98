"""What to do about the memory in use: shed the lowest lanes early, stop all intake late.

Bounds on admission are estimates; this looks at what the process really uses. While it is high, one
more lane is paused at each look, lowest first; a paused lane is not polled, so its requests wait in
Kafka. What is in the process goes on and makes memory free.

Invariants: pure. Lanes are shed from the lowest up and come back from the highest down, one a look;
none comes back before memory was low for `recovery_s`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas.priority import Lane

SHED_ORDER: Final = (Lane.REPLAY, Lane.LOW, Lane.MEDIUM, Lane.HIGH)
"""Critical requests and events are never shed; they stop only when all intake does."""

_RESERVE_SHARE: Final = 10


class MemoryState(StrEnum):
    """How the process stands with its memory."""

    NORMAL = "normal"  # every lane is open
    SHEDDING = "shedding"  # above warn: one more lane pauses at each look
    STOPPED = "stopped"  # above critical: nothing is taken in
    RECOVERING = "recovering"  # below warn: lanes come back one by one


@dataclass(frozen=True, slots=True)
class Watermarks:
    """Bytes in use from which something happens; `warn_bytes` <= `critical_bytes`."""

    warn_bytes: int
    critical_bytes: int


@dataclass(frozen=True, slots=True)
class Pressure:
    """Where the process stands.

    Attributes:
        shed: how many lanes of `SHED_ORDER` are paused.
        calm_since_s: since when memory is below warn, on the monotonic clock; None when it is not.
        idle_since_s: since when intake is stopped and nothing is in the process; None when not.
    """

    state: MemoryState = MemoryState.NORMAL
    shed: int = 0
    calm_since_s: float | None = None
    idle_since_s: float | None = None

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """The paused lanes, lowest first."""
        return (*SHED_ORDER, Lane.CRITICAL) if self.stopped else SHED_ORDER[: self.shed]

    @property
    def stopped(self) -> bool:
        """Whether nothing at all is taken in."""
        return self.state is MemoryState.STOPPED

    def hopeless(self, *, now_s: float, after_s: float) -> bool:
        """Tell whether memory stays used although nothing that could end has been using it."""
        return self.idle_since_s is not None and now_s - self.idle_since_s >= after_s


def decide_watermarks(
    limit_bytes: int, *, warn_ratio: float, critical_ratio: float, reserve_bytes: int
) -> Watermarks:
    """Return the marks below `limit_bytes`.

    Intake stops at `critical_ratio` of the limit, or while `reserve_bytes` are still left if that
    is earlier. In a small container the reserve counts as a tenth of it at most. With the defaults:
    512 MiB warns at 435 and stops at 461 MiB, 4 GiB at 3482 and 3840, 16 GiB at 13926 and 15565.
    """
    reserve_bytes = min(reserve_bytes, limit_bytes // _RESERVE_SHARE)
    critical_bytes = min(int(limit_bytes * critical_ratio), limit_bytes - reserve_bytes)
    return Watermarks(min(int(limit_bytes * warn_ratio), critical_bytes), critical_bytes)


def decide_pressure(
    before: Pressure,
    marks: Watermarks,
    *,
    used_bytes: int,
    idle: bool,
    now_s: float,
    recovery_s: float,
) -> Pressure:
    """Return where the process stands after a look at its memory; `idle`: no record is in it."""
    if used_bytes >= marks.critical_bytes:
        first_idle_s = now_s if before.idle_since_s is None else before.idle_since_s
        idle_since_s = first_idle_s if idle else None
        return Pressure(MemoryState.STOPPED, len(SHED_ORDER), idle_since_s=idle_since_s)
    if used_bytes >= marks.warn_bytes:
        return Pressure(MemoryState.SHEDDING, min(before.shed + 1, len(SHED_ORDER)))
    if before.shed == 0:
        return Pressure()
    calm_since_s = now_s if before.calm_since_s is None else before.calm_since_s
    left = before.shed - 1 if now_s - calm_since_s >= recovery_s else before.shed
    if left == 0:
        return Pressure()
    return Pressure(MemoryState.RECOVERING, left, calm_since_s)
