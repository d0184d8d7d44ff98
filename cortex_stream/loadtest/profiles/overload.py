"""Three times what it can do, with deadlines: does it stay useful, and does it come back?"""

from math import inf
from typing import Final

from cortex_stream.loadtest.figures import (
    lane_chart,
    lane_rows,
    latency_row,
    load_row,
    method,
    rss_goal,
    series,
)
from cortex_stream.loadtest.latency import percentile
from cortex_stream.loadtest.profiles.capacity import burst_rate_per_s
from cortex_stream.loadtest.report import Goal, Report
from cortex_stream.loadtest.series import Second, per_second
from cortex_stream.loadtest.sides import OURS, Bench, running
from cortex_stream.loadtest.traffic import Even, Poisson, Traffic
from schemas.outcomes import OutcomeKind
from schemas.priority import Lane

_FACTOR: Final = 3.0
_DEADLINE_MS: Final = 2000
_PROBE_PER_S: Final = 20.0
_BEFORE_S: Final = 10.0
_AFTER_S: Final = 30.0
_NORMAL: Final = 2.0  # times the usual p99


async def measure_overload(bench: Bench) -> Report:
    """Overload a worker for `bench.seconds`, with a little steady load before, during and after.

    Raises:
        OperatorError: a worker failed.
    """
    ends_s = _BEFORE_S + bench.seconds
    async with running(bench, OURS, topics="ours-overloaded") as side:
        capacity_per_s = await burst_rate_per_s(side, bench, name="overload-capacity")
        bench.say(
            f"{capacity_per_s:.0f} texts/s; now {_FACTOR:g} times that for {bench.seconds:g} s"
        )
        measured = await side.run(
            [
                Traffic("probe", Even(_PROBE_PER_S), lanes={Lane.MEDIUM: 1}),
                Traffic(
                    "overload",
                    Poisson(_FACTOR * capacity_per_s),
                    lanes={Lane.LOW: 1},
                    deadlines_ms={_DEADLINE_MS: 1},
                    begins_s=_BEFORE_S,
                    ends_s=ends_s,
                ),
            ],
            name="overload",
            seconds=ends_s + _AFTER_S,
        )
    ledger = measured.ledger
    # The first second fills the queue, the deadline bounds what is answered after the end.
    filled_s = _BEFORE_S + min(1.0, bench.seconds / 2)
    goodput_per_s = measured.results_per_s(begins_s=filled_s, ends_s=ends_s, within_ms=_DEADLINE_MS)
    seconds = per_second(ledger, measured.samples)
    by_kind = {
        kind: ledger.latencies_by(lambda asked: asked.traffic, kinds=[kind]).get("overload")
        for kind in (OutcomeKind.RESULT, OutcomeKind.EXPIRED)
    }
    kinds = ledger.kinds()
    strange = ledger.sent_count - kinds[OutcomeKind.RESULT] - kinds[OutcomeKind.EXPIRED]
    return Report(
        profile="overload",
        question=f"What happens at {_FACTOR:g} times the capacity, and after it?",
        goals=[
            Goal(
                "results in time per second / capacity",
                goodput_per_s / capacity_per_s,
                "at least",
                0.8,
                f"{kinds[OutcomeKind.EXPIRED]:,} expired",
            ),
            Goal(
                "seconds until normal",
                normal_after_s(seconds, ends_s=ends_s),
                "at most",
                30,
                f"p99 of the steady load within {_NORMAL:g} times its usual one from then on",
            ),
            rss_goal(measured),
            Goal(
                "memory of the last third / second third",
                _growth(seconds, ends_s=ends_s),
                "at most",
                1.1,
            ),
            Goal("requests without exactly one result or expiry", float(strange), "at most", 0),
        ],
        tables={
            "Latency, ms": [
                *lane_rows(OURS.title, "overload", measured),
                *(
                    latency_row(OURS.title, "overload", f"ended as {kind.value}", latency)
                    for kind, latency in by_kind.items()
                ),
            ],
            "Cost": [load_row(OURS.title, "overload", measured)],
        },
        method=method(
            bench,
            load=f"{_PROBE_PER_S:g}/s medium throughout; from second {_BEFORE_S:g} to {ends_s:g} an"
            f" open loop, Poisson, low, {_FACTOR:g} x {capacity_per_s:.0f} texts/s with deadlinems"
            f" {_DEADLINE_MS}; capacity is the better of two backlogs just before",
        ),
        series=series({"overload": measured}),
        charts={"lanes": lane_chart(f"{_FACTOR:g} times the capacity", measured)},
    )


def normal_after_s(seconds: list[Second], *, ends_s: float) -> float | None:
    """Return how long after `ends_s` the steady load's p99 is as before, for good.

    Infinite: it is not as long as was looked. None: there is nothing to compare.
    """
    p99_ms = {
        each.second: each.latency[Lane.MEDIUM].p99_ms
        for each in seconds
        if Lane.MEDIUM in each.latency
    }
    before = sorted(ms for second, ms in p99_ms.items() if second < _BEFORE_S - 1)
    after = [second for second in p99_ms if second >= ends_s]
    if not before or not after:
        return None
    usual_ms = _NORMAL * percentile(before, 0.9)
    slow = [second for second in after if p99_ms[second] > usual_ms]
    if slow and slow[-1] >= after[-2 if len(after) > 1 else -1]:
        return inf
    return max(0.0, slow[-1] + 1 - ends_s) if slow else 0.0


def _growth(seconds: list[Second], *, ends_s: float) -> float | None:
    """Return the most memory in the last third of the overload over that in the second third."""
    third_s = (ends_s - _BEFORE_S) / 3
    peaks = [
        max(
            (
                each.rss_bytes
                for each in seconds
                if each.rss_bytes is not None and begins_s <= each.second < begins_s + third_s
            ),
            default=None,
        )
        for begins_s in (ends_s - 2 * third_s, ends_s - third_s)
    ]
    return peaks[1] / peaks[0] if peaks[0] and peaks[1] else None
