"""Replays through a real worker: where outcomes go, what stays untouched, and the report."""

import asyncio
import json
import random
import signal
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.integration.replay.conftest import MEDIUM, Scene
from topics.names import DEAD_LETTERS, LAKE_VECTORS, REPLAYS, RESULTS

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(240)]

WORKER = Path(__file__).with_name("two_versions_worker.py")


async def outcomes(scene: Scene, topic: str) -> list[dict[str, Any]]:
    return [orjson.loads(record.value or b"") for record in await scene.read(topic)]


async def until_committed(scene: Scene, records: int) -> dict[tuple[str, int], int]:
    """Wait until the live group has committed so many records of the medium lane; return where."""
    topic = scene.settings.topic(MEDIUM)
    async with asyncio.timeout(30):
        while True:
            found = {at: n for at, n in (await scene.committed()).items() if at[0] == topic}
            if sum(found.values()) == records:
                return found
            await asyncio.sleep(0.1)


async def test_500_requests_have_500_outcomes_of_the_replay_and_none_on_the_live_topic(
    scene: Scene,
) -> None:
    scene.start_worker(WORKER)
    await scene.ask(500, attributes={"subject": "document-1"})
    await scene.until_records(RESULTS, 500)
    before = await until_committed(scene, 500)
    vectors = len(await scene.read(LAKE_VECTORS))

    await scene.run("replay", "--topic", MEDIUM, "--id", "again")
    await scene.until_records(REPLAYS, 500)

    again = await outcomes(scene, REPLAYS)
    live = await outcomes(scene, RESULTS)
    assert {each["data"]["replay_id"] for each in again} == {"again"}
    assert {each["type"] for each in again} == {"cortex.outcome.result.v1"}
    assert len({each["id"] for each in again}) == 500
    assert {each["id"] for each in again}.isdisjoint(each["id"] for each in live)
    assert {each["data"]["request_id"] for each in again} == {f"r-{n}" for n in range(500)}
    assert len(live) == 500
    assert len(await scene.read(LAKE_VECTORS)) == vectors
    assert await until_committed(scene, 500) == before


async def test_a_replay_to_live_answers_everybody(scene: Scene) -> None:
    scene.start_worker(WORKER)
    await scene.ask(5)
    await scene.until_records(RESULTS, 5)

    await scene.run("replay", "--topic", MEDIUM, "--publish-to", "live", "--yes", "--id", "all")
    await scene.until_records(RESULTS, 10)

    live = await outcomes(scene, RESULTS)
    assert sorted(each["data"]["replay_id"] or "" for each in live) == [""] * 5 + ["all"] * 5
    assert await scene.read(REPLAYS) == []


async def test_a_report_says_what_another_version_changes(scene: Scene) -> None:
    scene.start_worker(WORKER)
    await scene.ask(120)
    await scene.ask(2, run="bad", attributes={"type": "cortex.unknown.v1"})
    await scene.until_records(RESULTS, 122)

    shown = await scene.run("replay", "--topic", MEDIUM, "--model", "stub@2", "--id", "reversed")

    report = json.loads((scene.folder / "reversed.json").read_bytes())
    page = (scene.folder / "reversed.html").read_text()
    assert "cosines: least -1.0000" in shown
    assert (report["records"], report["missing"], report["compared"]) == (122, 0, 120)
    assert report["outcomes"] == {"result": 120, "rejected": 2, "expired": 0, "dead_letter": 0}
    assert report["failures"] == {"unknown_type": 2}
    assert (report["then"]["models"], report["now"]["models"]) == ({"stub@1": 120}, {"stub@2": 120})
    cosines, overlap = report["embeddings"]["cosines"], report["embeddings"]["overlap"]
    assert cosines["least"] == pytest.approx(-1, abs=1e-5)
    assert cosines["mean"] == pytest.approx(-1, abs=1e-5)
    assert (overlap["texts"], overlap["neighbours"], overlap["mean"]) == (120, 10, 1.0)
    assert report["newly_failed"] == report["unknown_then"] == 0
    assert report["now"]["model_ms_per_1000_tokens"] > 0
    assert "stub@2" in page


async def test_another_width_has_neighbours_and_no_cosines(scene: Scene) -> None:
    scene.start_worker(WORKER)
    await scene.ask(30)
    await scene.until_records(RESULTS, 30)

    await scene.run("replay", "--topic", MEDIUM, "--model", "wide@1", "--id", "wide")

    found = json.loads((scene.folder / "wide.json").read_bytes())["embeddings"]
    assert (found["dims_then"], found["dims_now"], found["cosines"]) == (8, 16, None)
    assert found["overlap"]["texts"] == 30


async def test_a_version_that_nobody_serves_fails_in_the_report_and_leaves_no_dead_letter(
    scene: Scene,
) -> None:
    scene.start_worker(WORKER)
    await scene.ask(4)
    await scene.until_records(RESULTS, 4)

    await scene.run("replay", "--topic", MEDIUM, "--model", "nobodys@9", "--id", "gone")

    report = json.loads((scene.folder / "gone.json").read_bytes())
    assert (report["newly_failed"], report["failures"]) == (4, {"unknown_model": 4})
    assert await scene.read(DEAD_LETTERS) == []


async def test_killed_at_random_it_reports_each_request_once(scene: Scene) -> None:
    scene.start_worker(WORKER)
    await scene.ask(300)
    await scene.until_records(RESULTS, 300)
    seed = 11
    draw = random.Random(seed)  # noqa: S311 (moments, not secrets)
    words = ("replay", "--topic", MEDIUM, "--id", "killed", "--model", "stub@1", "--rate", "60/s")

    for _ in range(3):
        before = len(await scene.read(REPLAYS))
        process = scene.start(*words)
        await scene.until_records(REPLAYS, before + 1)
        await asyncio.sleep(draw.uniform(0, 1))  # the moment of the kill is what is drawn
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait)
    await scene.run(*words)

    report = json.loads((scene.folder / "killed.json").read_bytes())
    written = len(await scene.read(REPLAYS))
    print(f"seed {seed}: 3 kills, {written - 300} outcomes repeated")
    assert (report["records"], report["missing"], report["compared"]) == (300, 0, 300)
    assert report["outcomes"]["result"] == 300
    assert report["embeddings"]["cosines"]["p01"] == pytest.approx(1, abs=1e-6)
