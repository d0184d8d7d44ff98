"""Short of memory: the lowest lanes wait in Kafka, urgent work goes on, and nothing is lost."""

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from tests.acceptance.system import System, WorkerProcess

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
]

SLOW = (str(Path(__file__).with_name("slow_worker.py")),)

# The worker itself has about 110 MB; the bounds of the lanes are set out of reach.
LIMIT = {
    "CORTEX_MEMORY__LIMIT": "600MiB",
    "CORTEX_MEMORY__RECOVERY_S": "2",
    "CORTEX_LANES__LANE_BYTES": "4GiB",
    "CORTEX_LANES__TOTAL_BYTES": "16GiB",
}
SHED_ORDER = ["replay", "low", "medium", "high"]


async def flood(system: System, *, lane: str, count: int) -> list[str]:
    """Produce requests of 1 MB; return their ids.

    What is large in the worker is small on the broker's disk.
    """
    names = [f"flood-{n}" for n in range(count)]
    producer = AIOKafkaProducer(
        bootstrap_servers=system.environment["KAFKA_BROKERS"],
        compression_type="lz4",
        max_request_size=16 << 20,
    )
    async with producer:
        written = []
        for name in names:
            event = {
                "id": name,
                "type": "cortex.nlp.embed.v1",
                "data": {"texts": [f"large {name}"]},
                "padding": "x" * 950_000,
            }
            topic = system.topic(f"cortex.requests.{lane}")
            written.append(await producer.send(topic, orjson.dumps(event), key=name.encode()))
        for name, place in zip(names, await asyncio.gather(*written), strict=True):
            system.sent[name] = place
    return names


async def status(worker: WorkerProcess) -> dict[str, Any]:
    code, body = await asyncio.to_thread(worker.get, "/status.json")
    assert code == 200, worker.tail()
    return dict(orjson.loads(body))


def said(worker: WorkerProcess, event: str) -> list[dict[str, Any]]:
    lines = (line for line in worker.log.read_bytes().splitlines() if line.startswith(b"{"))
    return [line for line in map(orjson.loads, lines) if line["event"] == event]


async def says(worker: WorkerProcess, event: str, *, timeout_s: float) -> list[dict[str, Any]]:
    async with asyncio.timeout(timeout_s):
        while not said(worker, event):
            assert worker.returncode is None, worker.tail()
            await asyncio.sleep(0.05)
    return said(worker, event)


def shed_lanes(snapshot: dict[str, Any]) -> list[str]:
    shed = {lane["lane"] for lane in snapshot["lanes"] if lane["shed"]}
    return [lane for lane in SHED_ORDER if lane in shed]


def prefixes() -> Iterator[list[str]]:
    return ([*SHED_ORDER[:n]] for n in range(len(SHED_ORDER) + 1))


async def test_short_of_memory_the_lowest_lanes_pause_first_and_urgent_requests_are_answered(
    system: System,
) -> None:
    # given
    worker = await system.worker(
        SLOW, **LIMIT, CORTEX_MEMORY__WARN_RATIO="0.4", CORTEX_MEMORY__CRITICAL_RATIO="0.95"
    )

    # when
    flooding = await flood(system, lane="low", count=300)
    await says(worker, "memory.shedding", timeout_s=30)
    async with asyncio.timeout(30):
        while "low" not in shed_lanes(await status(worker)):
            await asyncio.sleep(0.05)
    late = {lane: [f"late-{lane}-{n}" for n in range(20)] for lane in SHED_ORDER}
    for lane, names in late.items():
        await system.embed(names, "late", lane=lane)
    urgent_s = []
    for n in range(5):
        began_s = asyncio.get_running_loop().time()
        await system.embed([f"urgent-{n}"], "now", lane="critical")
        await system.outcome(f"urgent-{n}")
        urgent_s.append(asyncio.get_running_loop().time() - began_s)
    under_pressure = await status(worker)
    answered_late = system.outcomes.keys() & {*late["replay"], *late["low"]}
    readiness, _ = await asyncio.to_thread(worker.get, "/readyz")

    # then
    assert "low" in shed_lanes(under_pressure), under_pressure["memory"]
    assert answered_late == set()
    assert max(urgent_s) < 5.0
    assert readiness == 200
    assert under_pressure["memory"]["state"] in {"shedding", "recovering"}
    shed = [line["paused"] for line in said(worker, "memory.shedding")]
    assert shed[0] == ["replay"]
    assert all(paused in list(prefixes()) for paused in shed)
    assert all(len(b) - len(a) == 1 for a, b in itertools.pairwise(shed) if len(b) > len(a))
    assert said(worker, "memory.stopped") == []

    everything = [*flooding, *itertools.chain.from_iterable(late.values())]
    await system.answered(everything, timeout_s=60)
    await says(worker, "memory.normal", timeout_s=30)
    assert shed_lanes(await status(worker)) == []
    assert await system.committed_past_unanswered() == []
    assert system.conflicting() == []
    await worker.terminate()
    assert await system.committed_past_unanswered() == []


async def test_with_no_memory_left_intake_stops_until_some_is_free_and_nothing_is_lost(
    system: System,
) -> None:
    worker = await system.worker(
        SLOW, **LIMIT, CORTEX_MEMORY__WARN_RATIO="0.38", CORTEX_MEMORY__CRITICAL_RATIO="0.4"
    )

    flooding = await flood(system, lane="low", count=250)
    await says(worker, "memory.stopped", timeout_s=30)
    code, reasons = await asyncio.to_thread(worker.get, "/readyz")
    await system.embed(["urgent"], "now", lane="critical")
    await system.answered([*flooding, "urgent"], timeout_s=60)
    await worker.ready()

    assert code == 503
    assert b"memory is short" in reasons
    assert await system.committed_past_unanswered() == []
    assert worker.returncode is None


async def test_a_limit_below_what_the_model_needs_ends_the_process_and_says_so(
    system: System,
) -> None:
    worker = system.start_worker(
        CORTEX_MEMORY__LIMIT="64MiB", CORTEX_MEMORY__RECOVERY_S="1", CORTEX_INFERENCE__RUNNERS="1"
    )

    code = await worker.ended(40)

    assert code not in {0, 2}
    [failing] = said(worker, "worker.failing")
    assert failing["code"] == "resource_exhausted"
    assert "serve fewer models, or raise the limit" in failing["message"]
