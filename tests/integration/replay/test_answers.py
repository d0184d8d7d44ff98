"""Replays through a real worker: where outcomes go, what stays untouched, what kills do."""

import asyncio
import json
import random
import signal
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.integration.replay.conftest import MEDIUM, REPLAY_LANE, Scene, origins
from topics.names import LAKE_VECTORS, REPLAYS, RESULTS

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(180)]

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
    await scene.start_worker(WORKER)
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
    await scene.start_worker(WORKER)
    await scene.ask(5)
    await scene.until_records(RESULTS, 5)

    await scene.run("replay", "--topic", MEDIUM, "--publish-to", "live", "--yes", "--id", "all")
    await scene.until_records(RESULTS, 10)

    live = await outcomes(scene, RESULTS)
    assert sorted(each["data"]["replay_id"] or "" for each in live) == [""] * 5 + ["all"] * 5
    assert await scene.read(REPLAYS) == []


async def test_killed_ten_times_each_record_is_put_back_and_each_request_reported_once(
    scene: Scene,
) -> None:
    await scene.start_worker(WORKER)
    await scene.ask(600)
    await scene.until_records(RESULTS, 600)
    there = await scene.read(MEDIUM)
    seed = 11
    draw = random.Random(seed)  # noqa: S311 (moments, not secrets)
    words = ("replay", "--topic", MEDIUM, "--id", "killed", "--model", "stub@1")

    for _ in range(10):
        before = len(await scene.read(REPLAY_LANE))
        process = scene.start(*words, "--rate", "40/s")
        await scene.until_records(REPLAY_LANE, before + 1)
        await asyncio.sleep(draw.uniform(0, 1))  # the moment of the kill is what is drawn
        assert process.poll() is None, "finished before it was killed"
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait)
    shown = await scene.run(*words, "--rate", "500/s")

    back, answered = await scene.read(REPLAY_LANE), await outcomes(scene, REPLAYS)
    report = json.loads((scene.folder / "killed.json").read_bytes())
    repeated = len(back) - 600
    print(f"seed {seed}: 10 kills, {repeated} of 600 records put back twice")
    assert set(origins(back)) == {(record.partition, record.offset) for record in there}
    assert repeated <= 10 * 44  # a second without a note, on a busy machine, and a chunk of 4
    assert "600 records put back" in shown
    assert len({each["id"] for each in answered}) == 600
    assert (report["records"], report["missing"], report["compared"]) == (600, 0, 600)
    assert report["outcomes"]["result"] == 600
    assert report["embeddings"]["cosines"]["p01"] == pytest.approx(1, abs=1e-6)
