"""Failures that may heal: requests wait in Kafka for their next attempt, and none is lost."""

import signal
import time
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from cortex_stream.devstack.stack import Stack
from tests.acceptance.system import System, WorkerProcess, until
from tests.acceptance.test_split import SPLITS, split_system, start

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

EMBED: Final = "cortex.nlp.embed.v1"
FAILING: Final = str(Path(__file__).with_name("failing_worker.py"))
BAD_ROW: Final = str(Path(__file__).with_name("bad_row_worker.py"))
ALWAYS: Final = 1_000_000
SPECIAL_TOKENS: Final = 2  # of the stub model, which has a token per byte beside them
FIRST_DELAY_S: Final = 0.3
QUICK: Final = {
    "CORTEX_INFERENCE__ATTEMPTS": "1",
    "CORTEX_RETRIES__FIRST_DELAY_S": str(FIRST_DELAY_S),
}
WAITS_S: Final = [FIRST_DELAY_S, 1.5 * FIRST_DELAY_S, 2.25 * FIRST_DELAY_S]


def failing(times: int) -> tuple[str, ...]:
    """Return the command of a worker whose model fails so often."""
    return (FAILING, str(times))


def status(worker: WorkerProcess) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(worker.get("/status.json")[1])
    return body


def running(worker: WorkerProcess) -> int:
    return sum(lane["running"] for lane in status(worker)["lanes"])


def waiting(worker: WorkerProcess) -> float:
    body = worker.get("/metrics")[1].decode()
    lines = [line for line in body.splitlines() if line.startswith("cortex_retries_waiting{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def ask(system: System, name: str, **attributes: Any) -> None:
    await (await system.send(name, EMBED, {"texts": ["hello"]}, **attributes))


async def test_a_request_is_answered_once_by_the_attempt_that_succeeds(system: System) -> None:
    # given
    await system.worker(failing(2), **QUICK)

    # when
    began_s = time.monotonic()
    await ask(system, "fails-twice", subject="doc")
    outcome = await system.outcome("fails-twice")
    took_s = time.monotonic() - began_s

    # then
    assert outcome["type"] == "cortex.outcome.result.v1"
    assert outcome["data"]["attempt"] == 3
    assert took_s >= sum(WAITS_S[:2])
    await system.read_to_the_end()
    assert len(system.outcomes["fails-twice"]) == 1
    assert system.records["cortex.dead-letters"] == []


async def test_a_request_that_always_fails_is_a_dead_letter_after_its_last_retry(
    system: System,
) -> None:
    # given
    await system.worker(failing(ALWAYS), **QUICK)

    # when
    await ask(system, "fails")
    outcome = await system.outcome("fails")

    # then
    assert outcome["type"] == "cortex.outcome.dead_letter.v1"
    assert (outcome["data"]["error"]["code"], outcome["data"]["attempt"]) == ("inference_failed", 4)
    await system.read_to_the_end()
    [letter] = system.records["cortex.dead-letters"]
    headers = {name: value.decode() for name, value in letter.headers}
    assert headers["cortex_dlt-attempts"] == "4"
    first_ms, last_ms = (int(headers[f"cortex_dlt-{each}-time"]) for each in ("first", "last"))
    assert last_ms - first_ms >= 1000 * sum(WAITS_S)
    place = system.sent["fails"]
    assert headers["cortex_dlt-original-topic"] == place.topic
    assert headers["cortex_dlt-original-offset"] == str(place.offset)
    assert letter.value == orjson.dumps(
        {"id": "fails", "type": EMBED, "data": {"texts": ["hello"]}}
    )


async def test_a_row_that_breaks_its_batch_fails_alone(system: System) -> None:
    # given
    bad = "breaks"
    worker = await system.worker((BAD_ROW, str(len(bad) + SPECIAL_TOKENS)), **QUICK)
    await (await system.send("before", EMBED, {"texts": ["holds the runner"] * 20}))
    await until(lambda: running(worker) > 0, timeout_s=6, what=worker.tail)

    # when
    good = [f"good-{n}" for n in range(6)]
    sends = [await system.send(name, EMBED, {"texts": ["sevenly"]}) for name in good[:3]]
    sends.append(await system.send("bad", EMBED, {"texts": [bad]}))
    sends += [await system.send(name, EMBED, {"texts": ["sevenly"]}) for name in good[3:]]
    for send in sends:
        await send
    outcome = await system.outcome("bad")
    await system.answered(good, timeout_s=20)

    # then
    assert outcome["type"] == "cortex.outcome.dead_letter.v1"
    assert (outcome["data"]["error"]["code"], outcome["data"]["attempt"]) == ("inference_failed", 4)
    await system.read_to_the_end()
    for name in good:
        [answer] = system.outcomes[name]
        assert (answer["type"], answer["data"]["attempt"]) == ("cortex.outcome.result.v1", 1)
    [model] = status(worker)["models"]
    assert model["runners"][0]["failures"] == 1 + 4  # once in company, then alone at each attempt


async def test_a_worker_that_stops_while_a_request_waits_leaves_it_to_the_next(
    system: System,
) -> None:
    # given
    slow = {**QUICK, "CORTEX_RETRIES__FIRST_DELAY_S": "8"}
    worker = await system.worker(failing(ALWAYS), **slow)
    began_s = time.monotonic()
    await ask(system, "waits")
    await until(lambda: waiting(worker) == 1, timeout_s=6, what=worker.tail)

    # when
    stopped_s = time.monotonic()
    worker.signal(signal.SIGTERM)
    code = await worker.ended(10)
    stop_took_s = time.monotonic() - stopped_s
    assert await system.committed_past_unanswered() == ["waits"]  # its record of the lane, that is
    await system.worker(failing(0), **slow)
    outcome = await system.outcome("waits")
    took_s = time.monotonic() - began_s

    # then
    assert (code, stop_took_s < 5) == (0, True)
    assert (outcome["type"], outcome["data"]["attempt"]) == ("cortex.outcome.result.v1", 2)
    assert took_s >= 8
    await system.read_to_the_end()
    assert len(system.outcomes["waits"]) == 1


@pytest.mark.timeout(120)
async def test_where_stages_are_split_the_way_in_reads_the_retries(
    stack: Stack, models: Path, tmp_path: Path
) -> None:
    way_in, way_out = SPLITS["validation apart"]
    async with split_system(stack, models, tmp_path / "split", [way_in, way_out]) as system:
        # given
        system.environment |= QUICK
        start(system, way_in)
        stages = {"CORTEX_WORKER__STAGES": orjson.dumps(way_out).decode()}
        system.start_worker(failing(2), **stages)

        # when
        await ask(system, "fails-twice")
        outcome = await system.outcome("fails-twice", timeout_s=40)

    # then
    assert outcome["type"] == "cortex.outcome.result.v1"
    assert outcome["data"]["attempt"] == 3
