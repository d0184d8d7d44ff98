"""`python -m tests.pairs TREE [TRAFFIC …]`: this working tree against another, in short turns.

Both workers run all the time, each on topics of its own; one of them is loaded for some seconds, then
the other. What slows the machine for minutes slows both, so the ratios within neighbouring turns say
more than any two runs of `cortex-stream bench`. An idle worker costs the loaded one about a hundredth
of a core. TREE is a checkout of another commit (`git worktree add`); the same path as this tree says
how far equal sides are apart.
"""

import argparse
import os
import statistics
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Final

import orjson
import psutil
from rich.console import Console

from cortex_stream.cli.private_system import private_services, run_interruptibly
from cortex_stream.cli.steps import Steps
from cortex_stream.clock import SystemClock
from cortex_stream.loadtest.corpus import paragraphs
from cortex_stream.loadtest.load import embed_requests
from cortex_stream.loadtest.sides import Bench, Measured, Running, Side, running
from cortex_stream.loadtest.traffic import Even, Kept, Poisson, Traffic
from cortex_stream.scheduling.runner_thread import RUNNER_NICENESS
from schemas.priority import Lane

HERE: Final = Path(__file__).parents[2]
BURST_TEXTS: Final = 2000
OVERLOAD_DEADLINE_MS: Final = 2000
OVERLOAD_PROBES_PER_S: Final = 20.0
SETTLE_S: Final = 30.0

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Threads:
    """Processor seconds of a worker so far: of its runners' threads, and of all others."""

    runners_s: float
    others_s: float


async def main(words: argparse.Namespace, bench: Bench) -> list[dict[str, object]]:
    """Measure every traffic in turns; return one entry per run."""
    trees = {"this": HERE, "other": words.tree.resolve()}
    found: list[dict[str, object]] = []
    async with AsyncExitStack() as opened:
        sides = {
            name: await opened.enter_async_context(running(bench, _side(name, tree, words.env)))
            for name, tree in trees.items()
        }
        for traffic in words.traffic:
            for turn in range(words.turns):
                order = list(sides) if turn % 2 == 0 else list(reversed(sides))
                for name in order:
                    figures = await _measure(
                        sides[name], traffic, f"{traffic}-{turn}", words.seconds
                    )
                    bench.say(f"{traffic} {turn} {name:<6}" + _shown(figures))
                    found.append({"traffic": traffic, "turn": turn, "side": name, **figures})
            _compare(bench, [each for each in found if each["traffic"] == traffic])
    return found


def _side(name: str, tree: Path, variables: Sequence[str]) -> Side:
    own = dict(each.split("=", 1) for each in variables) if name == "this" else {}
    return Side(
        name,
        name,
        one_topic=False,
        environment={"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1", **own},
    )


async def _measure(side: Running, traffic: str, name: str, seconds: float) -> Figures:
    before = _threads(side.pids[0])
    lane = Lane.MEDIUM
    match traffic.split("@"):
        case ["burst"]:
            texts = paragraphs()[:BURST_TEXTS]
            measured = await side.burst(
                embed_requests(texts, run=name, seed=0, mix={Lane.MEDIUM: 1})
            )
        case ["open", rate]:
            measured = await side.run(
                [Traffic("steady", Poisson(float(rate)))], name=name, seconds=seconds
            )
        case ["mixed", rate]:
            lane = Lane.CRITICAL
            measured = await side.run(
                [
                    Traffic("urgent", Even(float(rate)), lanes={Lane.CRITICAL: 1}),
                    Traffic("backlog", Kept(1500), lanes={Lane.LOW: 1}),
                ],
                name=name,
                seconds=seconds,
                settle_s=SETTLE_S,
            )
        case ["overload", rate]:
            lane = Lane.LOW
            late = Traffic(
                "overload",
                Poisson(float(rate)),
                lanes={Lane.LOW: 1},
                deadlines_ms={OVERLOAD_DEADLINE_MS: 1},
            )
            probe = Traffic("probe", Even(OVERLOAD_PROBES_PER_S))
            measured = await side.run([late, probe], name=name, seconds=seconds)
        case _:
            raise SystemExit(f"traffic {traffic}: burst, open@RATE, mixed@RATE or overload@RATE")
    after = _threads(side.pids[0])
    figures = _figures(measured, before, after, lane)
    if lane is Lane.LOW:
        figures["in time per s"] = measured.results_per_s(
            begins_s=1.0, ends_s=seconds, within_ms=OVERLOAD_DEADLINE_MS
        )
    return figures


