"""How near one worker comes to raw ONNX Runtime, and how it compares with other people's loops.

All sides get the same texts in turns: what slows the machine for minutes slows them all alike.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Final

import numpy as np

from cortex_stream.errors import OperatorError
from cortex_stream.loadtest.corpus import paragraphs, repeated, short_texts
from cortex_stream.loadtest.figures import (
    load_row,
    median_of,
    method,
    resolved_goal,
    rss_goal,
    turn_ratios,
)
from cortex_stream.loadtest.ledger import Vectors
from cortex_stream.loadtest.load import embed_requests
from cortex_stream.loadtest.machine import describe_tokens
from cortex_stream.loadtest.raw_onnx import RawEmbedder, RawRun
from cortex_stream.loadtest.report import Goal, Report, Row
from cortex_stream.loadtest.sides import LOOP, OURS, PEERS, Bench, Measured, Side, running
from cortex_stream.loadtest.traffic import Length
from schemas.priority import Lane

TURNS: Final = 3
# About what two cores do in a second; a backlog is sized by it, nothing is decided by it.
_TEXTS_PER_S: Final[dict[Length, int]] = {"paragraphs": 600, "short": 1200}
_PEERS_SHARE: Final = 0.25  # of the texts: some peers take ten times as long
_SAMPLE: Final = 200
_MEAN_COSINE: Final = 0.98
"""A model whose answers depend on their company, such as `minilm-q`, has 0.99 on average; two
different texts have 0.1 to 0.6."""


@dataclass(frozen=True, slots=True)
class Pass:
    """All texts of one length, once, on one side."""

    texts_per_s: float
    cpu_ms: float


@dataclass(slots=True)
class Passes:
    """What was measured, by (side, length) and turn."""

    of: dict[tuple[str, Length], dict[int, Pass]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    ours: list[Measured] = field(default_factory=list)
    cosines: list[float] = field(default_factory=list)
    tokens: dict[Length, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, turn: int, side: str, length: Length, found: Pass) -> None:
        """Note what a side did in a turn."""
        self.of.setdefault((side, length), {})[turn] = found

    def ratio(self, other: str, length: Length, figure: Callable[[Pass], float]) -> float | None:
        """Return ours over the other side's, the median of the turns that both had; else None."""
        ours, theirs = (self.of.get((side, length), {}) for side in (OURS.title, other))
        return median_of(turn_ratios(figure, ours, theirs))


async def measure_throughput(bench: Bench, *, turns: int = TURNS) -> Report:
    """Embed a backlog on every side in turns, and compare the medians.

    Raises:
        OperatorError: a worker of ours failed, or gave a request anything but one result.
    """
    texts = {length: _chosen(length, bench) for length in _TEXTS_PER_S}
    raw = await asyncio.to_thread(
        RawEmbedder,
        onnx_path=bench.model.onnx_path,
        tokenizer_path=bench.model.tokenizer_path,
        sessions=bench.cores,
        max_tokens=bench.model.manifest.max_tokens,
    )
    passes, vectors = Passes(), {}
    for turn in range(turns):
        for length, chosen in texts.items():
            found = await asyncio.to_thread(raw.run, chosen)
            vectors[length] = found.vectors
            _add_raw(passes, turn, length, found, bench)
        await _side(passes, bench, OURS, texts, vectors, turn=turn)
        if bench.peers:
            await _peer(passes, bench, LOOP, texts, vectors, turn=turn)
        if bench.peers:
            part = {length: _part(chosen) for length, chosen in texts.items()}
            for peer in PEERS:
                await _peer(passes, bench, peer, part, vectors, turn=turn)
    return Report(
        profile="throughput",
        question=(
            "How much of raw ONNX Runtime's speed on the same texts and cores is left behind Kafka,"
            " and what do other people's loops leave of it?"
        ),
        goals=_goals(passes),
        tables={"Medians": _medians(passes), "Passes": passes.rows},
        method=method(
            bench,
            load="a backlog in one topic of four partitions, sent at once; from the first produce"
            " time to the broker's append time of the last outcome",
            **{f"tokens of {length}": words for length, words in passes.tokens.items()},
            raw=f"{bench.cores} sessions of 1 thread, all texts sorted by length as a whole, batches"
            " of 8, tokenising counted",
            turns=f"{turns} of every side, one after the other; ratios within a turn, their medians;"
            f" the peers but the aiokafka loop with {_PEERS_SHARE:.0%} of the texts",
        ),
    )


async def _peer(
    passes: Passes,
    bench: Bench,
    side: Side,
    texts: dict[Length, list[str]],
    vectors: dict[Length, Vectors],
    *,
    turn: int,
) -> None:
    if not side.available():
        passes.failures.append(f"{side.title} not installed")
        return
    try:
        await _side(passes, bench, side, texts, vectors, turn=turn)
    except OperatorError as error:  # a peer's failure is no failure of ours
        bench.say(f"{side.title}: {error}")
        passes.failures.append(f"{side.title} failed")


