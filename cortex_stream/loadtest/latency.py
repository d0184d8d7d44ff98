"""Latencies in figures that can be believed: measured values, with how many there were."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from the produce time to the broker's append time of the outcome."""

    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


def summarise(latencies_ms: Iterable[float]) -> Latency | None:
    """Return the figures of some latencies, or None where there are none."""
    ascending = sorted(latencies_ms)
    if not ascending:
        return None
    return Latency(
        count=len(ascending),
        p50_ms=percentile(ascending, 0.50),
        p95_ms=percentile(ascending, 0.95),
        p99_ms=percentile(ascending, 0.99),
        p999_ms=percentile(ascending, 0.999),
        max_ms=ascending[-1],
    )


def percentile(ascending: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values do not exceed."""
    return ascending[max(ceil(share * len(ascending)) - 1, 0)]
