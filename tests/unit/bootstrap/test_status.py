import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from cortex_stream.bootstrap import worker as bootstrap
from cortex_stream.bootstrap.status import WorkerStatus
from cortex_stream.bootstrap.worker import Worker
from cortex_stream.clock import ManualClock
from cortex_stream.errors import DeviceFailed, StuckRun
from cortex_stream.scheduling.fair_queue import Row
from cortex_stream.scheduling.health import RunnerState
from cortex_stream.settings.tree import Settings
from cortex_stream.task_scope import TaskScope
from cortex_stream.testing.stub_runner import StubRunner, stub_model
from cortex_stream.web.status import PartitionStatus, RebalanceStatus, ServiceState
from schemas.outcomes import OutcomeKind
from schemas.priority import Lane
from tests.unit.engine.desk import request, source

PARTITION = PartitionStatus("cortex.requests.low", 0, 5, 3, 9, 6)


NO_REBALANCE = RebalanceStatus()


@dataclass
class StillEdge:
    """An edge at rest, as its fields say."""

    draining: bool = False
    obstacles: tuple[str, ...] = ()
    assigned: tuple[PartitionStatus, ...] = (PARTITION,)
    stalls: tuple[str, ...] = ()
    rebalances: RebalanceStatus = NO_REBALANCE

    def partitions(self) -> tuple[PartitionStatus, ...]:
        return self.assigned


async def test_a_worker_is_ready_with_models_partitions_and_a_producer(
    build: Callable[[], Worker],
) -> None:
    worker, edge = build(), StillEdge()
    status = WorkerStatus(worker, edge)
    assert status.readiness().reasons == ("models are not loaded yet",)
    assert status.snapshot().service.state is ServiceState.STARTING

    await worker.start()

    assert status.live()
    assert status.readiness().ready
    assert status.snapshot().service.state is ServiceState.READY
    await worker.stop()


@pytest.mark.parametrize(
    ("edge", "failed", "reason", "state"),
    [
        (StillEdge(draining=True), False, "draining", ServiceState.DRAINING),
        (StillEdge(obstacles=("answers wait: no",)), False, "answers wait", ServiceState.STARTING),
        (StillEdge(assigned=()), False, "no partitions", ServiceState.STARTING),
        (StillEdge(stalls=("no answer",)), False, "no answer", ServiceState.FAILING),
        (StillEdge(), True, "failing: not back", ServiceState.FAILING),
    ],
)
async def test_whatever_is_missing_makes_it_unready_and_is_named(
    build: Callable[[], Worker],
    edge: StillEdge,
    failed: bool,  # noqa: FBT001 (a parameter of the table)
    reason: str,
    state: ServiceState,
) -> None:
    worker = build()
    await worker.start()
    status = WorkerStatus(worker, edge)
    if failed:
        worker._fail(StuckRun("not back"))

    readiness = status.readiness()

    assert not readiness.ready
    assert any(reason in each for each in readiness.reasons)
    assert status.snapshot().service.state is state
    assert status.live() is not failed
    await worker.stop()


async def test_the_snapshot_shows_lanes_models_and_outcomes(
    build: Callable[[], Worker], clock: ManualClock
) -> None:
    # given
    worker = build()
    await worker.start()
    before = WorkerStatus(worker, StillEdge()).snapshot().outcomes[OutcomeKind.RESULT]
    outcome = await worker.engine.process(request(["hello", "world"]), source())
    worker.settled(outcome, source())
    worker.admission.take("cortex.requests.low", records=3, size_bytes=10)
    assert worker.models is not None
    [served] = worker.models
    served.dispatcher.queue.push(Row(Lane.LOW, "//a", 5, clock.monotonic_s(), None, None))  # type: ignore[arg-type] # only its age is read
    clock.advance_s(2)

    # when
    snapshot = WorkerStatus(worker, StillEdge()).snapshot()

    # then
    lanes = {lane.lane: lane for lane in snapshot.lanes}
    assert list(lanes) == list(Lane)
    low = lanes[Lane.LOW]
    assert (low.waiting, low.running, low.capacity, low.oldest_wait_s) == (3, 0, 11_250, 2.0)
    assert lanes[Lane.CRITICAL].oldest_wait_s == 0.0
    [model] = snapshot.models
    assert (model.name, len(model.runners), model.busy_runners) == ("tiny", 1, 0)
    assert model.rows_per_s == 1.0  # two rows in two seconds
    assert model.padding_ratio == 0.0
    assert model.rows_per_batch == 2.0
    assert snapshot.outcomes[OutcomeKind.RESULT] == before + 1
    assert snapshot.partitions == (PARTITION,)
    assert snapshot.versions["python"].startswith("3.")
    assert snapshot.service.uptime_s == 2.0
    await asyncio.sleep(0)
    await worker.stop()


async def test_a_worker_whose_runners_are_all_out_is_unready_and_says_which_model(
    settings: Settings, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    lost = DeviceFailed("CUDA failure 719: unspecified launch failure")
    model = stub_model(name="tiny", runners=(StubRunner(failures=iter([lost])),))
    monkeypatch.setattr(bootstrap, "verify_topics", no_cluster)
    worker = Worker(settings, clock=clock, instance="worker-0", load=lambda _: [model])
    await worker.start()
    status = WorkerStatus(worker, StillEdge())
    assert status.readiness().ready

    # when
    async with TaskScope() as tasks:
        _ = tasks.start(worker.engine.process(request(["hello"]), source()), name="waits")
        async with asyncio.timeout(5):
            while status.readiness().ready:
                await asyncio.sleep(0)

    # then
    assert status.readiness().reasons == (f"no runner of tiny@1 is in service: {lost}",)
    assert status.live()
    snapshot = status.snapshot()
    assert snapshot.service.state is ServiceState.FAILING
    [runner] = snapshot.models[0].runners
    assert (runner.state, runner.runs, runner.failures) == (RunnerState.OUT, 0, 1)
    await worker.stop()


async def no_cluster(_: Settings) -> None:
    return
