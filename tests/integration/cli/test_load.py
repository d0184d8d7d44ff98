"""Loads through a real worker: everything is answered once, and figures come out."""

from collections.abc import Mapping

import numpy as np
import pytest

from cortex_stream.clock import SystemClock
from cortex_stream.loadtest.corpus import paragraphs
from cortex_stream.loadtest.load import embed_requests
from cortex_stream.loadtest.session import LoadSession
from cortex_stream.loadtest.soak import measure_soak
from cortex_stream.loadtest.throughput import measure_throughput
from cortex_stream.loadtest.worker_process import WorkerProcess
from cortex_stream.registry.store import ModelStore
from cortex_stream.settings.tree import load_settings
from schemas.outcomes import OutcomeKind

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.usefixtures("environment")]

TEXTS = paragraphs()[:120]


async def test_a_burst_is_answered_completely_and_the_vectors_are_of_length_one(
    worker: WorkerProcess,
) -> None:
    requests = embed_requests(TEXTS, run="burst", seed=1)

    async with LoadSession(load_settings(), clock=SystemClock(), every_s=0.1) as session:
        ledger = await session.burst(requests, seen=lambda _: worker.check(), keep_events=True)

    assert ledger.kinds() == {OutcomeKind.RESULT: len(TEXTS)}
    lengths = np.linalg.norm(ledger.vectors("burst", len(TEXTS)), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)
    assert sum(latency.count for latency in ledger.latencies().values()) == len(TEXTS)


async def test_a_steady_load_is_answered_completely(worker: WorkerProcess) -> None:
    requests = embed_requests(TEXTS, run="steady", seed=1)

    async with LoadSession(load_settings(), clock=SystemClock(), every_s=0.1) as session:
        ledger = await session.steady(
            requests, rate_per_s=200, seed=3, seen=lambda _: worker.check()
        )

    assert ledger.sent_count == len(TEXTS)
    assert ledger.complete


async def test_the_throughput_benchmark_compares_like_with_like(
    worker: WorkerProcess, environment: Mapping[str, str]
) -> None:
    settings = load_settings()
    said: list[str] = []

    report = await measure_throughput(
        settings,
        model=ModelStore(settings.models).resolve("minilm"),
        worker=worker,
        texts=TEXTS,
        repeats=1,
        seed=1,
        cores=2,
        say=said.append,
    )

    assert [line.split()[0] for line in said] == ["raw", "kafka"]
    assert 0 < float(str(report.summary["throughput ratio"])) < 2
    assert float(str(report.summary["cosine to raw, mean"])) > 0.98
    assert [run["side"] for run in report.runs] == ["raw", "kafka"]
    assert environment["KAFKA_BROKERS"] not in report.to_markdown()


async def test_a_short_soak_measures_memory_under_load(worker: WorkerProcess) -> None:
    settings = load_settings()

    report = await measure_soak(
        settings,
        model=ModelStore(settings.models).resolve("minilm"),
        worker=worker,
        texts=TEXTS,
        minutes=0.1,
        seed=1,
        say=lambda _: None,
    )

    least, most = float(str(report.summary["least MB"])), float(str(report.summary["most MB"]))
    assert 50 < least <= most
    assert {run["lane"] for run in report.runs} == {"critical", "high", "medium", "low"}
