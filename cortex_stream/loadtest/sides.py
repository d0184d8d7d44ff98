"""The sides of a comparison, each on topics of its own: workers of ours, and peers.

A side's processes run only while it is measured, so that no idle side disturbs another.

Owner: the event loop that entered `running`.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Final

from cortex_stream.clock import Clock
from cortex_stream.kafka.admin import TopicAdmin
from cortex_stream.loadtest.ledger import Ledger
from cortex_stream.loadtest.load import LoadRequest, embed_requests
from cortex_stream.loadtest.meter import Meter, Sample
from cortex_stream.loadtest.session import LoadSession
from cortex_stream.loadtest.traffic import Traffic
from cortex_stream.loadtest.worker_process import WorkerProcess
from cortex_stream.registry.store import ModelVersion
from cortex_stream.settings.tree import Settings
from schemas.outcomes import OutcomeKind
from schemas.priority import Lane
from topics.names import RESULTS, request_topic

_EVERY_S: Final = 0.25
_WARM_UP_TEXTS: Final = 200
_PEERS: Final = "cortex_stream.loadtest.peers"


@dataclass(frozen=True, slots=True)
class Bench:
    """What every profile is given.

    Attributes:
        settings: of services that nobody else uses.
        model: what every side runs.
        folder: takes the logs of the processes.
        cores: how many each side may use.
        seed: decides lanes, moments, texts and samples.
        seconds: how long one measurement takes.
        peers: whether other people's programs are measured, too.
        say: is told what is going on.
    """

    settings: Settings
    model: ModelVersion
    folder: Path
    cores: int
    seed: int
    seconds: float
    peers: bool
    clock: Clock
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Side:
    """Somebody who answers requests.

    Attributes:
        title: for tables.
        key: names its topics and its log.
        module: what `python -m` starts; a peer's stands for a module of `peers`.
        peer: whether it is started as peers are, with everything as options.
        lanes: whose topics a peer reads, the most urgent first.
        one_topic: the peer has no lanes: everything is sent to the topic of the first one.
        processes: how many of its own it starts; peers only.
        needs: a package that must be installed; peers only.
        environment: variables of its own.
    """

    title: str
    key: str
    module: str = "agents"
    peer: bool = False
    lanes: tuple[Lane, ...] = (Lane.MEDIUM,)
    one_topic: bool = True
    processes: int = 1
    needs: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def available(self) -> bool:
        """Tell whether it can be started here."""
        if not self.peer:
            return True
        if find_spec(_PEERS) is None or find_spec(f"{_PEERS}.{self.module}") is None:
            return False
        return self.needs is None or find_spec(self.needs) is not None


OURS: Final = Side("cortex-stream", "ours", one_topic=False)
LOOP: Final = Side("aiokafka loop", "loop", "aiokafka_loop", peer=True)
TWO_TOPICS: Final = Side(
    "two topics",
    "two-topics",
    "two_topics",
    peer=True,
    lanes=(Lane.CRITICAL, Lane.LOW),
    one_topic=False,
)
PEERS: Final = (
    Side("Faust x 2", "faust-2", "plain_faust", peer=True, processes=2, needs="faust"),
    Side("Faust", "faust", "plain_faust", peer=True, needs="faust"),
    Side("Quix x 2", "quix-2", "quix_streams", peer=True, processes=2, needs="quixstreams"),
    Side("Quix", "quix", "quix_streams", peer=True, needs="quixstreams"),
    Side("FastStream", "faststream", "faststream", peer=True, needs="faststream"),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a load did to a side."""

    ledger: Ledger
    cpu_s: float
    peak_rss_bytes: int
    samples: Sequence[Sample]

    @property
    def texts_per_s(self) -> float:
        """Answers from the first produce time to the last append time."""
        elapsed_s = self.ledger.elapsed_s()
        return len(self.ledger.answers) / elapsed_s if elapsed_s else 0.0

    @property
    def cpu_ms_per_text(self) -> float:
        """Processor time of the side's processes."""
        return 1000 * self.cpu_s / max(1, len(self.ledger.answers))

    @property
    def cores(self) -> float:
        """Processors that the side's processes kept busy on average."""
        first, last = self.samples[0], self.samples[-1]
        return (last.usage.cpu_s - first.usage.cpu_s) / _elapsed_s(first, last)

    @property
    def other_cores(self) -> float:
        """Processors that all others kept busy: the broker and the driver, on a quiet machine."""
        first, last = self.samples[0], self.samples[-1]
        return (last.machine_cpu_s - first.machine_cpu_s) / _elapsed_s(first, last) - self.cores

    @property
    def stolen_cores(self) -> float:
        """Processors that the hypervisor took away on average."""
        first, last = self.samples[0], self.samples[-1]
        return (last.stolen_s - first.stolen_s) / _elapsed_s(first, last)

    def results_per_s(self, *, begins_s: float, ends_s: float, within_ms: float = inf) -> float:
        """Results appended in a part of the run; seconds since the first request.

        Those that took longer than `within_ms` do not count.
        """
        began_ms = min((asked.at_ms for asked in self.ledger.asked.values()), default=0)
        count = sum(
            begins_s <= (answer.append_ms - began_ms) / 1000 < ends_s
            for request_id, answer in self.ledger.answers.items()
            if answer.kind is OutcomeKind.RESULT
            and answer.append_ms - self.ledger.asked[request_id].at_ms <= within_ms
        )
        return count / (ends_s - begins_s)


