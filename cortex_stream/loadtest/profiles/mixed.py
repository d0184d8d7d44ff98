"""A critical request while a backlog waits: what does urgency buy, and what does it cost?"""

from dataclasses import replace
from functools import partial
from itertools import product
from typing import Final

from cortex_stream.errors import OperatorError
from cortex_stream.loadtest.figures import (
    enough,
    lane_chart,
    lane_rows,
    load_row,
    method,
    resolved_goal,
    series,
    turn_ratios,
    turns_goal,
)
from cortex_stream.loadtest.report import Goal, Report
from cortex_stream.loadtest.series import per_second
from cortex_stream.loadtest.sides import (
    LOOP,
    OURS,
    TWO_TOPICS,
    Bench,
    Measured,
    Side,
    running,
    unavailable,
)
from cortex_stream.loadtest.traffic import Even, Kept, Traffic
from cortex_stream.loadtest.undisturbed import Undisturbed
from schemas.priority import Lane

_CRITICAL_PER_S: Final = 20.0
_LEAST_WAITING: Final = 2000
_WAITING: Final = 3000  # a bite of outcomes is read four times a second: 2,000 never go in one
_SAMPLES: Final = 1000
_TURNS: Final = 2
_REPEATS: Final = 4
_SETTLE_S: Final = 30.0  # the backlog at the end of the run is answered, too
_FILLED_S: Final = 3  # until the backlog stands
_WARM_S: Final = (
    20.0  # of the same load first: a broker that compiles itself takes its share of cores
)


async def measure_mixed(bench: Bench) -> Report:
    """Keep a low backlog and send critical requests, to us, to two topics, and to one queue.

    Raises:
        OperatorError: a worker of ours failed.
    """
    found: dict[str, dict[int, Measured]] = {}
    sides = (OURS, TWO_TOPICS, LOOP) if bench.peers else (OURS,)
    warming = replace(bench, seconds=min(_WARM_S, bench.seconds), say=lambda _: None)
    _ = await _run(warming, OURS, "warm", 1)
    undisturbed = Undisturbed(most_repeats=_REPEATS, say=bench.say)
    for turn, side in product(range(1, _TURNS + 1), filter(Side.available, sides)):
        try:
            measured = await undisturbed.run(partial(_run, bench, side, f"{turn}"))
            found.setdefault(side.title, {})[turn] = measured
        except OperatorError as error:
            if side is OURS:
                raise
            bench.say(f"{side.title}: {error}")  # a peer's failure is no failure of ours
    ours, two, loop = (found.get(side.title, {}) for side in (OURS, TWO_TOPICS, LOOP))
    named = {
        f"{title}, turn {turn}": each
        for title, turns in found.items()
        for turn, each in turns.items()
    }
    return Report(
        profile="mixed",
        question=(
            "How long does a critical request take while a low backlog waits, and how much"
            " throughput does that cost?"
        ),
        goals=[
            turns_goal(
                "critical p99 / two-topic loop's",
                turn_ratios(_critical_p99_ms, ours, two),
                "at most",
                0.65,
                enough(sum(map(_criticals, ours.values())), _SAMPLES),
            ),
            turns_goal(
                "answers per second / unprioritised loop's",
                turn_ratios(partial(_rate_per_s, bench), ours, loop),
                "at least",
                0.9,
                unavailable(sides),
            ),
            Goal(
                "least low backlog",
                float(min(_least_lag(bench, each) for each in ours.values())),
                "at least",
                _LEAST_WAITING,
            ),
            resolved_goal(*ours.values()),
        ],
        tables={
            "Latency, ms": [
                row for title, each in named.items() for row in lane_rows(title, "mixed", each)
            ],
            "Cost": [
                {
                    **load_row(title, "mixed", each),
                    "loaded, per s": _rate_per_s(bench, each),
                    "least backlog": _least_lag(bench, each),
                }
                for title, each in named.items()
            ],
        },
        method=method(
            bench,
            load=f"a low backlog kept near {_WAITING:,} paragraphs, {_CRITICAL_PER_S:g} critical"
            " ones per second at equal distances; the aiokafka loop gets both in one topic",
            turns=f"{_TURNS} of each side, one after the other; goals are the medians of the turns'"
            " ratios",
            repeats=undisturbed.method,
        ),
        series=series(named),
        charts={
            title: lane_chart(f"{title}: mixed load", next(iter(each.values())))
            for title, each in found.items()
        },
    )


async def _run(bench: Bench, side: Side, turn: str, number: int) -> Measured:
    traffics = [
        Traffic("backlog", Kept(_WAITING), lanes={Lane.LOW: 1}),
        Traffic("urgent", Even(_CRITICAL_PER_S), lanes={Lane.CRITICAL: 1}),
    ]
    async with running(bench, side) as found:
        measured = await found.run(
            traffics,
            name=f"mixed-{turn}-{number}",
            seconds=bench.seconds,
            settle_s=None if side is OURS else _SETTLE_S,
        )
    bench.say(
        f"{side.title:<15} critical p99 {_critical_p99_ms(measured) or 0:6.0f} ms"
        f"  {_rate_per_s(bench, measured):6.0f} answers/s"
    )
    return measured


def _critical_p99_ms(measured: Measured) -> float | None:
    latency = measured.ledger.latencies().get(Lane.CRITICAL)
    return None if latency is None else latency.p99_ms


def _criticals(measured: Measured) -> int:
    latency = measured.ledger.latencies().get(Lane.CRITICAL)
    return 0 if latency is None else latency.count


def _rate_per_s(bench: Bench, measured: Measured) -> float:
    """Return answers per second while the backlog stands."""
    return measured.results_per_s(begins_s=min(_FILLED_S, bench.seconds / 2), ends_s=bench.seconds)


def _least_lag(bench: Bench, measured: Measured) -> int:
    seconds = per_second(measured.ledger, measured.samples)
    standing = [each.lag for each in seconds if _FILLED_S <= each.second < bench.seconds - 1]
    return min(standing, default=0)
