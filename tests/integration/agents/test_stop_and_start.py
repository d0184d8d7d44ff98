"""Rebalances, signals, and a broker that dies."""

import asyncio
import os
import signal

import pytest

from cortex_stream.devstack import ports
from cortex_stream.devstack.stack import Stack
from tests.integration.agents.scene import STUB, Scene, eventually, lanes_of

pytestmark = pytest.mark.integration


async def _kill_kafka(broker: Stack) -> None:
    pid = broker.pid("kafka")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    port = int(broker.kafka_brokers.rpartition(":")[2])
    # Until its last thread has ended the dead broker holds its port.
    await eventually(lambda: broker.pid("kafka") is None and ports.is_free(port))


async def test_a_worker_that_joins_and_leaves_under_load_causes_no_loss_and_no_duplicate(
    scene: Scene,
) -> None:
    names = await scene.ask(5000, ms=200)  # 250 at a time: 4 s, and the start of `second` takes 2
    first = scene.worker(**lanes_of(50))
    await scene.answered(names[:100])

    second = scene.worker(**lanes_of(50))
    await second.is_ready()
    more = await scene.ask(2500, ms=200)
    await scene.answered(more[:100])
    code, _ = await second.terminate()
    await scene.answered(names + more)
    await scene.everything_committed()

    assert code == 0
    assert {answer["pid"] for answer in scene.answers} == {
        first.process.pid,
        second.process.pid,
    }
    assert scene.duplicates() == 0


async def test_sigterm_under_load_finishes_what_runs_and_commits_it(scene: Scene) -> None:
    names = await scene.ask(4000, ms=300)
    worker = scene.worker(**lanes_of(50))
    await scene.answered(names[:200])

    code, took_s = await worker.terminate()

    assert code == 0
    assert took_s < 10
    answered = {answer["id"] for answer in await scene.read()}
    committed = await scene.committed()
    for name, at in scene.sent.items():
        assert (name in answered) == (at.offset < committed.get((at.topic, at.partition), 0))


async def test_a_worker_that_stops_while_others_join_commits_what_it_finishes(
    scene: Scene,
) -> None:
    # given
    leaving = scene.worker(
        CORTEX_KAFKA__DRAIN_TIMEOUT_S="20", CORTEX_KAFKA__HEARTBEAT_INTERVAL_S="0.3"
    )
    await leaving.is_ready()
    names = await scene.ask(20, ms=12_000)
    await scene.has_begun()

    # when
    leaving.process.terminate()
    joining = scene.worker()

    # then
    assert await leaving.ends() == 0
    await scene.answered(names)
    await scene.everything_committed()
    assert joining.process.poll() is None
    assert joining.said("suspects.found") == []
    assert scene.duplicates() == 0


async def test_a_stop_that_hangs_is_cut_off(scene: Scene) -> None:
    worker = scene.worker((*STUB, "--hang-at-stop"), CORTEX_KAFKA__DRAIN_TIMEOUT_S="0.1")
    await worker.is_ready()

    code, took_s = await worker.terminate()

    assert code == 3
    assert took_s < 5  # 0.1 to drain, a margin of 4


async def test_work_that_hangs_does_not_hold_sigterm(scene: Scene) -> None:
    await scene.ask(50, do="hang")
    worker = scene.worker(CORTEX_KAFKA__DRAIN_TIMEOUT_S="1")
    await worker.is_ready()
    names = await scene.ask(50)
    await scene.answered(names)

    code, took_s = await worker.terminate()

    assert code == 0
    assert took_s < 10
    assert worker.said("intake.drain_timed_out")
    assert await scene.committed_but_unanswered() == []


async def test_a_dead_broker_neither_holds_sigterm_nor_loses_anything(
    scene: Scene, broker: Stack
) -> None:
    names = await scene.ask(2000, ms=100)
    leaving = scene.worker(CORTEX_KAFKA__DRAIN_TIMEOUT_S="2", **lanes_of(20))
    staying = scene.worker(**lanes_of(20))
    await leaving.is_ready()
    await staying.is_ready()

    await _kill_kafka(broker)
    code, took_s = await leaving.terminate()
    await asyncio.to_thread(broker.start_service, "kafka")
    await scene.answered(names)
    await scene.everything_committed()

    assert took_s < 7  # 10 with the default of 5 for draining
    assert code in {0, 3}
    assert staying.process.poll() is None
    assert await scene.committed_but_unanswered() == []
