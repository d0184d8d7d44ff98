"""Floods: one lane takes all it can get, and one tenant does. What is left for the others?"""

from typing import Final

from cortex_stream.loadtest.figures import (
    enough,
    lane_chart,
    lane_rows,
    latency_row,
    load_row,
    method,
    series,
)
from cortex_stream.loadtest.latency import Latency
from cortex_stream.loadtest.profiles.capacity import burst_rate_per_s, open_loop_rate_per_s
from cortex_stream.loadtest.report import Goal, Report
from cortex_stream.loadtest.sides import OURS, Bench, Measured, running
from cortex_stream.loadtest.traffic import Even, Kept, Poisson, Traffic
from schemas.outcomes import OutcomeKind
from schemas.priority import Lane

_WAITING: Final = 3000
_TRICKLE_PER_S: Final = 10.0
_OTHERS: Final = 99
_OTHERS_SHARE: Final = 0.5  # of an open loop's capacity, all together
_FLOOD_FACTOR: Final = 10.0
_SAMPLES: Final = 5000
_TENANTS_FOR: Final = 2.0  # times as long as the lanes: for the samples
_WITHOUT: Final = "without"
_AGAIN: Final = "without again"
_WITH: Final = "with a flood"


async def measure_flood(bench: Bench) -> Report:
    """Flood the critical lane, then let one of 100 tenants flood the rest.

    Raises:
        OperatorError: a worker failed.
    """
    async with running(bench, OURS, topics="ours-flooded") as side:
        lanes = await side.run(
            [
                Traffic("flood", Kept(_WAITING), lanes={Lane.CRITICAL: 1}),
                Traffic("low", Kept(_WAITING), lanes={Lane.LOW: 1}),
                *(
                    Traffic(lane.value, Even(_TRICKLE_PER_S), lanes={lane: 1})
                    for lane in (Lane.HIGH, Lane.MEDIUM)
                ),
            ],
            name="flood-lanes",
            seconds=bench.seconds,
        )
    low_share = _share(bench, lanes, Lane.LOW)
    bench.say(f"critical flood: low keeps {low_share:.1%}")
    tenants: dict[str, Measured] = {}
    async with running(bench, OURS, topics="ours-tenants") as side:
        burst_per_s = await burst_rate_per_s(side, bench, name="flood-capacity")
        capacity_per_s = await open_loop_rate_per_s(
            side, bench, name="flood-open-loop", burst_per_s=burst_per_s
        )
        bench.say(f"{burst_per_s:.0f} texts/s of a backlog, {capacity_per_s:.0f} in an open loop")
        for run in (_WITHOUT, _AGAIN, _WITH):  # the flood is last: what it leaves disturbs nobody
            tenants[run] = await side.run(
                _tenants(capacity_per_s, flooded=run == _WITH),
                name=f"flood-{run.replace(' ', '-')}",
                seconds=_TENANTS_FOR * bench.seconds,
                awaited=["others"],
            )
            bench.say(f"{run:<14} p99 of the others {_p99_ms(tenants[run]) or 0:6.0f} ms")
    others = {run: _others(each) for run, each in tenants.items()}
    alone_ms, again_ms, flooded_ms = (_p99_ms(each) for each in tenants.values())
    flooded = others[_WITH]
    samples = enough(0 if flooded is None else flooded.count, _SAMPLES)
    return Report(
        profile="flood",
        question="What do the others keep when a lane is flooded, and when a tenant floods?",
        goals=[
            Goal("share of low under a critical flood", low_share, "at least", 0.05),
            Goal(
                "p99 of 99 tenants with a flood / without",
                flooded_ms / alone_ms if flooded_ms and alone_ms else None,
                "at most",
                2.0,
                f"{samples}; A/A {again_ms / alone_ms:.2f}" if again_ms and alone_ms else samples,
            ),
            Goal(
                "requests of the 99 without exactly one result",
                float(sum(_unresolved_others(each) for each in tenants.values())),
                "at most",
                0,
            ),
        ],
        tables={
            "Lanes under a critical flood, ms": lane_rows(OURS.title, "critical flood", lanes),
            "Share of the results while it lasts": [
                {"lane": lane.value, "share": _share(bench, lanes, lane)}
                for lane in lanes.ledger.latencies()
            ],
            "Tenants, ms": [
                latency_row(OURS.title, run, "99 tenants", latency)
                for run, latency in others.items()
            ]
            + [latency_row(OURS.title, _WITH, "the flooding one", _flooding(tenants[_WITH]))],
            "Cost": [
                load_row(OURS.title, "critical flood", lanes),
                *(load_row(OURS.title, run, each) for run, each in tenants.items()),
            ],
        },
        method=method(
            bench,
            lanes=f"critical and low backlogs kept near {_WAITING:,} paragraphs,"
            f" {_TRICKLE_PER_S:g}/s in high and medium",
            tenants=f"open loop, Poisson, paragraphs in one lane: {_OTHERS} tenants with"
            f" {_OTHERS_SHARE:.0%} of {capacity_per_s:.0f} texts/s together, the flooding one"
            f" {_FLOOD_FACTOR:g} times that, for {_TENANTS_FOR * bench.seconds:g} s; ends when the 99"
            " are answered",
            capacity=f"{capacity_per_s:.0f} texts/s, of an open loop that asks for more than can be"
            f" done; a backlog, written at its beginning: {burst_per_s:.0f}",
        ),
        series=series({"critical flood": lanes, **tenants}),
        charts={
            "lanes": lane_chart("Lanes under a critical flood", lanes),
            "tenants": lane_chart("All tenants while one floods", tenants[_WITH]),
        },
    )


def _tenants(capacity_per_s: float, *, flooded: bool) -> list[Traffic]:
    rate_per_s = _OTHERS_SHARE * capacity_per_s
    tenants = {f"tenant-{index}": 1.0 for index in range(_OTHERS)}
    others = Traffic("others", Poisson(rate_per_s), tenants=tenants)
    flood = Traffic("flood", Poisson(_FLOOD_FACTOR * rate_per_s), tenants={"flooding": 1})
    return [others, flood] if flooded else [others]


def _share(bench: Bench, measured: Measured, lane: Lane) -> float:
    """Return the lane's part of the results while both backlogs stand."""
    ledger = measured.ledger
    began_ms = min(asked.at_ms for asked in ledger.asked.values())
    lanes = [
        ledger.asked[request_id].lane
        for request_id, answer in ledger.answers.items()
        if answer.append_ms - began_ms < 1000 * bench.seconds
    ]
    return lanes.count(lane) / max(1, len(lanes))


def _others(measured: Measured) -> Latency | None:
    return measured.ledger.latencies_by(lambda asked: asked.traffic).get("others")


def _flooding(measured: Measured) -> Latency | None:
    return measured.ledger.latencies_by(lambda asked: asked.traffic).get("flood")


def _p99_ms(measured: Measured) -> float | None:
    latency = _others(measured)
    return None if latency is None else latency.p99_ms


def _unresolved_others(measured: Measured) -> int:
    ledger = measured.ledger
    answers = ((asked, ledger.answers.get(name)) for name, asked in ledger.asked.items())
    return sum(
        asked.traffic == "others" and (answer is None or answer.kind is not OutcomeKind.RESULT)
        for asked, answer in answers
    )