def _figures(measured: Measured, before: Threads, after: Threads, lane: Lane) -> dict[str, float]:
    latency, answers = measured.ledger.latencies()[lane], len(measured.ledger.answers)
    if missing := measured.ledger.missing():
        raise SystemExit(f"{len(missing)} requests without an answer")
    return {
        "per s": measured.texts_per_s,
        "p50": latency.p50_ms,
        "p99": latency.p99_ms,
        "runners ms": 1000 * (after.runners_s - before.runners_s) / answers,
        "worker's rest ms": 1000 * (after.others_s - before.others_s) / answers,
        "others ms": 1000 * measured.other_cores / measured.texts_per_s,
        "cores": measured.cores + measured.other_cores,
        "stolen": measured.stolen_cores,
    }


def _threads(pid: int) -> Threads:
    runners_s = others_s = 0.0
    usual = os.getpriority(os.PRIO_PROCESS, pid)
    for thread in psutil.Process(pid).threads():
        spent_s = thread.user_time + thread.system_time
        if os.getpriority(os.PRIO_PROCESS, thread.id) >= usual + RUNNER_NICENESS:
            runners_s += spent_s
        else:
            others_s += spent_s
    return Threads(runners_s, others_s)


def _compare(bench: Bench, runs: Sequence[Mapping[str, object]]) -> None:
    """Say this tree's figures as shares of the other's, turn by turn."""
    turns = sorted({each["turn"] for each in runs})  # type: ignore[type-var]
    for name in [name for name in runs[0] if name not in {"traffic", "turn", "side"}]:
        of = {(each["turn"], each["side"]): float(each[name]) for each in runs}  # type: ignore[arg-type]
        ratios = sorted(
            of[turn, "this"] / of[turn, "other"] for turn in turns if of[turn, "other"]
        ) or [nan]
        middle = statistics.median(ratios)
        this, other = (
            statistics.median(of[turn, side] for turn in turns) for side in ("this", "other")
        )
        low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        bench.say(
            f"   {name:<17} {this:8.2f} / {other:8.2f}  ratio {middle:.3f}"
            f" (quartiles {low:.3f} to {high:.3f}, {sum(r < 1 for r in ratios)} of {len(ratios)} below 1)"
        )


def _shown(figures: Figures) -> str:
    return "".join(f"  {name} {figure:.3g}" for name, figure in figures.items())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.pairs", description=__doc__)
    parser.add_argument("tree", type=Path)
    parser.add_argument("traffic", nargs="+", help="burst, open@RATE, mixed@RATE, overload@RATE")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--env", action="append", default=[], help="NAME=VALUE, this tree's only")
    parser.add_argument("--save", type=Path, help="write every run there, as JSON")
    arguments = parser.parse_args()
    console = Console(highlight=False, width=250)
    with Steps(console) as steps, private_services("pairs", model="minilm", steps=steps) as given:
        asked = Bench(
            settings=given.settings,
            model=given.model,
            folder=given.logs,
            cores=2,
            seed=7,
            seconds=arguments.seconds,
            peers=False,
            clock=SystemClock(),
            say=lambda text: print(text, flush=True),
        )
        runs = run_interruptibly(lambda: main(arguments, asked))
        if arguments.save:
            arguments.save.write_bytes(orjson.dumps(runs, option=orjson.OPT_INDENT_2))