def _elapsed_s(first: Sample, last: Sample) -> float:
    return max(1, last.at_ms - first.at_ms) / 1000


class Running:
    """A side at work. `join` and `leave` change how many processes it has."""

    def __init__(self, bench: Bench, side: Side, settings: Settings, session: LoadSession) -> None:
        self.side = side
        self._bench = bench
        self._settings = settings
        self._session = session
        self._processes: list[WorkerProcess] = []
        self._started = 0

    @property
    def pids(self) -> list[int]:
        """Its processes, the first to join first; children of theirs are not listed."""
        return [process.pid for process in self._processes]

    async def join(self) -> None:
        """Start one more process; return when it takes work."""
        self._started += 1
        process = WorkerProcess(
            log=self._bench.folder / f"{self.side.key}-{self._started}.log",
            cores=self._bench.cores,
            command=self._command(),
            environment=self._environment(),
        )
        try:
            process.start()
        except BaseException:
            process.stop()
            raise
        self._processes.append(process)
        if self.side.peer:
            await asyncio.to_thread(process.wait_said, "ready")
        else:
            await asyncio.to_thread(process.wait_ready)

    async def leave(self) -> None:
        """Stop the process that joined last."""
        await asyncio.to_thread(self._processes.pop().stop)

    async def stop(self) -> None:
        """Stop all of its processes."""
        while self._processes:
            await self.leave()

    async def warm_up(self) -> None:
        """Answer a few requests that count for nothing."""
        texts = [f"warm up {index}, nothing to see here" for index in range(_WARM_UP_TEXTS)]
        name = f"warm-{self._started}-{self._bench.clock.unix_ms()}"
        await self._session.burst(
            embed_requests(texts, run=name, seed=0, mix={self.side.lanes[0]: 1}), seen=self._check
        )

    async def burst(
        self, requests: Sequence[LoadRequest], *, keep_events: bool = False
    ) -> Measured:
        """Send everything at once, wait for all answers.

        Raises:
            OperatorError: a process ended, or nothing came any more although answers are missing.
        """
        with self._meter() as meter:
            ledger = await self._session.burst(requests, seen=self._check, keep_events=keep_events)
        return Measured(ledger, meter.cpu_s, meter.peak_rss_bytes, meter.samples)

    async def run(
        self,
        traffics: Sequence[Traffic],
        *,
        name: str,
        seconds: float,
        awaited: Collection[str] | None = None,
        settle_s: float | None = None,
    ) -> Measured:
        """Drive the traffics for so long; see `LoadSession.run`."""
        with self._meter() as meter:
            ledger = await self._session.run(
                traffics,
                name=name,
                seconds=seconds,
                seed=self._bench.seed,
                seen=self._check,
                awaited=awaited,
                settle_s=settle_s,
            )
        return Measured(ledger, meter.cpu_s, meter.peak_rss_bytes, meter.samples)

    def _meter(self) -> Meter:
        return Meter(lambda: self.pids, clock=self._bench.clock)

    def _check(self, _: Ledger) -> None:
        for process in self._processes:
            process.check()

    def _command(self) -> tuple[str, ...]:
        side, topic = self.side, self._settings.topic
        if not side.peer:
            return (sys.executable, "-m", side.module)
        return (
            *(sys.executable, "-m", f"{_PEERS}.{side.module}"),
            *("--brokers", self._settings.kafka_brokers),
            *("--requests", ",".join(topic(request_topic(lane)) for lane in side.lanes)),
            *("--results", topic(RESULTS)),
            *("--group", topic(side.key)),
            *("--model", str(self._bench.model.folder)),
            *("--processes", str(side.processes)),
        )

    def _environment(self) -> Mapping[str, str]:
        prefix = {"CORTEX_KAFKA__TOPIC_PREFIX": self._settings.kafka.topic_prefix}
        return {**prefix, **self.side.environment}


@asynccontextmanager
async def running(bench: Bench, side: Side, *, topics: str | None = None) -> AsyncIterator[Running]:
    """Start a side, warm; stop it at the end.

    Args:
        bench: where and with what.
        side: who.
        topics: the prefix of its topics, by default its key; the requests that an earlier run left
            behind are answered first, so a run that leaves some needs another prefix than the next.

    Raises:
        OperatorError: it did not start.
    """
    kafka = bench.settings.kafka.model_copy(update={"topic_prefix": topics or side.key})
    settings = bench.settings.model_copy(update={"kafka": kafka})
    await _make_topics(settings, side)
    async with AsyncExitStack() as opened:
        session = await opened.enter_async_context(
            LoadSession(
                settings,
                clock=bench.clock,
                every_s=_EVERY_S,
                only_lane=side.lanes[0] if side.one_topic else None,
            )
        )
        found = Running(bench, side, settings, session)
        opened.push_async_callback(found.stop)
        await found.join()
        await found.warm_up()
        yield found


async def _make_topics(settings: Settings, side: Side) -> None:
    async with TopicAdmin(settings) as admin:
        changes = (await admin.plan()).changes
        if side.peer:  # it uses these alone, and each topic costs the broker something
            own = {settings.topic(name) for name in (RESULTS, *map(request_topic, side.lanes))}
            changes = tuple(change for change in changes if change.name in own)
        await admin.apply(changes)


def unavailable(sides: Sequence[Side]) -> str:
    """Return which of the sides cannot be started here, for a note; empty if all can."""
    missing = [side.title for side in sides if not side.available()]
    return f"not installed: {', '.join(missing)} (the extra `bench`)" if missing else ""
