"""Rules about shares and rates: whom a flood may hold up, and what an outage may cost others.

Shares no code with the worker.
"""

from bisect import bisect_left
from collections.abc import Iterator

from tests.chaos.case import REQUESTS, RETRIES, Case
from tests.chaos.figures import critical_p99_ms, further_attempts, most_connections_per_s

_CRITICAL_MS = 1000
_LOW = REQUESTS[3]
_WINDOW_MS = 2000
_TELLING = 20  # with fewer outcomes in a window, 5 % is less than one
_LEAST_LOW_SHARE = 0.05
_RETRY_SHARE = 0.2
_RETRIES_SAVED = 100
_FREE_RETRIES_PER_S = 0.2
_MOST_CONNECTIONS_PER_S = 100


def urgent_requests_are_quick(case: Case) -> Iterator[str]:
    """I6: critical requests are answered within their second."""
    if (p99_ms := critical_p99_ms(case)) > _CRITICAL_MS:
        yield f"critical p99 {p99_ms:.0f} ms"


def low_requests_get_on(case: Case) -> Iterator[str]:
    """I6, too: while a low request waits, one first outcome in twenty is of a low one.

    Judged in windows of 2 s through all of which one and the same low request waited.
    """
    all_ms: list[int] = []
    low_ms: list[int] = []
    waits: list[tuple[int, int]] = []
    for outcome_id, asked in case.asked.items():
        if outcome_id in case.answers:
            record, at_ms = asked[0].record, case.answers[outcome_id][0].record.timestamp_ms
            all_ms.append(at_ms)
            if record.topic == _LOW:
                low_ms.append(at_ms)
                waits.append((record.timestamp_ms, at_ms))
    all_ms.sort()
    low_ms.sort()
    ready_ms = (deed.at_ms for deed in case.evidence.deeds if deed.what == "heal")
    begin_ms = min(ready_ms, default=min(all_ms, default=0))
    for from_ms in range(begin_ms, max(all_ms, default=0) - _WINDOW_MS, _WINDOW_MS):
        to_ms = from_ms + _WINDOW_MS
        if any(asked_ms <= from_ms and answered_ms >= to_ms for asked_ms, answered_ms in waits):
            total, low = _between(all_ms, from_ms, to_ms), _between(low_ms, from_ms, to_ms)
            if total >= _TELLING and low < _LEAST_LOW_SHARE * total:
                after_s = (from_ms - begin_ms) / 1000
                yield f"{low} of {total} outcomes were low, {after_s:.0f} s after the begin"


def retries_are_few_and_not_early(case: Case) -> Iterator[str]:
    """Of a model that is down, with one worker: further attempts are a fifth of the requests.

    A worker may have saved some up. None is made before it is due.
    """
    further = further_attempts(case)
    requests = sum(map(len, case.asked.values()))
    at_ms = [probe.at_ms for probe in case.evidence.probes]
    lasted_s = (max(at_ms, default=0) - min(at_ms, default=0)) / 1000
    bound = _RETRIES_SAVED + _RETRY_SHARE * requests + _FREE_RETRIES_PER_S * lasted_s
    if not any(case.evidence.of(*RETRIES)):
        yield "nothing waited for a retry, so nothing has been shown"
    if further > bound:
        yield f"{further} further attempts at {requests} requests, {bound:.0f} at most"
    for origin, hand_overs in case.handed.items():
        outcome_id = case.id_at[origin]
        if len(case.asked[outcome_id]) > 1:  # the answer may be that to the other record
            continue
        for answer in case.answers.get(outcome_id, []):
            due = [each.due_ms for each in hand_overs if each.attempt <= answer.data["attempt"]]
            early_ms = max((at for at in due if at), default=0) - answer.record.timestamp_ms
            if early_ms > 0:
                yield f"{origin}: tried again {early_ms} ms before it was due"


def connections_are_few(case: Case) -> Iterator[str]:
    """Of a broker that comes and goes: so many connections a second at most, those refused too."""
    if (per_s := most_connections_per_s(case)) > _MOST_CONNECTIONS_PER_S:
        yield f"{per_s:.1f} connections a second"


def _between(sorted_ms: list[int], from_ms: int, to_ms: int) -> int:
    return bisect_left(sorted_ms, to_ms) - bisect_left(sorted_ms, from_ms)
