"""What the pages are told while memory is short."""

from collections.abc import Callable

from cortex_stream.bootstrap.status import WorkerStatus
from cortex_stream.bootstrap.worker import Worker
from cortex_stream.scheduling.watermarks import SHED_ORDER, MemoryState, Pressure
from cortex_stream.telemetry.process_memory import MemoryUse
from cortex_stream.web.status import MemoryStatus, PartitionStatus, RebalanceStatus, ServiceState
from schemas.priority import Lane


class StillEdge:
    draining = False
    obstacles = ()
    stalls = ()
    rebalances = RebalanceStatus()

    def partitions(self) -> tuple[PartitionStatus, ...]:
        return (PartitionStatus("cortex.requests.low", 0, 5, 3, 9, 6),)


def look(worker: Worker, *, used_mib: int, pressure: Pressure) -> None:
    """Let the watch have found this, as far as the status can see."""
    worker.memory.use = MemoryUse(used_mib << 20, 100 << 20, "container")
    worker.memory.pressure = pressure
    worker.memory._pause()


async def test_before_the_first_look_there_is_nothing_to_show(build: Callable[[], Worker]) -> None:
    assert WorkerStatus(build(), StillEdge()).snapshot().memory is None


async def test_a_worker_that_sheds_lanes_is_ready_and_shows_which(
    build: Callable[[], Worker],
) -> None:
    worker = build()
    await worker.start()
    worker.admission.take("cortex.requests.low", records=3, size_bytes=5000)
    look(worker, used_mib=90, pressure=Pressure(MemoryState.SHEDDING, 2))

    snapshot = WorkerStatus(worker, StillEdge()).snapshot()

    shed = [lane.lane for lane in snapshot.lanes if lane.shed]
    assert sorted(shed) == sorted([Lane.REPLAY, Lane.LOW])
    assert {lane.lane: lane.held_bytes for lane in snapshot.lanes}[Lane.LOW] == 5000
    assert snapshot.memory == MemoryStatus(
        state="shedding",
        used_bytes=90 << 20,
        limit_bytes=100 << 20,
        limit_source="container",
        held_bytes=5000,
        most_held_bytes=512 << 20,
    )
    assert snapshot.service.state is ServiceState.READY
    assert WorkerStatus(worker, StillEdge()).readiness().ready
    await worker.stop()


async def test_a_worker_that_takes_nothing_in_is_alive_and_not_ready(
    build: Callable[[], Worker],
) -> None:
    worker = build()
    await worker.start()
    look(worker, used_mib=97, pressure=Pressure(MemoryState.STOPPED, len(SHED_ORDER)))

    status = WorkerStatus(worker, StillEdge())

    assert status.live()
    assert status.readiness().reasons == (
        "memory is short: nothing is taken in until some is free",
    )
    assert status.snapshot().service.state is ServiceState.FAILING
    assert all(lane.shed for lane in status.snapshot().lanes)
    await worker.stop()


async def test_every_topic_of_a_shed_lane_is_paused(build: Callable[[], Worker]) -> None:
    worker = build()

    look(worker, used_mib=90, pressure=Pressure(MemoryState.SHEDDING, 1))

    assert worker.admission.paused == {"cortex.requests.replay"}
