"""A worker process as in production, but for its engine, which does what the records say.

A record is JSON: `id` names it; `ms` is how long it takes, `spin_us` how much CPU time; `do` makes
it `raise`, `hang`, or answer something `large`.

`--slowest-turn FILE` writes the CPU milliseconds of the event loop's slowest turn there;
`--hang-at-stop` makes the core's stop hang.
"""

import argparse
import asyncio
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from time import thread_time
from typing import Any

import orjson
import psutil

from agents.faust_app import EdgeApp
from agents.faust_worker import EdgeWorker
from agents.status import EdgeStatus
from cortex_stream.bootstrap.bounds import admission_bounds
from cortex_stream.clock import SystemClock
from cortex_stream.delivery.outcome import Answering, Outcome
from cortex_stream.errors import CortexError, OutcomeTooLarge
from cortex_stream.kafka.admin import verify_topics
from cortex_stream.record import OutgoingRecord, RecordSource
from cortex_stream.scheduling.admission import Admission
from cortex_stream.settings.tree import Settings, load_settings
from cortex_stream.telemetry.logging import configure_logging
from cortex_stream.web.status import Readiness, StatusSnapshot
from schemas.outcomes import OutcomeKind
from topics.names import INVALIDATIONS, RESULTS


class StubEngine:
    began = False  # the start of the process is none of the engine's turns

    def begin(self, value: bytes | None, source: RecordSource) -> Answering:
        return partial(self._answer, value, source)

    async def _answer(self, value: bytes | None, source: RecordSource) -> Outcome:
        asked = _read(value)
        if asked.get("ms"):
            await asyncio.sleep(asked["ms"] / 1000)
        match asked.get("do"):
            case "raise":
                raise ZeroDivisionError("a bug in the engine")
            case "hang":
                await asyncio.Event().wait()
            case "large":
                return _outcome(RESULTS, asked["id"], b"x" * 9_000_000)
            case _:
                pass
        return _outcome(RESULTS, asked["id"], _where(asked["id"], source))

    def due_in_s(self, source: RecordSource) -> float:  # noqa: ARG002 (the engine's signature)
        return 0.0

    def process_event(self, value: bytes | None, source: RecordSource) -> Outcome:
        asked = _read(value)
        content = b"x" * 9_000_000 if asked.get("do") == "large" else _where(asked["id"], source)
        return _outcome(INVALIDATIONS, asked["id"].split("-")[0], content)

    def poisonous(
        self, value: bytes | None, source: RecordSource, *, deliveries: int, readable: bool
    ) -> Outcome:
        name = orjson.loads(value or b"{}")["id"]
        given_up = {"deliveries": deliveries, "readable": readable}
        return _outcome(RESULTS, name, _where(name, source, **given_up))

    def unreadable(self, source: RecordSource, reason: str) -> Outcome:
        name = f"unreadable-{source.topic}-{source.partition}-{source.offset}"
        return _outcome(RESULTS, name, _where(name, source, reason=reason))

    def too_large(
        self,
        outcome: Outcome,
        value: bytes | None,
        source: RecordSource,
        error: OutcomeTooLarge,  # noqa: ARG002 (the engine's signature)
    ) -> Outcome:
        (record,) = outcome.records
        asked = orjson.loads(value or b"{}")
        return _outcome(
            record.topic, (record.key or b"").decode(), _where(asked["id"], source, large=True)
        )


class StubCore:
    busy = False

    def __init__(self, settings: Settings, *, hang_at_stop: bool) -> None:
        self.clock = SystemClock()
        self.engine = StubEngine()
        self.on_failure: Callable[[CortexError], None] = lambda _: None
        self.admission = Admission(
            admission_bounds(settings), total_bytes=settings.lanes.total_bytes
        )
        self._settings = settings
        self._hang_at_stop = hang_at_stop

    async def start(self) -> None:
        await verify_topics(self._settings)

    async def stop(self) -> None:
        if self._hang_at_stop:
            await asyncio.Event().wait()

    def settled(self, outcome: Outcome, source: RecordSource) -> None:
        pass


class StubSource:
    """What the probes ask, from the edge alone."""

    def __init__(self, edge: EdgeStatus) -> None:
        self._edge = edge

    def snapshot(self) -> StatusSnapshot:
        raise NotImplementedError

    def live(self) -> bool:
        return True

    def readiness(self) -> Readiness:
        parts = {
            "draining": self._edge.draining,
            "no producer": bool(self._edge.obstacles),
            "no partitions": not self._edge.partitions(),
        }
        missing = tuple(reason for reason, holds in parts.items() if holds) + self._edge.stalls
        return Readiness(not missing, missing)


def _read(value: bytes | None) -> Any:
    StubEngine.began = True
    asked = orjson.loads(value or b"{}")
    end = thread_time() + asked.get("spin_us", 0) / 1e6
    while thread_time() < end:
        pass
    return asked


class MeasuredLoop(asyncio.SelectorEventLoop):
    """Knows how much of its thread's CPU time its slowest turn took since work began.

    A turn in which the hypervisor took a core away does not count: that, too, is CPU time of the
    thread, and was seen to be 20 ms at once.
    """

    def __init__(self, report: Path) -> None:
        super().__init__()
        self._report = report
        self._slowest_ms = 0.0

    def _run_once(self) -> None:
        stolen_s, began_s = _stolen_s(), thread_time()
        super()._run_once()  # type: ignore[misc]
        turn_ms = (thread_time() - began_s) * 1000
        if turn_ms > self._slowest_ms and StubEngine.began and _stolen_s() == stolen_s:
            self._slowest_ms = turn_ms
            self._report.write_text(str(turn_ms))


def _stolen_s() -> float:
    return getattr(psutil.cpu_times(), "steal", 0.0)  # Linux alone tells


def _where(name: str, source: RecordSource, **more: Any) -> bytes:
    place: Mapping[str, Any] = {
        "id": name,
        "topic": source.topic,
        "partition": source.partition,
        "offset": source.offset,
        "pid": os.getpid(),
    }
    return orjson.dumps({**place, **more})


def _outcome(topic: str, key: str, value: bytes) -> Outcome:
    record = OutgoingRecord(topic, key.encode(), value)
    return Outcome("0" * 32, key, OutcomeKind.RESULT, "stub", (record,))


def build_app(*, hang_at_stop: bool = False) -> EdgeApp:
    settings = load_settings()
    configure_logging(settings)
    return EdgeApp(settings, StubCore(settings, hang_at_stop=hang_at_stop), StubSource)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--slowest-turn", type=Path)
    parser.add_argument("--hang-at-stop", action="store_true")
    arguments = parser.parse_args()
    report = arguments.slowest_turn
    loop = asyncio.SelectorEventLoop() if report is None else MeasuredLoop(report)
    asyncio.set_event_loop(loop)
    app = build_app(hang_at_stop=arguments.hang_at_stop)
    app.finalize()
    EdgeWorker(app, quiet=True, loop=loop).execute_from_commandline()


if __name__ == "__main__":
    main()
