"""Replays: what do live requests notice of a replay that takes all the capacity that is left?

Runs without and with a replay take turns: what slows the machine for minutes slows both alike.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from cortex_stream.errors import OperatorError
from cortex_stream.kafka.reader import TopicReader
from cortex_stream.loadtest.figures import (
    enough,
    latency_row,
    load_row,
    median_of,
    method,
    resolved_goal,
    series,
    sides_chart,
)
from cortex_stream.loadtest.latency import Latency
from cortex_stream.loadtest.profiles.capacity import burst_rate_per_s
from cortex_stream.loadtest.report import Goal, Report, Row
from cortex_stream.loadtest.sides import OURS, Bench, Measured, Running, running
from cortex_stream.loadtest.traffic import Poisson, Traffic
from cortex_stream.loadtest.worker_process import WorkerProcess
from cortex_stream.replay.injection import waiting_records
from cortex_stream.settings.tree import Settings
from schemas.priority import Lane
from topics.names import REPLAYS, request_topic

TURNS: Final = 5
_TOPICS: Final = "ours-replayed"
_LOAD_SHARE: Final = 0.5
_SAMPLES: Final = 5000
_MOST_RATIO: Final = 1.2
_RUN_SHARE: Final = 0.5  # of the seconds that are given: ten runs take as long as five of them
_WITHOUT: Final = "without"
_WITH: Final = "with a replay"
_BEGINS_WITHIN_S: Final = 60.0
_EMPTY_WITHIN_S: Final = 300.0  # 5000 paragraphs, of which a slow machine does 17 a second
_LOOK_AGAIN_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Turn:
    """A run without a replay, and the one with a replay after it.

    Attributes:
        replayed: outcomes of the replay meanwhile.
        waiting: records that waited on the replay lane at the end.
    """

    without: Measured
    beside: Measured
    replayed: int
    waiting: int


async def measure_replay(bench: Bench, *, turns: int = TURNS) -> Report:
    """Load a worker to half of what it can do, in turns alone and beside a replay of all of it.

    Raises:
        OperatorError: a worker or a replay failed.
    """
    kafka = bench.settings.kafka.model_copy(update={"topic_prefix": _TOPICS})
    settings = bench.settings.model_copy(update={"kafka": kafka})
    found: list[Turn] = []
    async with running(bench, OURS, topics=_TOPICS) as side:
        rate_per_s = _LOAD_SHARE * await burst_rate_per_s(side, bench, name="replay-capacity")
        bench.say(f"{rate_per_s:.0f} requests/s")
        bench = replace(bench, seconds=_RUN_SHARE * bench.seconds)
        for turn in range(1, turns + 1):
            if found:
                await _until_empty(settings)
            found.append(await _measure_turn(bench, settings, side, rate_per_s, turn=turn))
    return _report(bench, found, rate_per_s)


async def _measure_turn(
    bench: Bench, settings: Settings, side: Running, rate_per_s: float, *, turn: int
) -> Turn:
    async def live(run: str) -> Measured:
        measured = await side.run(
            [Traffic("live", Poisson(rate_per_s))],
            name=f"replay-{run.replace(' ', '-')}-{turn}",
            seconds=bench.seconds,
        )
        bench.say(f"{run:<14} p99 {_p99_ms(measured) or 0:6.0f} ms")
        return measured

    without = await live(_WITHOUT)
    async with _replaying(bench, settings, replay_id=f"bench-{turn}"):
        before = await _outcomes(settings)
        beside = await live(_WITH)
        replayed = await _outcomes(settings) - before
        waiting = await waiting_records(settings)
    return Turn(without, beside, replayed, waiting)


def live_goal(turns: Sequence[Turn]) -> Goal:
    """Return the goal of live requests: the median of the turns' ratios, all of them as a note."""
    without_ms = [_p99_ms(turn.without) for turn in turns]
    ratios = [
        _ratio(_p99_ms(turn.beside), alone_ms)
        for turn, alone_ms in zip(turns, without_ms, strict=True)
    ]
    equal = [_ratio(later_ms, earlier_ms) for earlier_ms, later_ms in pairwise(without_ms)]
    samples = min(
        sum(_samples(turn.without) for turn in turns),
        sum(_samples(turn.beside) for turn in turns),
    )
    notes = [f"by turn {_shown(ratios)}", f"{enough(samples, _SAMPLES)} each"]
    if equal:
        notes.insert(1, f"A/A {_shown(equal)}")
    return Goal(
        "p99 of live requests with a replay / without",
        median_of(ratios),
        "at most",
        _MOST_RATIO,
        "; ".join(notes),
    )


