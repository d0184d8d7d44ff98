import asyncio
import errno
from collections.abc import Iterator

import pytest
from prometheus_client import Metric
from structlog.testing import capture_logs

from cortex_stream.clock import ManualClock
from cortex_stream.errors import CortexError, ResourceExhausted
from cortex_stream.scheduling import memory_watch
from cortex_stream.scheduling.admission import Admission, Bound
from cortex_stream.scheduling.memory_watch import MemoryWatch
from cortex_stream.scheduling.watermarks import MemoryState
from cortex_stream.settings.sections import MemorySettings
from cortex_stream.telemetry import metrics
from cortex_stream.telemetry.process_memory import MemoryUse
from schemas.priority import Lane

EVENTS = "events"
PLENTY = 1 << 40


class Desk:
    """A watch whose memory is what the test says, in percent of the limit."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.percent: int = 10
        self.trimmed_to: int | None = None
        self.trims = 0
        self.failures: list[CortexError] = []
        topics = {lane: (f"{lane.value}-requests", f"{lane.value}-stage") for lane in Lane}
        names = [name for each in topics.values() for name in each]
        self.admission = Admission(
            {name: Bound(10, PLENTY) for name in [*names, EVENTS]}, total_bytes=PLENTY
        )
        self.watch = MemoryWatch(
            self.admission,
            MemorySettings(),
            topics=topics,
            measure=lambda: MemoryUse(self.percent << 20, 100 << 20, "setting"),
            give_back=self._trim,
            clock=self.clock,
            on_failure=self.failures.append,
        )

    async def look(self, percent: int) -> None:
        self.percent = percent
        await self.watch.look()
        self.clock.advance_s(1)

    def open(self) -> set[str]:
        """Return the topics that may be polled."""
        return {name for name in self.admission.topics if min(self.admission.room(name)) > 0}

    def _trim(self) -> None:
        self.trims += 1
        if self.trimmed_to is not None:
            self.percent = self.trimmed_to


@pytest.fixture
def desk() -> Desk:
    return Desk()


def samples(metric: object) -> Iterator[tuple[str, float]]:
    assert hasattr(metric, "collect")
    families: list[Metric] = list(metric.collect())
    for sample in families[0].samples:
        if not sample.name.endswith("_created"):
            yield next(iter(sample.labels.values()), ""), sample.value


async def test_with_little_memory_in_use_every_topic_may_be_polled(desk: Desk) -> None:
    await desk.look(84)

    assert desk.open() == desk.admission.topics
    assert desk.trims == 0


async def test_the_topics_of_the_lowest_lanes_are_paused_first(desk: Desk) -> None:
    await desk.look(86)
    assert desk.admission.paused == {"replay-requests", "replay-stage"}

    await desk.look(86)

    assert desk.admission.paused == {"replay-requests", "replay-stage", "low-requests", "low-stage"}


async def test_under_critical_pressure_nothing_is_polled_not_even_events(desk: Desk) -> None:
    await desk.look(96)
    assert desk.open() == set()

    await desk.look(89)

    assert desk.open() == {"critical-requests", "critical-stage", EVENTS}


async def test_free_memory_is_given_back_before_a_lane_is_shed(desk: Desk) -> None:
    desk.trimmed_to = 50

    await desk.look(97)

    assert desk.trims == 1
    assert desk.open() == desk.admission.topics


async def test_lanes_come_back_one_by_one_after_30_s_of_calm(desk: Desk) -> None:
    await desk.look(86)
    await desk.look(86)
    await desk.look(80)
    desk.clock.advance_s(29)

    await desk.look(80)
    assert desk.admission.paused == {"replay-requests", "replay-stage"}
    await desk.look(80)

    assert desk.admission.paused == set()


async def test_every_change_is_logged_once_with_its_figures(desk: Desk) -> None:
    desk.admission.take("low-requests", records=1, size_bytes=3 << 20)

    with capture_logs() as lines:
        for percent in (10, 86, 96, 97, 80, 80):
            await desk.look(percent)

    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("memory.shedding", "warning"),
        ("memory.stopped", "error"),
        ("memory.recovering", "info"),
    ]
    assert lines[0] == {
        "event": "memory.shedding",
        "log_level": "warning",
        "was": "normal",
        "paused": ["replay"],
        "used_mib": 86,
        "limit_mib": 100,
        "share": 0.86,
        "source": "setting",
        "held_mib": 3,
    }


async def test_metrics_tell_state_use_and_how_long_each_lane_was_shed(desk: Desk) -> None:
    before = dict(samples(metrics.LANE_SHED_SECONDS))

    for percent in (86, 86, 97):
        await desk.look(percent)

    shed_s = {
        lane: value - before.get(lane, 0.0) for lane, value in samples(metrics.LANE_SHED_SECONDS)
    }
    assert (shed_s["replay"], shed_s["low"], shed_s.get("high", 0.0)) == (2.0, 1.0, 0.0)
    told_s = desk.watch.shed_s
    assert (told_s[Lane.REPLAY], told_s[Lane.LOW], told_s[Lane.HIGH]) == (2.0, 1.0, 0.0)
    assert dict(samples(metrics.MEMORY_STATE)) == {
        "normal": 0,
        "shedding": 0,
        "stopped": 1,
        "recovering": 0,
    }
    assert dict(samples(metrics.MEMORY_USED_BYTES)) == {"": 97 << 20}
    assert dict(samples(metrics.MEMORY_LIMIT_BYTES)) == {"": 100 << 20}


# ---- the task ------------------------------------------------------------------------------------


async def test_at_the_start_it_says_when_full_lanes_would_not_fit(desk: Desk) -> None:
    with capture_logs() as lines:
        running = asyncio.ensure_future(desk.watch.run())
        await asyncio.sleep(0)
        running.cancel()

    assert (lines[0]["event"], lines[0]["log_level"]) == ("memory.plan", "warning")
    assert lines[0]["repair"].startswith("full lanes may be shed")
    assert desk.watch.pressure.state is MemoryState.NORMAL


async def test_it_asks_for_a_restart_when_no_request_could_make_memory_free(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_watch, "LOOK_EVERY_S", 0.0)
    desk.percent = 99
    running = asyncio.ensure_future(desk.watch.run())
    while desk.watch.use is None:
        await asyncio.sleep(0.001)
    assert desk.failures == []

    desk.clock.advance_s(31)
    await running

    [failure] = desk.failures
    assert isinstance(failure, ResourceExhausted)
    assert "99 of 100 MiB (setting) are used with no request in the process" in str(failure)


async def test_an_unforeseen_error_asks_for_a_restart_rather_than_go_unguarded(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> MemoryUse:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(desk.watch, "_measure", broken)

    with pytest.raises(ZeroDivisionError):
        await desk.watch.run()

    assert "watching the memory" in str(desk.failures[0])


class Blind:
    """Cannot be measured `times` times, for want of a file descriptor."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.seen = asyncio.Event()

    def __call__(self) -> MemoryUse:
        if self.left:
            self.left -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        self.seen.set()
        return MemoryUse(10 << 20, 100 << 20, "setting")


async def test_a_short_lack_of_descriptors_is_waited_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_watch, "LOOK_EVERY_S", 0.001)
    monkeypatch.setattr(desk.watch, "_log_plan", lambda: None)
    measure = Blind(30)
    monkeypatch.setattr(desk.watch, "_measure", measure)

    watching = asyncio.ensure_future(desk.watch.run())
    async with asyncio.timeout(5):
        await measure.seen.wait()
    watching.cancel()

    assert desk.failures == []


async def test_a_lasting_lack_of_descriptors_asks_for_a_restart(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_watch, "LOOK_EVERY_S", 0.001)
    monkeypatch.setattr(desk.watch, "_log_plan", lambda: None)
    monkeypatch.setattr(desk.watch, "_measure", Blind(1000))

    async with asyncio.timeout(5):
        with pytest.raises(OSError, match="Too many open files"):
            await desk.watch.run()

    assert "Too many open files" in str(desk.failures[0])
