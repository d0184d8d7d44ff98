"""Loads through a real worker: everything is answered once, and figures come out."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from cortex_stream.clock import SystemClock
from cortex_stream.loadtest.corpus import paragraphs
from cortex_stream.loadtest.load import MIX, embed_requests
from cortex_stream.loadtest.profiles.latency import measure_latency
from cortex_stream.loadtest.session import LoadSession
from cortex_stream.loadtest.sides import OURS, Bench, running
from cortex_stream.loadtest.traffic import Kept, Poisson, Traffic
from cortex_stream.loadtest.worker_process import WorkerProcess
from cortex_stream.registry.store import ModelVersion
from cortex_stream.settings.tree import load_settings
from schemas.outcomes import OutcomeKind
from schemas.priority import Lane

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.usefixtures("environment")]

TEXTS = paragraphs()[:120]


@pytest.fixture
def bench(pulled_models: Callable[[str], ModelVersion], tmp_path: Path) -> Bench:
    """What a profile is given, for very short measurements."""
    return Bench(
        settings=load_settings(),
        model=pulled_models("minilm"),
        folder=tmp_path,
        cores=2,
        seed=1,
        seconds=1.5,
        peers=False,
        clock=SystemClock(),
        say=lambda _: None,
    )


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


async def test_traffics_run_side_by_side_and_all_of_it_is_answered(worker: WorkerProcess) -> None:
    traffics = [
        Traffic("steady", Poisson(50), lanes=MIX),
        Traffic("backlog", Kept(20), lanes={Lane.LOW: 1}, lengths={"short": 1}),
        Traffic("late", Poisson(50), deadlines_ms={0: 1}),
    ]

    async with LoadSession(load_settings(), clock=SystemClock(), every_s=0.05) as session:
        ledger = await session.run(
            traffics, name="beside", seconds=1, seed=3, seen=lambda _: worker.check()
        )

    assert ledger.complete
    by_traffic = ledger.latencies_by(lambda asked: asked.traffic)
    assert by_traffic.keys() == {"steady", "backlog", "late"}
    assert by_traffic["backlog"].count > 20  # what was answered was replaced
    assert ledger.kinds()[OutcomeKind.EXPIRED] == by_traffic["late"].count


async def test_a_side_is_measured_on_topics_of_its_own_and_stops_afterwards(bench: Bench) -> None:
    async with running(bench, OURS, topics="own-topics") as side:
        measured = await side.run([Traffic("t", Poisson(100))], name="own", seconds=1)
        pid = side.pids[0]

    assert measured.ledger.unresolved() == 0
    assert measured.cpu_s > 0
    assert 50e6 < measured.peak_rss_bytes < 2e9
    assert not psutil.pid_exists(pid)


async def test_a_tiny_latency_profile_says_what_was_measured_and_what_was_not(
    bench: Bench,
) -> None:
    report = await measure_latency(bench, turns=2)

    verdicts = {goal.what: goal.verdict for goal in report.goals}
    assert verdicts["requests of ours without exactly one result"] == "met"
    assert verdicts["p50 at half / aiokafka loop's"] == "not measured"  # it was not asked for
    assert report.passed
    medians = report.tables["Medians of the turns, ms"]
    assert [(row["load"], row["turns"]) for row in medians] == [("half", 2), ("fifth", 2)]
    turns = [row for row in report.tables["Latency, ms"] if str(row["load"]).startswith("half")]
    assert medians[0]["p99"] == pytest.approx(sum(float(str(row["p99"])) for row in turns) / 2)
    assert json.loads(report.to_json())["series"]["cortex-stream, half, turn 2"]
    assert "<polyline" in report.charts["half"]
    assert bench.settings.kafka_brokers not in report.to_markdown(charts={})