def _report(bench: Bench, turns: Sequence[Turn], rate_per_s: float) -> Report:
    runs = {
        f"{run}, turn {number}": measured
        for number, turn in enumerate(turns, 1)
        for run, measured in ((_WITHOUT, turn.without), (_WITH, turn.beside))
    }
    return Report(
        profile="replay",
        question="What do live requests notice of a replay that takes all the capacity left?",
        goals=[
            live_goal(turns),
            Goal(
                "requests that still wait on the replay lane at the end",
                float(min(turn.waiting for turn in turns)),
                "at least",
                1,
                "the fewest of the turns; else that replay did not last",
            ),
            resolved_goal(*runs.values()),
        ],
        tables={
            "Medians of the turns, ms": [
                _medians(_WITHOUT, [turn.without for turn in turns]),
                _medians(_WITH, [turn.beside for turn in turns]),
            ],
            "Live requests, ms": [
                latency_row(OURS.title, run, "live", _live(each)) for run, each in runs.items()
            ],
            "Cost, the replay's included": [
                load_row(OURS.title, run, each) for run, each in runs.items()
            ],
            "The replays": [
                {
                    "turn": number,
                    "replayed": turn.replayed,
                    "a second": turn.replayed / bench.seconds,
                    "still wait": turn.waiting,
                }
                for number, turn in enumerate(turns, 1)
            ],
        },
        method=method(
            bench,
            load=f"open loop, Poisson, medium lane, {rate_per_s:.1f}/s: {_LOAD_SHARE:.0%} of the"
            " better of two backlogs just before",
            replay="the command, without --rate, of everything that was asked before; it has begun"
            " to be answered when the live requests begin",
            turns=f"{len(turns)} of a run without and one with a replay; what a replay leaves on its"
            " lane is answered before the next turn",
        ),
        series=series(runs),
        charts={
            f"turn {number}": sides_chart(
                f"Live requests, turn {number}", {_WITHOUT: turn.without, _WITH: turn.beside}
            )
            for number, turn in enumerate(turns, 1)
        },
    )


@asynccontextmanager
async def _replaying(bench: Bench, settings: Settings, *, replay_id: str) -> AsyncIterator[None]:
    """Run a replay beside; begin once its first outcome is there."""
    topic = request_topic(Lane.MEDIUM)
    process = WorkerProcess(
        log=bench.folder / f"replay-{replay_id}.log",
        command=(
            sys.executable,
            "-m",
            "cortex_stream",
            "replay",
            "--topic",
            topic,
            "--id",
            replay_id,
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


async def _until_empty(settings: Settings) -> None:
    """Wait until all that was put back is answered: the next run is not to share the worker.

    Raises:
        OperatorError: it takes too long.
    """
    try:
        async with asyncio.timeout(_EMPTY_WITHIN_S):
            while True:
                if not await waiting_records(settings):
                    return
                await asyncio.sleep(_LOOK_AGAIN_S)
    except TimeoutError as error:
        raise OperatorError(
            f"emptying the replay lane: records still wait after {_EMPTY_WITHIN_S:g} s"
        ) from error


async def _outcomes(settings: Settings) -> int:
    """Return how many outcomes replays have."""
    async with TopicReader(settings, [REPLAYS], start="end") as reader:
        return sum((await reader.ends()).values())


def _live(measured: Measured) -> Latency | None:
    return measured.ledger.latencies_by(lambda asked: asked.traffic).get("live")


def _p99_ms(measured: Measured) -> float | None:
    found = _live(measured)
    return None if found is None else found.p99_ms


def _samples(measured: Measured) -> int:
    found = _live(measured)
    return 0 if found is None else found.count


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours is not None and theirs else None


def _shown(ratios: Sequence[float | None]) -> str:
    return ", ".join("none" if ratio is None else f"{ratio:.2f}" for ratio in ratios)


def _medians(run: str, measured: Sequence[Measured]) -> Row:
    found = [latency for each in measured if (latency := _live(each)) is not None]
    return {
        "load": run,
        "turns": len(found),
        "p50": median_of(latency.p50_ms for latency in found),
        "p95": median_of(latency.p95_ms for latency in found),
        "p99": median_of(latency.p99_ms for latency in found),
    }
