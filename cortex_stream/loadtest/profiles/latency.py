"""How long an answer takes while the system is not full: an open loop, ours and other people's.

The sides take turns, and each turn begins with what the first of them can do just then: what slows
the machine for minutes slows them all alike, and a half stays a half.
"""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Final

from cortex_stream.errors import OperatorError
from cortex_stream.loadtest.figures import (
    lane_rows,
    load_row,
    median_of,
    method,
    resolved_goal,
    series,
    sides_chart,
    turn_ratios,
    turns_goal,
)
from cortex_stream.loadtest.latency import Latency
from cortex_stream.loadtest.profiles.capacity import burst_rate_per_s
from cortex_stream.loadtest.report import Goal, Report, Row
from cortex_stream.loadtest.sides import (
    LOOP,
    OURS,
    PEERS,
    Bench,
    Measured,
    Running,
    running,
    unavailable,
)
from cortex_stream.loadtest.traffic import Poisson, Traffic
from cortex_stream.loadtest.undisturbed import Undisturbed
from schemas.priority import Lane

_HALF: Final = "half"
_FIFTH: Final = "fifth"
_SHARES: Final = {_HALF: 0.5, _FIFTH: 0.2}
_FIGURES: Final[dict[str, Callable[[Latency], float]]] = {
    "p50": lambda latency: latency.p50_ms,
    "p95": lambda latency: latency.p95_ms,
    "p99": lambda latency: latency.p99_ms,
}
TURNS: Final = 3
_REPEATS: Final = 24  # as many as there are runs of ours and of the loop, twice
_SETTLE_S: Final = 5.0  # a peer that is too slow for the load is not waited for

Found = dict[tuple[str, str], dict[int, Measured]]
"""What was measured, by side and load; one of each turn in which the side did not fail."""


async def measure_latency(bench: Bench, *, turns: int = TURNS) -> Report:
    """Load each side to a half and a fifth of what the aiokafka loop can do; peers to a fifth.

    Where that loop cannot be started, of what we can do.

    Raises:
        OperatorError: a worker of ours failed.
    """
    sides = [side for side in (LOOP, OURS, *PEERS) if side is OURS or bench.peers]
    sides = [side for side in sides if side.available()]
    found: Found = {}
    failures: list[str] = []
    capacities: list[float] = []  # of each turn, in texts per second
    undisturbed = Undisturbed(most_repeats=_REPEATS, say=bench.say)
    for turn in range(1, turns + 1):
        for side in sides:
            try:
                async with running(bench, side) as started:
                    if len(capacities) < turn:
                        per_s = await burst_rate_per_s(started, bench, name=f"capacity-{turn}")
                        capacities.append(per_s)
                        bench.say(f"{side.title} does {per_s:.0f} texts/s")
                    for load in (_FIFTH,) if side in PEERS else _SHARES:
                        per_s = _SHARES[load] * capacities[-1]
                        measured = await undisturbed.run(
                            partial(_run, bench, started, f"{load}-{turn}", per_s)
                        )
                        found.setdefault((side.title, load), {})[turn] = measured
            except OperatorError as error:
                if side is OURS:
                    raise
                bench.say(f"{side.title}: {error}")  # a peer's failure is no failure of ours
                failures.append(f"{side.title} failed")
    named = {
        (title, f"{load}, turn {turn}"): each
        for (title, load), runs in found.items()
        for turn, each in runs.items()
    }
    note = "; ".join(
        filter(None, [unavailable(PEERS) if bench.peers else "", *dict.fromkeys(failures)])
    )
    return Report(
        profile="latency",
        question="How long does an answer take at half and at a fifth of what a plain loop can do?",
        goals=[
            turns_goal(
                "p50 at half / aiokafka loop's",
                _ratios("p50", found, LOOP.title, _HALF),
                "at most",
                0.5,
            ),
            turns_goal(
                "p99 at half / aiokafka loop's",
                _ratios("p99", found, LOOP.title, _HALF),
                "at most",
                0.8,
            ),
            _best_peer_goal(found, note),
            resolved_goal(*(each for load in _SHARES for each in found[OURS.title, load].values())),
        ],
        tables={
            "Medians of the turns, ms": _medians(found),
            "Latency, ms": [
                row for (title, load), each in named.items() for row in lane_rows(title, load, each)
            ],
            "Cost": [load_row(title, load, each) for (title, load), each in named.items()],
        },
        method=method(
            bench,
            load=f"open loop, Poisson, paragraphs in one lane; {_texts_per_s(capacities)} is what"
            f" {sides[0].title} does with a backlog at the beginning of the turns",
            turns=f"{turns} of every side, one after the other; goals are the medians of the turns'"
            " ratios",
            repeats=undisturbed.method,
        ),
        series=series({f"{title}, {load}": each for (title, load), each in named.items()}),
        charts={
            load: sides_chart(
                f"Latency at {share:.0%} of {_texts_per_s(capacities[:1])}, first turn",
                {title: runs[1] for (title, of), runs in found.items() if of == load and 1 in runs},
            )
            for load, share in _SHARES.items()
        },
    )


async def _run(bench: Bench, side: Running, name: str, per_s: float, number: int) -> Measured:
    measured = await side.run(
        [Traffic("steady", Poisson(per_s))],
        name=f"latency-{name}-{number}",
        seconds=bench.seconds,
        settle_s=None if side.side is OURS else _SETTLE_S,
    )
    if Lane.MEDIUM not in measured.ledger.latencies():
        raise OperatorError(f"measuring latency: {side.side.title} answered nothing")
    latency = _latency(measured)
    bench.say(
        f"{side.side.title:<15} {name:<8} p50 {latency.p50_ms:6.0f} ms  p99 {latency.p99_ms:6.0f} ms"
    )
    return measured


def _ratios(name: str, found: Found, other: str, load: str) -> list[float]:
    """Return the ratios of a figure of ours to that of another side, by turn."""
    ours, theirs = (found.get((side, load), {}) for side in (OURS.title, other))
    return turn_ratios(lambda each: _FIGURES[name](_latency(each)), ours, theirs)


def _best_peer_goal(found: Found, note: str) -> Goal:
    """Return the goal beside the peer that our ratio is largest to, of those that kept up."""
    ratios = {
        title: _ratios("p99", found, title, _FIFTH)
        for (title, load), runs in found.items()
        if load == _FIFTH and title != OURS.title
        if not any(each.ledger.missing() for each in runs.values())
    }
    best = max(
        (title for title in ratios if ratios[title]), key=lambda of: median(ratios[of]), default=""
    )
    return turns_goal(
        "p99 at a fifth / best peer's",
        ratios.get(best, []),
        "at most",
        1.0,
        "; ".join(filter(None, [best, note])),
    )


def _medians(found: Found) -> list[Row]:
    return [
        {
            "side": title,
            "load": load,
            "turns": len(runs),
            **{
                name: median_of(figure(_latency(each)) for each in runs.values())
                for name, figure in _FIGURES.items()
            },
        }
        for (title, load), runs in found.items()
    ]


def _texts_per_s(rates: Sequence[float]) -> str:
    return f"{', '.join(f'{rate:.0f}' for rate in rates)} texts/s"


def _latency(measured: Measured) -> Latency:
    return measured.ledger.latencies()[Lane.MEDIUM]
