"""Cut-overs on the real broker: a name means another version, for workers of now and of later."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from structlog.testing import capture_logs

from cortex_stream.bootstrap.cut_overs import CutOvers
from cortex_stream.clock import SystemClock
from cortex_stream.engine.models import ServedModels
from cortex_stream.errors import InvariantError
from cortex_stream.kafka.producer import KafkaProducer
from cortex_stream.record import OutgoingRecord
from cortex_stream.scheduling.batcher import BatchRule
from cortex_stream.task_scope import TaskScope
from cortex_stream.telemetry.metrics import REGISTRY
from cortex_stream.testing.stub_runner import stub_model
from tests.integration.replay.conftest import MEDIUM, Scene
from topics.names import AUDIT, MODELS, RESULTS

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(120)]

WORKER = Path(__file__).with_name("two_versions_worker.py")
PROOF = ("replay", "--topic", MEDIUM, "--cut-over", "--gate", "latency=1000")


async def version_of(scene: Scene, run: str, *, model: str | None = None) -> str:
    """Ask one request and return which version answered it."""
    before = len(await scene.read(RESULTS))
    await scene.ask(1, run=run, model=model)
    await scene.until_records(RESULTS, before + 1)
    outcomes = [orjson.loads(record.value or b"") for record in await scene.read(RESULTS)]
    (outcome,) = [each for each in outcomes if each["data"]["request_id"] == f"{run}-0"]
    return str(outcome["data"]["model"]["version"])


async def until_version(scene: Scene, version: str, *, run: str) -> float:
    """Ask until that version answers; return after how long."""
    clock = SystemClock()
    began_s, turn = clock.monotonic_s(), 0
    async with asyncio.timeout(10):
        while await version_of(scene, f"{run}-{turn}") != version:
            turn += 1
    return clock.monotonic_s() - began_s


async def test_an_open_gate_switches_running_workers_and_later_ones_and_a_switch_leads_back(
    scene: Scene,
) -> None:
    worker = await scene.start_worker(WORKER)
    await scene.ask(120)
    await scene.until_records(RESULTS, 120)
    before = await version_of(scene, "before")

    shown = await scene.run(*PROOF, "--model", "stub@3", "--id", "proof")
    took_s = await until_version(scene, "3", run="after")
    pinned = await version_of(scene, "pinned", model="stub@1")
    worker.send_signal(signal.SIGTERM)
    await asyncio.to_thread(worker.wait)
    await scene.start_worker(WORKER)
    restarted = await version_of(scene, "restarted")
    await scene.run("replay", "switch", "stub@1", "--yes")
    back_s = await until_version(scene, "1", run="back")

    print(f"switched within {took_s:.2f} s, back within {back_s:.2f} s, one answer included")
    assert (before, pinned, restarted) == ("1", "1", "3")
    assert "stub means stub@3 now" in shown
    decided = [json.loads(record.value or b"") for record in await scene.read(MODELS)]
    assert [(each["name"], each["version"], each["replay_id"]) for each in decided] == [
        ("stub", "3", "proof"),
        ("stub", "1", None),
    ]
    audited = [json.loads(record.value or b"") for record in await scene.read(AUDIT)]
    assert [each["subject"] for each in audited if each["action"] == "model.cut_over"] == [
        "stub@3",
        "stub@1",
    ]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--topic", MEDIUM, "--cut-over"], "wanted name@version"),
        (["--topic", MEDIUM, "--model", "stub", "--cut-over"], "wanted name@version"),
        (["--topic", MEDIUM, "--gate", "flips=1"], "add that"),
        (["--topic", MEDIUM, "--cut-over", "--gate", "luck=1"], "reading --gate"),
        (["switch", "stub@1"], "add --yes"),
        (["switch", "stub", "--yes"], "wanted name@version"),
    ],
)
async def test_a_cut_over_that_names_no_version_or_no_bound_is_refused_at_once(
    scene: Scene, words: list[str], wanted: str
) -> None:
    shown = await scene.run("replay", *words, code=1)

    assert wanted in " ".join(shown.split())
    assert await scene.read(MODELS) == []


@pytest.fixture
async def models() -> AsyncIterator[ServedModels]:
    """Versions 1 and 2 of `stub`; the name alone means the last."""

    def never(error: Exception) -> None:
        raise InvariantError(f"stuck: {error}")

    async with ServedModels(
        [stub_model(version="1"), stub_model(version="2")],
        default="stub",
        rule=lambda _: BatchRule(max_rows=8, max_tokens=512),
        run_timeout_s=30.0,
        clock=SystemClock(),
        on_stuck=never,
    ) as models:
        yield models


async def decide(scene: Scene, value: bytes | None) -> None:
    async with KafkaProducer(scene.settings) as producer:
        await producer.send(OutgoingRecord(MODELS, b"stub", value))


async def test_a_worker_without_that_version_keeps_its_own_and_says_so(
    scene: Scene, models: ServedModels
) -> None:
    await scene.run("replay", "switch", "stub@9", "--yes")
    await decide(scene, b"not a cut-over")
    cut_overs = CutOvers(scene.settings)

    with capture_logs() as logs:
        await cut_overs.read()
        cut_overs.apply_to(models)

    (status,) = cut_overs.status()
    assert (status.wanted, status.means) == ("stub@9", "stub@2")
    assert models.find(None).reference == models.find("stub").reference == "stub@2"
    assert REGISTRY.get_sample_value("cortex_cut_over_missed", {"name": "stub"}) == 1
    assert [each["event"] for each in logs] == ["cut_over.unreadable", "cut_over.not_served"]


async def test_a_decision_that_is_taken_back_leaves_the_name_as_without_it(
    scene: Scene, models: ServedModels
) -> None:
    await scene.run("replay", "switch", "stub@1", "--yes")
    cut_overs = CutOvers(scene.settings)
    await cut_overs.read()
    cut_overs.apply_to(models)
    decided = models.find("stub").reference

    async with TaskScope() as scope:
        _ = scope.start(cut_overs.run(), name="follow")
        await decide(scene, None)
        async with asyncio.timeout(30):
            while models.find("stub").reference == "stub@1":
                await asyncio.sleep(0.05)

    assert (decided, models.find("stub").reference) == ("stub@1", "stub@2")
    assert cut_overs.status() == ()
