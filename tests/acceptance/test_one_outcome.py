"""One logical outcome per request, whatever Redis does."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from cortex_stream.devstack.stack import Stack
from tests.acceptance.system import System, WorkerProcess, until
from tests.acceptance.test_faults import Load

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

EMBED = "cortex.nlp.embed.v1"


@pytest.fixture
def redis(stack_programs: None, tmp_path: Path) -> Iterator[Stack]:  # noqa: ARG001
    """A Redis of this test alone, to be killed."""
    stack = Stack(tmp_path / "redis-alone")
    try:
        stack.start_service("redis")
        yield stack
    finally:
        stack.wipe()


def dedupe_of(worker: WorkerProcess) -> dict[str, Any]:
    code, body = worker.get("/status.json")
    assert code == 200
    shown: dict[str, Any] = orjson.loads(body)["dedupe"]
    return shown


async def outcomes_of(system: System, request_id: str, *texts: str) -> list[dict[str, Any]]:
    """Send one id with each text in turn, over different lanes; return what came out, in order."""
    found = system.outcomes.setdefault(request_id, [])
    for number, text in enumerate(texts, start=len(found) + 1):
        lane = ("critical", "high", "medium", "low")[number % 4]
        await (await system.send(request_id, EMBED, {"texts": [text]}, lane=lane))
        await until(
            lambda number=number: len(found) >= number,  # type: ignore[misc]
            timeout_s=30,
            what=lambda: f"{request_id}: {found}",
        )
    return found


async def test_a_reused_id_is_a_conflict_across_lanes_partitions_and_workers(
    system: System,
) -> None:
    # given
    await system.worker()
    await system.worker()

    # when
    first, other, again = await outcomes_of(system, "used-twice", "first", "other", "first")

    # then
    assert first["type"] == "cortex.outcome.result.v1"
    assert other["type"] == "cortex.outcome.rejected.v1"
    assert other["data"]["error"]["code"] == "conflict"
    assert "new id" in other["data"]["error"]["message"]
    assert again["type"] == first["type"]
    assert again["id"] == first["id"] != other["id"]


async def test_redis_killed_and_restarted_under_load_costs_nothing_but_the_check(
    system: System, redis: Stack
) -> None:
    # given
    worker = await system.worker(REDIS_URL=redis.redis_url)
    async with Load(system, rate_per_s=120) as load:
        await until(lambda: len(system.outcomes) > 100, timeout_s=30, what=worker.tail)
        assert dedupe_of(worker)["on"]

        # when
        os.kill(redis.pid("redis") or 0, signal.SIGKILL)
        await until(lambda: not dedupe_of(worker)["on"], timeout_s=10, what=worker.tail)
        unchecked = await outcomes_of(system, "while-it-is-gone", "first", "other")
        before = len(system.outcomes)
        await until(lambda: len(system.outcomes) > before + 200, timeout_s=30, what=worker.tail)

        # then
        assert [each["type"] for each in unchecked] == ["cortex.outcome.result.v1"] * 2
        assert "circuit open" in dedupe_of(worker)["detail"]
        assert worker.get("/readyz")[0] == 200
        assert b'cortex_circuit_open{dependency="redis"} 1.0' in worker.get("/metrics")[1]

        # when
        await asyncio.to_thread(redis.start_service, "redis")
        await until(lambda: dedupe_of(worker)["on"], timeout_s=10, what=worker.tail)

        # then
        checked = await outcomes_of(system, "when-it-is-back", "first", "other")
        assert checked[1]["data"]["error"]["code"] == "conflict"
    await system.answered(load.ids, timeout_s=60)
    await system.read_to_the_end()
    assert not set(load.ids) & set(system.conflicting())