async def _side(
    passes: Passes,
    bench: Bench,
    side: Side,
    texts: dict[Length, list[str]],
    vectors: dict[Length, Vectors],
    *,
    turn: int,
) -> None:
    async with running(bench, side) as found:
        for length, chosen in texts.items():
            run = f"throughput-{turn}-{length}"
            requests = embed_requests(chosen, run=run, seed=bench.seed, mix={Lane.MEDIUM: 1})
            measured = await found.burst(requests, keep_events=True)
            _say(bench, side.title, length, measured.texts_per_s, measured.cpu_ms_per_text)
            passes.rows.append({"turn": turn + 1, **load_row(side.title, length, measured)})
            if measured.ledger.unresolved():
                raise OperatorError(
                    f"checking the outcomes of {side.title}: {len(chosen)} requests,"
                    f" {dict(measured.ledger.kinds())},"
                    f" {len(measured.ledger.contradictions)} contradictory"
                )
            answered = measured.ledger.vectors(run, len(chosen))
            cosines = _cosines(vectors[length], answered, seed=bench.seed)
            if side is OURS:
                passes.ours.append(measured)
                passes.cosines += cosines
            elif np.mean(cosines) < _MEAN_COSINE:
                raise OperatorError(f"comparing the vectors of {side.title} with raw ones: others")
            rates = Pass(measured.texts_per_s, measured.cpu_ms_per_text)
            passes.add(turn, side.title, length, rates)


def _add_raw(passes: Passes, turn: int, length: Length, found: RawRun, bench: Bench) -> None:
    count = len(found.tokens)
    rate, cpu_ms = count / found.elapsed_s, 1000 * found.cpu_s / count
    passes.tokens[length] = f"{count:,} texts, {describe_tokens(found.tokens)}"
    passes.add(turn, "raw", length, Pass(rate, cpu_ms))
    _say(bench, "raw", length, rate, cpu_ms)


def _goals(passes: Passes) -> list[Goal]:
    note = "; ".join(dict.fromkeys(passes.failures))
    best = {  # the best peer is the one that our ratio is smallest to
        processes: min(
            (
                ratio
                for peer in PEERS
                if peer.processes == processes
                and (ratio := passes.ratio(peer.title, "paragraphs", _rate)) is not None
            ),
            default=None,
        )
        for processes in (1, 2)
    }
    rate = "paragraphs per second"
    raw_rate, raw_cpu = (passes.ratio("raw", "paragraphs", each) for each in (_rate, _cpu))
    raw_short_cpu = passes.ratio("raw", "short", _cpu)
    loop_rate = passes.ratio(LOOP.title, "paragraphs", _rate)
    return [
        Goal("CPU per paragraph / raw", raw_cpu, "at most", 1.20, "stretch 1.10"),
        Goal(f"{rate} / raw", raw_rate, "at least", 0.74, "stretch 0.80"),
        Goal("CPU per short text / raw", raw_short_cpu, "at most", 1.50),
        Goal(f"{rate} / aiokafka loop", loop_rate, "at least", 0.9),
        Goal(f"{rate} / best two-process peer", best[2], "at least", 1.2, note),
        Goal(f"{rate} / best one-process peer", best[1], "at least", 2.0, note),
        rss_goal(*passes.ours),
        resolved_goal(*passes.ours),
        Goal(
            "cosine of our vectors to raw ones, mean",
            float(np.mean(passes.cosines)),
            "at least",
            _MEAN_COSINE,
            f"{min(passes.cosines):.3f} at worst of {len(passes.cosines):,}",
        ),
    ]


def _medians(passes: Passes) -> list[Row]:
    return [
        {
            "side": side,
            "texts": length,
            "texts/s": median(each.texts_per_s for each in turns.values()),
            "CPU ms per text": median(each.cpu_ms for each in turns.values()),
            "passes": len(turns),
        }
        for (side, length), turns in sorted(passes.of.items(), key=lambda each: each[0][1])
    ]


def _chosen(length: Length, bench: Bench) -> list[str]:
    """Return as many texts as two cores embed in about one measurement, in a random order."""
    corpus = paragraphs() if length == "paragraphs" else short_texts()
    wanted = max(_SAMPLE, round(bench.seconds * _TEXTS_PER_S[length]))
    draw = random.Random(bench.seed)  # noqa: S311 (a load, not a secret)
    return draw.sample(repeated(corpus, copies=-(-wanted // len(corpus))), wanted)


def _part(texts: list[str]) -> list[str]:
    return texts[: max(_SAMPLE, round(len(texts) * _PEERS_SHARE))]


def _cosines(raw: Vectors, answered: Vectors, *, seed: int) -> list[float]:
    """Return the cosines of a sample of vectors of length one; `answered` may be the first of all."""
    count = len(answered)
    chosen = np.random.default_rng(seed).choice(count, min(_SAMPLE, count), replace=False)
    return [float(each) for each in (raw[chosen] * answered[chosen]).sum(axis=1)]


def _rate(found: Pass) -> float:
    return found.texts_per_s


def _cpu(found: Pass) -> float:
    return found.cpu_ms


def _say(bench: Bench, side: str, length: Length, texts_per_s: float, cpu_ms: float) -> None:
    bench.say(f"{side:<15} {length:<10} {texts_per_s:7.0f} texts/s  {cpu_ms:6.2f} CPU ms a text")
