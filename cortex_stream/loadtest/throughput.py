"""How near one worker behind Kafka comes to raw ONNX Runtime on the same cores, texts and model.

Both sides run in turns, several times, in one go: a noisy machine is noisy for both.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import numpy as np
import numpy.typing as npt

from cortex_stream.clock import SystemClock
from cortex_stream.errors import OperatorError
from cortex_stream.loadtest.ledger import Ledger, Vectors
from cortex_stream.loadtest.load import embed_requests
from cortex_stream.loadtest.measure import usage
from cortex_stream.loadtest.raw_onnx import RawEmbedder, RawRun
from cortex_stream.loadtest.report import Report, describe_machine, describe_model, describe_tokens
from cortex_stream.loadtest.session import LoadSession
from cortex_stream.loadtest.worker_process import WorkerProcess
from cortex_stream.registry.store import ModelVersion
from cortex_stream.settings.tree import Settings
from schemas.outcomes import OutcomeKind

GOAL_RATIO: Final = 0.60
_EVERY_S: Final = 1.0
_SAMPLE: Final = 200
# A dynamically quantised int8 model gives a text a slightly different vector in other company: 0.99
# on average, 0.95 for the worst of hundreds. Two different texts have 0.1 to 0.6.
_MEAN_COSINE: Final = 0.98
_LEAST_COSINE: Final = 0.90


@dataclass(frozen=True, slots=True)
class Side:
    """One pass of one side."""

    side: str
    texts_per_s: float
    cpu_ms_per_text: float
    elapsed_s: float

    def __str__(self) -> str:
        return (
            f"{self.side:<6} {self.texts_per_s:7.1f} texts/s"
            f"  {self.cpu_ms_per_text:6.2f} CPU ms a text  {self.elapsed_s:6.1f} s"
        )


async def measure_throughput(
    settings: Settings,
    *,
    model: ModelVersion,
    worker: WorkerProcess,
    texts: Sequence[str],
    repeats: int,
    seed: int,
    cores: int,
    say: Callable[[str], None],
) -> Report:
    """Embed `texts`, one per request, raw and through Kafka in turns, and compare the medians.

    Raises:
        OperatorError: an answer is missing, contradictory, no result, or too far from the raw one.
    """
    raw = RawEmbedder(
        onnx_path=model.onnx_path,
        tokenizer_path=model.tokenizer_path,
        sessions=cores,
        max_tokens=model.manifest.max_tokens,
    )
    raw_sides: list[Side] = []
    kafka_sides: list[Side] = []
    tokens: list[int] = []
    cosines: list[npt.NDArray[np.float32]] = []
    repetitions = 0
    async with LoadSession(settings, clock=SystemClock(), every_s=_EVERY_S) as session:
        await _through_kafka(session, texts[:_SAMPLE], run="warm", seed=seed, worker=worker)
        for repeat in range(repeats):
            found = await asyncio.to_thread(raw.run, texts)
            raw_sides.append(_raw_side(found))
            say(str(raw_sides[-1]))
            run = f"pass{repeat}"
            side, ledger = await _through_kafka(session, texts, run=run, seed=seed, worker=worker)
            kafka_sides.append(side)
            say(str(side))
            tokens, repetitions = found.tokens, repetitions + ledger.repetitions
            cosines.append(_cosines(found, ledger.vectors(run, len(texts)), seed=seed))
    compared = np.concatenate(cosines)
    if compared.mean() < _MEAN_COSINE or compared.min() < _LEAST_COSINE:
        raise OperatorError(
            f"comparing vectors with raw ONNX Runtime: cosine {compared.mean():.3f} on average,"
            f" {compared.min():.3f} at worst; at least {_MEAN_COSINE} and {_LEAST_COSINE} are right"
        )
    raw_rate, raw_cpu_ms = _medians(raw_sides)
    kafka_rate, kafka_cpu_ms = _medians(kafka_sides)
    # Of each turn by itself: what slows the machine for minutes then slows both sides alike.
    turns = list(zip(raw_sides, kafka_sides, strict=True))
    ratio = median(kafka.texts_per_s / plain.texts_per_s for plain, kafka in turns)
    cpu_ratio = median(kafka.cpu_ms_per_text / plain.cpu_ms_per_text for plain, kafka in turns)
    return Report(
        profile="throughput",
        verdict=(
            f"Through Kafka one worker does {ratio:.0%} of raw ONNX Runtime"
            f" ({kafka_rate:.0f} of {raw_rate:.0f} texts/s on {cores} cores; goal {GOAL_RATIO:.0%})."
        ),
        passed=ratio >= GOAL_RATIO,
        summary={
            "throughput ratio": ratio,
            "CPU ratio per text": cpu_ratio,
            "kafka texts/s": kafka_rate,
            "raw texts/s": raw_rate,
            "kafka CPU ms per text (worker)": kafka_cpu_ms,
            "raw CPU ms per text": raw_cpu_ms,
            "missing outcomes": 0,
            "repeated deliveries": repetitions,
            "cosine to raw, mean": float(compared.mean()),
            "cosine to raw, least": float(compared.min()),
        },
        runs=[
            {"pass": index, **_row(side)}
            for index, sides in enumerate(turns, start=1)
            for side in sides
        ],
        method={
            **describe_machine(),
            "texts": f"{len(texts)} paragraphs of pydoc_data.topics, one per request",
            "tokens": describe_tokens(tokens),
            "model": describe_model(model),
            "seed": seed,
            "raw side": f"{cores} sessions of 1 thread, all texts sorted by length, batches of 8,"
            " tokenising counted",
            "kafka side": f"one worker on {cores} cores, a backlog filled at once over four lanes;"
            " from the first produce time to the broker's append time of the last outcome; CPU of"
            " the worker's processes",
            "turns": f"{repeats} times raw, kafka; medians, of the ratios those of the turns",
            "commit interval": f"{settings.kafka.commit_interval_s:g} s",
        },
    )


async def _through_kafka(
    session: LoadSession,
    texts: Sequence[str],
    *,
    run: str,
    seed: int,
    worker: WorkerProcess,
) -> tuple[Side, Ledger]:
    requests = embed_requests(texts, run=run, seed=seed)
    before = usage(worker.pid)
    ledger = await session.burst(requests, seen=lambda _: worker.check(), keep_events=True)
    cpu_s = usage(worker.pid).cpu_s - before.cpu_s
    kinds = ledger.kinds()
    if ledger.contradictions or kinds[OutcomeKind.RESULT] != len(texts):
        raise OperatorError(
            f"checking the outcomes: {len(texts)} requests, {dict(kinds)},"
            f" {len(ledger.contradictions)} contradictory"
        )
    elapsed_s = ledger.elapsed_s()
    side = Side("kafka", len(texts) / elapsed_s, 1000 * cpu_s / len(texts), elapsed_s)
    return side, ledger


def _raw_side(found: RawRun) -> Side:
    count = len(found.tokens)
    return Side("raw", count / found.elapsed_s, 1000 * found.cpu_s / count, found.elapsed_s)


def _cosines(found: RawRun, answered: Vectors, *, seed: int) -> npt.NDArray[np.float32]:
    """Return the cosines of a sample of vectors; both sides give vectors of length one."""
    count = len(found.vectors)
    chosen = np.random.default_rng(seed).choice(count, min(_SAMPLE, count), replace=False)
    return np.asarray((found.vectors[chosen] * answered[chosen]).sum(axis=1), np.float32)


def _medians(sides: Sequence[Side]) -> tuple[float, float]:
    return median(s.texts_per_s for s in sides), median(s.cpu_ms_per_text for s in sides)


def _row(side: Side) -> dict[str, object]:
    return {
        "side": side.side,
        "texts/s": side.texts_per_s,
        "CPU ms per text": side.cpu_ms_per_text,
        "seconds": side.elapsed_s,
    }
