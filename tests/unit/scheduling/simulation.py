"""Runs the queue and the batch former over a trace of arrivals, by a clock of its own.

A runner takes as long as the line says that int8 MiniLM was measured to take on one core.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count

from cortex_stream.deadline import Deadline
from cortex_stream.scheduling.batcher import BatchRule, form_batch, padded_tokens
from cortex_stream.scheduling.fair_queue import FairQueue, Row
from cortex_stream.scheduling.latency_model import LatencyModel
from schemas.priority import Lane

BASE_S = 0.0004
PER_TOKEN_S = 0.00009


@dataclass(frozen=True, slots=True, order=True)
class Arrival:
    at_s: float
    lane: Lane
    tenant: str
    length_tokens: int
    budget_s: float | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """One arrival's end; `done_s` is None when its deadline passed before it ran."""

    arrival: Arrival
    done_s: float | None
    batch_rows: int

    @property
    def latency_s(self) -> float:
        assert self.done_s is not None
        return self.done_s - self.arrival.at_s


def simulate(
    arrivals: Iterable[Arrival],
    *,
    runners: int = 2,
    rule: BatchRule,
    until_s: float,
    base_s: float = BASE_S,
    per_token_s: float = PER_TOKEN_S,
) -> list[Served]:
    """Serve `arrivals` until `until_s`; return what has ended by then."""
    queue: FairQueue[Arrival] = FairQueue(batch_tokens=rule.max_tokens)
    latency = LatencyModel()
    coming = sorted(arrivals)
    coming.reverse()
    order = count()
    running: list[tuple[float, int, list[Row[Arrival]]]] = []
    served: list[Served] = []
    now_s = 0.0
    while now_s < until_s:
        while coming and coming[-1].at_s <= now_s:
            queue.push(_row(coming.pop()))
        while len(running) < runners:
            batch = form_batch(queue, rule, now_s=now_s, latency=latency)
            served += [Served(row.payload, None, 0) for row in batch.late]
            if not batch.rows:
                if batch.late:
                    continue
                break
            tokens = padded_tokens(batch.rows)
            spent_s = base_s + per_token_s * tokens
            latency.observe(tokens, spent_s=spent_s)
            heapq.heappush(running, (now_s + spent_s, next(order), batch.rows))
        moments = [running[0][0]] if running else []
        moments += [coming[-1].at_s] if coming else []
        if not moments:
            break
        now_s = min(moments)
        while running and running[0][0] <= now_s:
            done_s, _, rows = heapq.heappop(running)
            served += [Served(row.payload, done_s, len(rows)) for row in rows]
    return served


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value below which `percent` of `values` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def _row(arrival: Arrival) -> Row[Arrival]:
    deadline = None if arrival.budget_s is None else Deadline(arrival.at_s + arrival.budget_s)
    return Row(arrival.lane, arrival.tenant, arrival.length_tokens, arrival.at_s, deadline, arrival)
