"""Replays: what do live requests notice of a replay that takes all the capacity that is left?"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from cortex_stream.errors import OperatorError
from cortex_stream.kafka.reader import TopicReader
from cortex_stream.loadtest.figures import (
    enough,
    lane_chart,
    latency_row,
    load_row,
    method,
    ratio_goal,
    resolved_goal,
    series,
)
from cortex_stream.loadtest.latency import Latency
from cortex_stream.loadtest.profiles.capacity import burst_rate_per_s
from cortex_stream.loadtest.report import Goal, Report
from cortex_stream.loadtest.sides import OURS, Bench, Measured, running
from cortex_stream.loadtest.traffic import Poisson, Traffic
from cortex_stream.loadtest.worker_process import WorkerProcess
from cortex_stream.replay.injection import waiting_records
from cortex_stream.settings.tree import Settings
from schemas.priority import Lane
from topics.names import REPLAYS, request_topic

_TOPICS: Final = "ours-replayed"
_LOAD_SHARE: Final = 0.5
_SAMPLES: Final = 5000
_WITHOUT: Final = "without"
_AGAIN: Final = "without again"
_WITH: Final = "with a replay"
_BEGINS_WITHIN_S: Final = 60.0


async def measure_replay(bench: Bench) -> Report:
    """Load a worker to half of what it can do, twice alone and once beside a replay of all of it.

    Raises:
        OperatorError: a worker or the replay failed.
    """
    runs: dict[str, Measured] = {}
    kafka = bench.settings.kafka.model_copy(update={"topic_prefix": _TOPICS})
    settings = bench.settings.model_copy(update={"kafka": kafka})
    async with running(bench, OURS, topics=_TOPICS) as side:
        rate_per_s = _LOAD_SHARE * await burst_rate_per_s(side, bench, name="replay-capacity")
        bench.say(f"{rate_per_s:.0f} requests/s")

        async def live(run: str) -> None:
            runs[run] = await side.run(
                [Traffic("live", Poisson(rate_per_s))],
                name=f"replay-{run.replace(' ', '-')}",
                seconds=bench.seconds,
            )
            bench.say(f"{run:<14} p99 {_p99_ms(runs[run]) or 0:6.0f} ms")

        await live(_WITHOUT)
        await live(_AGAIN)
        async with _replaying(bench, settings):  # last: what it leaves on its lane disturbs nobody
            before = await _outcomes(settings)
            await live(_WITH)
            replayed = await _outcomes(settings) - before
            waiting = await waiting_records(settings)
    alone_ms, again_ms, beside_ms = (_p99_ms(runs[run]) for run in (_WITHOUT, _AGAIN, _WITH))
    samples = min(0 if (found := _live(each)) is None else found.count for each in runs.values())
    aa = f"; A/A {again_ms / alone_ms:.2f}" if again_ms and alone_ms else ""
    return Report(
        profile="replay",
        question="What do live requests notice of a replay that takes all the capacity left?",
        goals=[
            ratio_goal(
                "p99 of live requests with a replay / without",
                beside_ms,
                alone_ms,
                at_most=1.2,
                note=f"{enough(samples, _SAMPLES)} each{aa}",
            ),
            Goal(
                "requests that still wait on the replay lane at the end",
                float(waiting),
                "at least",
                1,
                "else the replay did not last",
            ),
            resolved_goal(*runs.values()),
        ],
        tables={
            "Live requests, ms": [
                latency_row(OURS.title, run, "live", _live(each)) for run, each in runs.items()
            ],
            "Cost, the replay's included": [
                load_row(OURS.title, run, each) for run, each in runs.items()
            ],
            "The replay": [{"replayed meanwhile": replayed, "a second": replayed / bench.seconds}],
        },
        method=method(
            bench,
            load=f"open loop, Poisson, medium lane, {rate_per_s:.1f}/s: {_LOAD_SHARE:.0%} of the"
            " better of two backlogs just before",
            replay="the command, without --rate, of everything that was asked before; it has begun"
            " to be answered when the live requests begin",
        ),
        series=series(runs),
        charts={run: lane_chart(f"Live requests {run}", each) for run, each in runs.items()},
    )


@asynccontextmanager
async def _replaying(bench: Bench, settings: Settings) -> AsyncIterator[None]:
    """Run a replay beside; begin once its first outcome is there."""
    topic = request_topic(Lane.MEDIUM)
    process = WorkerProcess(
        log=bench.folder / "replay.log",
        command=(
            sys.executable,
            "-m",
            "cortex_stream",
            "replay",
            "--topic",
            topic,
            "--id",
            "bench",
        ),
        environment={"CORTEX_KAFKA__TOPIC_PREFIX": settings.kafka.topic_prefix},
    )
    async with TopicReader(settings, [REPLAYS], start="end") as outcomes:
        with process:
            try:
                async with asyncio.timeout(_BEGINS_WITHIN_S):
                    _ = await anext(outcomes.follow())
            except TimeoutError as error:
                raise OperatorError(
                    f"replaying: no outcome in {_BEGINS_WITHIN_S:g} s; see {process.log}"
                ) from error
            yield


async def _outcomes(settings: Settings) -> int:
    """Return how many outcomes replays have."""
    async with TopicReader(settings, [REPLAYS], start="end") as reader:
        return sum((await reader.ends()).values())


def _live(measured: Measured) -> Latency | None:
    return measured.ledger.latencies_by(lambda asked: asked.traffic).get("live")


def _p99_ms(measured: Measured) -> float | None:
    found = _live(measured)
    return None if found is None else found.p99_ms
