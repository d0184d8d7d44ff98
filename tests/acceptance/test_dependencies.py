"""Each row of docs/operations/dependencies.md that no other test holds: what a worker does without.

Kafka: test_faults.py, and tests/integration/agents/test_process.py for its absence at the start.
Redis: test_one_outcome.py, and tests/integration/dedupe/test_faults.py.
"""

from pathlib import Path

import orjson
import pytest

from tests.acceptance.system import System

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

EMBED = "cortex.nlp.embed.v1"


async def test_without_redis_url_and_without_postgresql_requests_are_answered(
    system: System,
) -> None:
    # given
    del system.environment["REDIS_URL"]
    worker = await system.worker(POSTGRES_URL="postgresql://postgres@127.0.0.1:1/postgres")

    # when
    for text in ("first", "other"):
        await (await system.send("used-twice", EMBED, {"texts": [text]}))
    await system.embed(["last"], "text")
    await system.answered(["used-twice", "last"], timeout_s=20)
    await system.read_to_the_end()

    # then
    kinds = {each["type"] for each in system.outcomes["used-twice"]}
    assert kinds == {"cortex.outcome.result.v1"}
    assert worker.get("/readyz")[0] == 200
    dedupe = orjson.loads(worker.get("/status.json")[1])["dedupe"]
    assert dedupe == {"on": False, "detail": "REDIS_URL is not set", "off_since_unix_ms": None}


async def test_without_its_model_a_worker_exits_2_and_names_the_command_that_gets_it(
    system: System, tmp_path: Path
) -> None:
    # when
    worker = system.start_worker(CORTEX_MODELS__FOLDER=str(tmp_path / "nothing-here"))

    # then
    assert await worker.ended(30) == 2
    assert "cortex-stream models pull" in worker.tail()
    assert "Traceback" not in worker.tail()


async def test_an_address_of_redis_that_cannot_be_read_stops_a_worker_before_it_starts(
    system: System,
) -> None:
    # when
    worker = system.start_worker(REDIS_URL="http://:geheim@127.0.0.1:6379")

    # then
    assert await worker.ended(30) == 2
    assert "REDIS_URL" in worker.tail()
    assert "geheim" not in worker.tail()
    assert "Traceback" not in worker.tail()
