"""What a request costs besides its model: processor time by part, and of requests that are late."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

import orjson

from cortex_stream.loadtest.corpus import paragraphs, repeated, short_texts
from cortex_stream.loadtest.engine_cost import measure_dedupe, measure_engine
from cortex_stream.loadtest.figures import method
from cortex_stream.loadtest.free_model import ENVIRONMENT
from cortex_stream.loadtest.load import LoadRequest, embed_requests
from cortex_stream.loadtest.report import Goal, Report
from cortex_stream.loadtest.sides import Bench, Measured, Running, Side, running
from cortex_stream.loadtest.traffic import Poisson, Traffic

FREE: Final = Side(
    "worker with a free model",
    "free",
    "agents.free_worker",
    one_topic=False,
    environment=ENVIRONMENT,
)
MOST_US: Final = 250.0
DEDUPE_US: Final = 20.0
EXPIRED_PER_S: Final = 20_000.0
_REQUESTS_PER_S: Final = 3000  # about what one core answers
_TURNS: Final = 3
_IN_PROCESS: Final = 2000
_ALONE_PER_S: Final = (10.0, 100.0)
_ALONE_TIMES: Final = 3.0  # as long as one measurement: few requests
_LONG_AGO: Final = "2001-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class _Through:
    """What backlogs of one kind cost a whole worker.

    Attributes:
        us: microseconds of processor time a request, in the median of the turns.
        stolen: cores that the hypervisor took away in the worst of them.
    """

    us: float
    stolen: float


async def measure_cost(bench: Bench) -> Report:
    """Give backlogs to a worker whose model is free, and to the engine alone.

    Raises:
        OperatorError: a worker failed, or a request ended otherwise than expected.
    """
    short = await measure_engine(_values(short_texts(), bench))
    long = await measure_engine(_values(paragraphs(), bench))
    dedupe_us = await measure_dedupe(_values(short_texts(), bench), bench.settings)
    async with running(bench, FREE) as side:
        through = await _through_kafka(bench, side)
        alone = [await _alone(bench, side, rate_per_s) for rate_per_s in _ALONE_PER_S]
    parts = {
        "short text": (short.read_us, short.answer_us),
        "paragraph": (long.read_us, long.answer_us),
        "late at arrival": (short.arrives_late_us, short.arrives_late_us),
    }
    return Report(
        profile="cost",
        question="How much processor time does a request take besides its model?",
        goals=[
            Goal(
                "µs per short text, all but the model", through["short text"].us, "at most", MOST_US
            ),
            Goal(
                "µs per paragraph, all but the model", through["paragraph"].us, "at most", MOST_US
            ),
            Goal("µs of it for the dedupe window", dedupe_us, "at most", DEDUPE_US),
            Goal(
                "requests late at arrival, per second of one core in the engine",
                1e6 / short.arrives_late_us,
                "at least",
                EXPIRED_PER_S,
            ),
        ],
        tables={
            "Processor time by part, µs a request": [
                {
                    "request": name,
                    "read, check, sanitise": read_us,
                    "route, schedule, build the outcome": answer_us - read_us,
                    "poll, produce, acknowledge": through[name].us - answer_us,
                    "all": through[name].us,
                    "stolen": through[name].stolen,
                }
                for name, (read_us, answer_us) in parts.items()
            ],
            "Short texts that come one by one": alone,
            "Late requests in the engine": [
                {"late": "at arrival", "µs a request": short.arrives_late_us},
                {"late": "in the queue", "µs a request": short.late_in_queue_us},
            ],
        },
        method={
            **method(
                bench,
                load=f"backlogs over four lanes, {_TURNS} turns, medians; engine alone:"
                f" {_IN_PROCESS:,} requests on one thread, the least of five passes",
                parts="the first two are the engine's alone, the third is what the worker's process"
                " tree takes beyond them, broker and driver not counted",
            ),
            "model": "none: every text has the same 17 tokens; the vectors are random",
        },
    )


async def _through_kafka(bench: Bench, side: Running) -> dict[str, _Through]:
    count = round(bench.seconds * _REQUESTS_PER_S)
    found: dict[str, list[Measured]] = {"short text": [], "paragraph": [], "late at arrival": []}
    for turn in range(_TURNS):
        for name, turns in found.items():
            texts = paragraphs() if name == "paragraph" else short_texts()
            run = f"cost-{name.replace(' ', '-')}-{turn}"
            requests = _requests(texts, count, run, bench)
            if name == "late at arrival":
                requests = [_late(each) for each in requests]
            measured = await side.burst(requests)
            turns.append(measured)
            bench.say(f"{name}: {1000 * measured.cpu_ms_per_text:.0f} µs a request")
    return {
        name: _Through(
            us=median(1000 * each.cpu_ms_per_text for each in turns),
            stolen=max(each.stolen_cores for each in turns),
        )
        for name, turns in found.items()
    }


async def _alone(bench: Bench, side: Running, rate_per_s: float) -> dict[str, object]:
    """Return what a request costs that finds nobody else; what an idle worker takes is in it."""
    traffic = Traffic("alone", Poisson(rate_per_s), lengths={"short": 1})
    measured = await side.run(
        [traffic], name=f"cost-alone-{rate_per_s:g}", seconds=_ALONE_TIMES * bench.seconds
    )
    bench.say(f"{rate_per_s:g} a second: {1000 * measured.cpu_ms_per_text:.0f} µs a request")
    return {
        "per s": rate_per_s,
        "requests": measured.ledger.sent_count,
        "µs a request": 1000 * measured.cpu_ms_per_text,
        "stolen": measured.stolen_cores,
    }


def _values(texts: list[str], bench: Bench) -> list[bytes]:
    return [each.value for each in _requests(texts, _IN_PROCESS, "cost", bench)]


def _requests(texts: list[str], count: int, run: str, bench: Bench) -> Sequence[LoadRequest]:
    enough = repeated(texts, copies=-(-count // len(texts)))[:count]
    return embed_requests(enough, run=run, seed=bench.seed)


def _late(request: LoadRequest) -> LoadRequest:
    event = {**orjson.loads(request.value), "time": _LONG_AGO, "deadlinems": 1}
    return replace(request, value=orjson.dumps(event))
