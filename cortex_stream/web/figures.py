"""Numbers as people read them, and numbers as small drawings. Pure."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final

from cortex_stream.web.status import PartitionStatus, ServiceState, StatusSnapshot

_THIN_SPACE: Final = "\u202f"  # no-break: a number never wraps
_UNKNOWN: Final = "\u2013"  # an en dash


def count(value: int | None) -> str:
    """Return `1 204 113`, or a dash for None."""
    return _UNKNOWN if value is None else f"{value:,}".replace(",", _THIN_SPACE)


def rate(per_s: float) -> str:
    """Return a rate with no more digits than matter: `0`, `<0.1`, `3.4`, `412`."""
    if per_s <= 0:
        return "0"
    if per_s < 0.05:  # noqa: PLR2004 (what would be rounded to 0.0)
        return "<0.1"
    return f"{per_s:.1f}" if per_s < 10 else count(round(per_s))  # noqa: PLR2004


def percent(share: float) -> str:
    """Return a share in [0, 1] as `12 %`; what is more than nothing is never shown as 0 %."""
    if 0 < share < 0.01:  # noqa: PLR2004
        return f"<1{_THIN_SPACE}%"
    return f"{share:.0%}".replace("%", f"{_THIN_SPACE}%")


def duration(seconds: float) -> str:
    """Return a duration in its two largest units: `85 ms`, `1.2 s`, `3 min 10 s`, `2 d 4 h`."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}{_THIN_SPACE}ms"
    if seconds < 10:  # noqa: PLR2004
        return f"{seconds:.1f}".removesuffix(".0") + f"{_THIN_SPACE}s"
    whole = int(seconds)
    parts = (
        (whole // 86400, "d"),
        (whole // 3600 % 24, "h"),
        (whole // 60 % 60, "min"),
        (whole % 60, "s"),
    )
    first = next(i for i, (amount, _) in enumerate(parts) if amount)
    return " ".join(f"{n}{_THIN_SPACE}{unit}" for n, unit in parts[first : first + 2] if n)


def mebibytes(size_bytes: int) -> str:
    """Return a size as `1 204 MiB`."""
    return f"{count(round(size_bytes / (1 << 20)))}{_THIN_SPACE}MiB"


def short_digest(digest: str) -> str:
    """Return the first 12 hex digits, as `docker images` shows them."""
    return digest.removeprefix("sha256:")[:12]


def sparkline(values: Sequence[float], *, width: int, height: int) -> str:
    """Return `x,y` points for an SVG polyline, scaled to the values' own peak.

    The line stays one unit inside the box so that its stroke is not cut. Fewer than two values
    have no line: the empty string.
    """
    if len(values) < 2:  # noqa: PLR2004
        return ""
    peak = max(values) or 1.0
    step = width / (len(values) - 1)
    return " ".join(
        f"{i * step:.1f},{height - 1 - value / peak * (height - 2):.1f}"
        for i, value in enumerate(values)
    )


def share(part: float, whole: float) -> float:
    """Return `part / whole` within [0, 1]; 0 when there is no whole."""
    return min(1.0, max(0.0, part / whole)) if whole > 0 else 0.0


def by_topic(
    partitions: Iterable[PartitionStatus],
) -> list[tuple[str, int | None, list[PartitionStatus]]]:
    """Return (topic, its known lag, its partitions), ordered; the lag is None if none is known."""
    ordered = sorted(partitions, key=lambda p: (p.topic, p.partition))
    groups = [(topic, list(group)) for topic, group in groupby(ordered, key=lambda p: p.topic)]
    return [(topic, _sum_known(p.lag for p in group), group) for topic, group in groups]


def headline(snapshot: StatusSnapshot) -> tuple[str, str]:
    """Return what is going on, in one short sentence and one quieter one."""
    running = sum(lane.running for lane in snapshot.lanes)
    waiting = sum(lane.waiting for lane in snapshot.lanes)
    match snapshot.service.state:
        case ServiceState.STARTING:
            return "Starting.", "Requests wait in Kafka until the worker is ready."
        case ServiceState.DRAINING:
            left = count(running + waiting)
            return "Finishing what runs.", f"Takes nothing new; {left} still to answer."
        case ServiceState.FAILING:
            return "Not taking work.", "Nothing is lost: requests wait in Kafka."
        case ServiceState.READY:
            return _ready(snapshot, running=running, waiting=waiting)


def _ready(snapshot: StatusSnapshot, *, running: int, waiting: int) -> tuple[str, str]:
    per_s = sum(lane.rate_per_s for lane in snapshot.lanes)
    if running + waiting == 0 and per_s == 0:
        return "Ready, and idle.", "Nothing is running and nothing waits."
    oldest_s = max(lane.oldest_wait_s for lane in snapshot.lanes)
    wait = f"the oldest for {duration(oldest_s)}" if waiting else "none for long"
    answer = f"Answering {rate(per_s)} requests a second." if per_s else "Working."
    return answer, f"{count(running)} running, {count(waiting)} waiting, {wait}."


def _sum_known(lags: Iterable[int | None]) -> int | None:
    known = [lag for lag in lags if lag is not None]
    return sum(known) if known else None
