"""What does not get on is noticed, named, and ends its process; what merely waits does not."""

import asyncio
import signal
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from agents.faust_worker import ExitCode
from cortex_stream.clock import SystemClock
from cortex_stream.devstack.stack import Stack
from cortex_stream.kafka.connection import connection_arguments
from schemas.priority import Lane
from tests.integration.agents.scene import Scene, Worker, lanes_of
from tests.suspending import suspended
from topics.names import RESULTS, request_topic

pytestmark = [pytest.mark.integration, pytest.mark.slow]

STALLING = str(Path(__file__).with_name("stalling_worker.py"))
TIMEOUT_S = 8.0
SHORT = {"CORTEX_KAFKA__STALL_TIMEOUT_S": str(TIMEOUT_S), "CORTEX_KAFKA__DRAIN_TIMEOUT_S": "1"}
MARGIN_S = 8.0  # two looks, a drain of 1 s, a stop that is cut off 4 s after it; a slow machine
FREEZE_S = 15.0


async def seconds_until(worker: Worker, status: int) -> float:
    """Wait until the readiness probe answers `status`; return how long it took."""
    clock = SystemClock()
    began_s = clock.monotonic_s()
    async with asyncio.timeout(40):
        while (await worker.get("/readyz"))[0] != status:
            await asyncio.sleep(0.05)
    return clock.monotonic_s() - began_s


async def end_s(worker: Worker) -> tuple[int, float]:
    """Wait for the end; return the exit code and how long it took."""
    clock = SystemClock()
    began_s = clock.monotonic_s()
    return await worker.ends(), clock.monotonic_s() - began_s


async def test_a_broker_that_freezes_for_15_s_is_noticed_within_10_s_and_back_within_10_s(
    scene: Scene, broker: Stack
) -> None:
    # given
    worker = scene.worker()
    await worker.is_ready()
    await scene.answered(await scene.ask(200))

    # when
    with suspended(broker.pid("kafka")):
        noticed_s = await seconds_until(worker, 503)
        _, reason = await worker.get("/readyz")
        await asyncio.sleep(FREEZE_S - noticed_s)
    back_s = await seconds_until(worker, 200)

    # then
    print(f"503 after {noticed_s:.1f} s, 200 again {back_s:.1f} s after the broker went on")
    assert noticed_s <= 10
    assert "Kafka has not answered" in reason
    assert back_s <= 10
    assert worker.process.poll() is None
    await scene.answered(await scene.ask(200))
    assert await scene.committed_but_unanswered() == []


async def test_a_broker_that_stays_away_ends_the_process_which_says_why(
    scene: Scene, broker: Stack
) -> None:
    # given
    worker = scene.worker(**SHORT)
    await worker.is_ready()
    await scene.answered(await scene.ask(200))

    # when
    stopping = asyncio.to_thread(broker.stop_service, "kafka")
    noticed_s, _ = await asyncio.gather(seconds_until(worker, 503), stopping)
    code, took_s = await end_s(worker)

    # then
    print(f"503 after {noticed_s:.1f} s, exit code {code} after another {took_s:.1f} s")
    assert noticed_s <= 10
    assert code == ExitCode.STALLED
    assert took_s <= TIMEOUT_S + MARGIN_S
    (line,) = worker.said("worker.failing")
    assert line["code"] == "stalled"
    assert "Kafka has not answered" in line["message"]


async def test_one_silent_partition_is_named_and_ends_the_process_although_others_get_on(
    scene: Scene, tmp_path: Path
) -> None:
    # given
    trouble = tmp_path / "trouble"
    worker = scene.worker((STALLING, str(trouble)), **SHORT)
    await worker.is_ready()
    await scene.answered(await scene.ask(400))

    # when
    stuck = (scene.settings.topic(request_topic(Lane.LOW)), 2)
    trouble.write_text(f"fetch {stuck[0]} {stuck[1]}")
    names = await scene.ask(400)
    others = [name for name in names if scene.sent[name][:2] != stuck]
    assert len(others) < len(names)
    await scene.answered(others, patience_s=TIMEOUT_S)
    (stalled,) = await worker.says("progress.stalled")
    status, reason = await worker.get("/readyz")
    code, took_s = await end_s(worker)

    # then
    print(f"{stalled['reasons']}; exit code {code} after {took_s:.1f} s")
    assert (status, code) == (503, ExitCode.STALLED)
    assert took_s <= TIMEOUT_S + MARGIN_S
    assert f"({stuck[0]}-{stuck[1]})" in stalled["reasons"][0]
    assert stalled["reasons"][0][:20] in reason

    # and when a supervisor starts it again
    scene.worker()

    # then
    await scene.answered(names)
    assert scene.duplicates() == 0, "what was answered had been committed"


async def test_outcomes_that_kafka_does_not_take_end_the_process_although_it_reads_on(
    scene: Scene,
) -> None:
    # given
    worker = scene.worker(**SHORT)
    await worker.is_ready()
    await scene.answered(await scene.ask(100))

    # when
    admin = AIOKafkaAdminClient(**connection_arguments(scene.settings))
    await admin.start()
    await admin.delete_topics([scene.settings.topic(RESULTS)])
    await admin.close()
    await scene.ask(10)
    code, took_s = await end_s(worker)

    # then
    assert code == ExitCode.STALLED
    assert took_s <= TIMEOUT_S + MARGIN_S
    (line,) = worker.said("worker.failing")
    assert "an outcome could not be delivered" in line["message"]
    assert "has not answered" not in line["message"]


async def test_an_event_loop_that_hangs_ends_the_process_and_shows_where(
    scene: Scene, tmp_path: Path
) -> None:
    # given
    trouble = tmp_path / "trouble"
    worker = scene.worker((STALLING, str(trouble)), **SHORT)
    await worker.is_ready()

    # when
    trouble.write_text("loop")
    code, took_s = await end_s(worker)

    # then
    print(f"exit code {code} after {took_s:.1f} s")
    assert code == ExitCode.STALLED
    assert took_s <= TIMEOUT_S + MARGIN_S
    assert worker.said("worker.hanging")
    assert " in hang" in worker.log.read_text(), "the traceback of the loop's thread"


async def test_idle_partitions_full_lanes_and_long_waits_are_no_stalls(scene: Scene) -> None:
    # given
    short = {"CORTEX_KAFKA__STALL_TIMEOUT_S": "3"}
    worker = scene.worker(**short, **lanes_of(50))
    await worker.is_ready()

    # when: one lane is full of what takes longer than any notice, and of what waits behind it
    names = await scene.ask(100, lanes=[Lane.LOW], ms=4500)
    await scene.answered(names, patience_s=60)

    # then
    assert worker.process.poll() is None
    assert worker.said("progress.stalled") == []


async def test_a_process_that_was_stopped_for_longer_than_the_timeout_goes_on(
    scene: Scene,
) -> None:
    # given
    worker = scene.worker(CORTEX_KAFKA__STALL_TIMEOUT_S="4")
    await worker.is_ready()
    await scene.answered(await scene.ask(100))

    # when
    worker.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(6)
    names = await scene.ask(100)
    worker.process.send_signal(signal.SIGCONT)

    # then
    await scene.answered(names)
    assert worker.process.poll() is None
    assert worker.said("worker.failing") == []
