"""Two workers where there was one: twice the work, and nothing lost while they come and go."""

import asyncio
from statistics import median
from typing import Final

from cortex_stream.loadtest.corpus import repeated, short_texts
from cortex_stream.loadtest.figures import lane_chart, lane_rows, load_row, method, series
from cortex_stream.loadtest.free_model import ENVIRONMENT
from cortex_stream.loadtest.load import embed_requests
from cortex_stream.loadtest.report import Goal, Report
from cortex_stream.loadtest.sides import Bench, Measured, Running, Side, running
from cortex_stream.loadtest.traffic import Poisson, Traffic
from schemas.priority import Lane

STUB: Final = Side(
    "stub worker",
    "stub",
    "agents.stub_worker",
    one_topic=False,
    environment=ENVIRONMENT,
)
_ROWS_PER_S: Final = 1000  # two runners with 2 ms of sleep a row
_TURNS: Final = 2
_SHARE: Final = 0.6  # of one worker's throughput, while the other comes and goes
_PHASES: Final = 3


async def measure_scale(bench: Bench) -> Report:
    """Give a backlog to one worker and to two, in turns; then let one join and leave under load.

    Raises:
        OperatorError: a worker failed.
    """
    wanted = round(bench.seconds * _ROWS_PER_S)
    texts = repeated(short_texts(), copies=-(-wanted // len(short_texts())))[:wanted]
    bursts: list[tuple[str, Measured]] = []
    async with running(bench, STUB) as side:
        for turn in range(_TURNS):
            bursts.append(("one", await _burst(bench, side, texts, f"scale-{turn}-1")))
            await side.join()
            await side.warm_up()
            bursts.append(("two", await _burst(bench, side, texts * 2, f"scale-{turn}-2")))
            await side.leave()
            await side.warm_up()
        one, two = (
            [each.texts_per_s for workers, each in bursts if workers == wanted]
            for wanted in ("one", "two")
        )
        moved = await _join_and_leave(bench, side, _SHARE * median(one))
    ratio = median(both / alone for alone, both in zip(one, two, strict=True))
    every = [each for _, each in bursts]
    return Report(
        profile="scale",
        question="Do two workers do twice the work of one, and does a change of workers cost any?",
        goals=[
            Goal("texts per second of two workers / one", ratio, "at least", 1.9),
            Goal(
                "requests without exactly one result",
                float(sum(each.ledger.unresolved() for each in [*every, moved])),
                "at most",
                0,
            ),
            Goal(
                "outcomes repeated while a worker joins and leaves",
                float(moved.ledger.repetitions),
                "at most",
                0,
                f"{moved.ledger.sent_count:,} requests",
            ),
        ],
        tables={
            "Passes": [load_row(STUB.title, f"{workers}, backlog", m) for workers, m in bursts]
            + [load_row(STUB.title, "join and leave", moved)],
            "Latency while one joins and leaves, ms": lane_rows(STUB.title, "open loop", moved),
        },
        method={
            **method(
                bench,
                load=f"a backlog of {len(texts):,} short texts for one worker, twice as many for two,"
                f" {_TURNS} turns; then an open loop, Poisson, at {_SHARE:.0%} of one, in which a"
                " second one joins after a third of the time and leaves after two",
                processes="workers on one machine; a rebalance lies between the turns",
            ),
            "model": "none: a stub that sleeps 2 ms a row, two runners in each worker; every text has"
            " the same 17 tokens, the vectors are random",
        },
        series=series({"join and leave": moved}),
        charts={"join and leave": lane_chart("A second worker joins and leaves", moved)},
    )


async def _burst(bench: Bench, side: Running, texts: list[str], run: str) -> Measured:
    requests = embed_requests(texts, run=run, seed=bench.seed, mix={Lane.MEDIUM: 1})
    measured = await side.burst(requests)
    bench.say(f"{run}: {measured.texts_per_s:.0f} texts/s")
    return measured


async def _join_and_leave(bench: Bench, side: Running, rate_per_s: float) -> Measured:
    phase_s = bench.seconds
    traffic = Traffic("steady", Poisson(rate_per_s), lengths={"short": 1})

    async def change() -> None:
        await asyncio.sleep(phase_s)
        await side.join()
        await asyncio.sleep(phase_s)
        await side.leave()

    async with asyncio.TaskGroup() as both:
        both.create_task(change())
        driving = both.create_task(
            side.run([traffic], name="scale-moved", seconds=_PHASES * phase_s)
        )
    return driving.result()
