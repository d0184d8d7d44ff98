"""What the report shows beside a verdict, and what two rules go by."""

from bisect import bisect_left
from collections.abc import Mapping

from tests.chaos.case import GIVEN_UP, REQUESTS, Case, before, committed
from tests.chaos.recovery import kills, recoveries_s, rss_ratios, standstills_s, throughput_ratio


def figures(case: Case, *, conflicting: int, past_unfinished: int) -> Mapping[str, float]:
    """Return what the report shows beside the verdict."""
    rss_ratio, rss_peak_ratio = rss_ratios(case) or (None, None)
    how_well = {
        "recovery_s": max((took_s for _, _, took_s in recoveries_s(case)), default=None),
        "rss_ratio": rss_ratio,
        "rss_peak_ratio": rss_peak_ratio,
        "throughput_ratio": throughput_ratio(case),
        "standstill_s": round(max(standstills_s(case).values(), default=0.0), 1),
    }
    again = redone(case)
    extra = sum(
        max(0, len(answers) - max(1, len(case.asked.get(outcome_id, []))))
        for outcome_id, answers in case.answers.items()
    )
    return {
        "records": sum(map(len, case.asked.values())),
        "outcomes": sum(map(len, case.answers.values())),
        "lost": sum(outcome_id not in case.answers for outcome_id in case.asked),
        "conflicting": conflicting,
        "past_unfinished": past_unfinished,
        "kills": kills(case),
        "repeated": extra,
        "may_repeat": sum(len(ids) for ids, _ in again.values()),
        "uncommitted_s": round(max((oldest for _, oldest in again.values()), default=0.0), 2),
        "critical_p99_ms": critical_p99_ms(case),
        "further_attempts": further_attempts(case),
        "connections_per_s": round(most_connections_per_s(case), 1),
        "given_up": sum(a[0].ending == GIVEN_UP for a in case.answers.values()),
        "snapshots": len(case.evidence.snapshots),
        "crashes": sum(d.what == "exit" and d.code != 0 for d in case.evidence.deeds),
        **{name: value for name, value in how_well.items() if value is not None},
    }


def redone(case: Case) -> Mapping[str, tuple[set[str], float]]:
    """Return for each snapshot the outcomes without a commit, and the age of the oldest, in s.

    The age is that of an outcome since the last snapshot: earlier ones wait to be done again.
    """
    found: dict[str, tuple[set[str], float]] = {}
    known: set[str] = set()
    for snapshot in case.evidence.snapshots:
        again_ids: set[str] = set()
        oldest_ms = 0
        for outcome_id, asked in case.asked.items():
            answers = [a for a in case.answers.get(outcome_id, []) if before(a.record, snapshot)]
            again = [each for each in asked if not committed(each.record, snapshot)]
            if answers and again:
                again_ids.add(outcome_id)
                if len(again) == len(asked) and outcome_id not in known:
                    oldest_ms = max(oldest_ms, snapshot.at_ms - answers[0].record.timestamp_ms)
        found[snapshot.label] = again_ids, oldest_ms / 1000
        known |= again_ids
    return found


def critical_p99_ms(case: Case) -> float:
    """Return the time from record to first outcome in the critical lane, once a worker was ready."""
    begin_ms = min((deed.at_ms for deed in case.evidence.deeds if deed.what == "heal"), default=0)
    took_ms = sorted(
        case.answers[outcome_id][0].record.timestamp_ms - each.record.timestamp_ms
        for outcome_id, asked in case.asked.items()
        if outcome_id in case.answers
        for each in asked[:1]
        if each.record.topic == REQUESTS[0] and each.record.timestamp_ms >= begin_ms
    )
    return float(took_ms[len(took_ms) * 99 // 100]) if took_ms else 0.0


def further_attempts(case: Case) -> int:
    """Return how often a request was tried again, at once or after a while."""
    tries = [all_[0].data.get("attempt", 1) for all_ in case.answers.values()]
    return sum(each - 1 for each in tries if each > 1)


def most_connections_per_s(case: Case) -> float:
    """Return the most connections to the proxy in a second, or between two looks if that is more."""
    probes = case.evidence.probes
    times_ms = [probe.at_ms for probe in probes]
    most = 0.0
    for at, probe in enumerate(probes):
        since = probes[min(bisect_left(times_ms, probe.at_ms - 1000), max(0, at - 1))]
        seconds = max(1.0, (probe.at_ms - since.at_ms) / 1000)
        most = max(most, (probe.connections - since.connections) / seconds)
    return most
