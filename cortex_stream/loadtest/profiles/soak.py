"""Does a worker stay as it is? Minutes of steady load, memory and lag read all along."""

from dataclasses import replace
from typing import Final

from cortex_stream.loadtest.figures import (
    lane_chart,
    lane_rows,
    load_row,
    method,
    resolved_goal,
    series,
)
from cortex_stream.loadtest.load import MIX
from cortex_stream.loadtest.profiles.capacity import burst_rate_per_s, open_loop_rate_per_s
from cortex_stream.loadtest.report import Goal, Report
from cortex_stream.loadtest.series import Second, per_second
from cortex_stream.loadtest.sides import OURS, Bench, running
from cortex_stream.loadtest.traffic import Poisson, Traffic

LOAD_SHARE: Final = 0.8
_SPREAD: Final = 0.05
_CAPACITY_S: Final = 30.0
_SETTLED_AFTER_S: Final = 180.0


async def measure_soak(bench: Bench) -> Report:
    """Load a worker to 80 % of what it can do and watch its memory and its lag.

    In runs shorter than six minutes, the first half is left out instead of three minutes.

    Raises:
        OperatorError: a worker failed.
    """
    async with running(bench, OURS) as side:
        burst_per_s = await burst_rate_per_s(side, bench, name="soak-capacity")
        rate_per_s = LOAD_SHARE * await open_loop_rate_per_s(
            side,
            replace(bench, seconds=min(_CAPACITY_S, bench.seconds)),
            name="soak-open-loop",
            burst_per_s=burst_per_s,
        )
        bench.say(f"{rate_per_s:.0f} requests/s for {bench.seconds:g} s")
        measured = await side.run(
            [Traffic("steady", Poisson(rate_per_s), lanes=MIX)], name="soak", seconds=bench.seconds
        )
    after_s = min(_SETTLED_AFTER_S, bench.seconds / 2)
    settled = [
        each
        for each in per_second(measured.ledger, measured.samples)
        if after_s <= each.second < bench.seconds - 1
    ]
    memory = [each.rss_bytes for each in settled if each.rss_bytes is not None]
    least, most_bytes = min(memory, default=0), max(memory, default=0)
    return Report(
        profile="soak",
        question="Do memory and lag stay where they are under a long steady load?",
        goals=[
            Goal(
                "half the spread of memory / its middle",
                (most_bytes - least) / (most_bytes + least) if memory else None,
                "at most",
                _SPREAD,
                f"{least / 1e6:.0f} to {most_bytes / 1e6:.0f} MB from second {after_s:g} on",
            ),
            Goal(
                "lag of the last quarter / one second's requests",
                mean_lag(settled[-max(1, len(settled) // 4) :]) / rate_per_s,
                "at most",
                1.0,
                f"{mean_lag(settled[: max(1, len(settled) // 4)]):.0f} in the first quarter,"
                f" {mean_lag(settled[-max(1, len(settled) // 4) :]):.0f} in the last",
            ),
            resolved_goal(measured),
        ],
        tables={
            "Latency, ms": lane_rows(OURS.title, "steady", measured),
            "Cost": [load_row(OURS.title, "steady", measured)],
        },
        method=method(
            bench,
            load=f"open loop, Poisson, four lanes, {rate_per_s:.1f}/s: {LOAD_SHARE:.0%} of what"
            " an open loop that asks for more got just before, with the driver beside it; a backlog"
            f" was done at {burst_per_s:.0f}/s",
        ),
        series=series({"steady": measured}),
        charts={"lanes": lane_chart(f"{LOAD_SHARE:.0%} of the capacity", measured)},
    )


def mean_lag(seconds: list[Second]) -> float:
    """Return the requests without an outcome at the ends of these seconds, on average."""
    return sum(each.lag for each in seconds) / max(1, len(seconds))
