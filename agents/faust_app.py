"""The Faust app: its parts, the order in which they start, and how it ends.

Invariants:
    Web pages first, so that probes see the start; then topics, models and the producer; then the
    first record.
    Whatever hangs while stopping, the process ends in time: at-least-once makes that safe.

Owner: the worker's event loop.
"""

import gc
import os
import threading
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Final, Protocol, cast

import faust
import structlog
from faust.app.base import BootStrategy
from faust.tables.manager import TableManager
from faust.types import ServiceT
from mode import Service

from agents.answering import Core
from agents.events import add_events
from agents.faust_settings import FaustSettings, faust_settings
from agents.faust_worker import ExitCode
from agents.intake import Intake
from agents.lanes import add_lane
from agents.status import EdgeStatus
from agents.suspects import read_all_counts
from agents.track import Tracks
from agents.transport import EdgeConsumer, EdgeTransport
from agents.watchdog import Watchdog
from agents.web import Pages
from cortex_stream.clock import SystemClock
from cortex_stream.errors import BrokerUnavailable, CortexError, OperatorError, Stalled
from cortex_stream.kafka.producer import KafkaProducer
from cortex_stream.routing.hosting import feeds
from cortex_stream.scheduling.admission import Admission
from cortex_stream.settings.tree import Settings as CortexSettings
from cortex_stream.web.dead_letters import dead_letter_routes
from cortex_stream.web.pages import routes
from cortex_stream.web.replays import replay_routes
from cortex_stream.web.status import StatusSource
from topics.names import VALIDATION

STOP_MARGIN_S: Final = 4.0  # last commit 2 s, leaving the group, Faust's own pauses 1 s
_MIN_BACKOFF_S: Final = 0.5
_MAX_BACKOFF_S: Final = 10.0
_FULL_COLLECTION_EVERY: Final = 10_000  # of the middle generation's: about two million requests

log = structlog.stdlib.get_logger(__name__)

Service.mundane_level = "debug"  # else each of Faust's 30 services tells when it starts and stops


def spare_collections() -> None:
    """Let the garbage collector look at what is young, and hardly ever at everything.

    A full collection walks over every request that waits: a fifth of the processor time, and 240 ms
    at a time for 18,000 of them. Requests leave no rings behind, so counting references frees them;
    the young generations stay as they are, against rings that libraries make.
    """
    gc.collect()
    gc.freeze()  # modules and models are never walked over again
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _FULL_COLLECTION_EVERY)


class EdgeCore(Core, Protocol):
    """The worker behind the edge, with its life."""

    on_failure: Callable[[CortexError], None]

    @property
    def admission(self) -> Admission:
        """Bounds what is in the process."""
        ...

    async def start(self) -> None:
        """Check the topics and load the models; may be called again after BrokerUnavailable."""
        ...

    async def stop(self) -> None:
        """Release the models."""
        ...


class _Foundation(Service):
    """What must stand before the first record arrives."""

    def __init__(self, app: "EdgeApp") -> None:
        super().__init__()
        self._app = app

    async def on_start(self) -> None:
        """Start the core and the producer, however long Kafka is away."""
        await self._app.intake.start()
        self._end_process_with(self._app.intake.wait_failed())
        self._app.core.on_failure = self.drain_and_fail
        try:
            await self._until_reachable(self._app.core.start)
            await self._until_reachable(self._app.kafka_producer.start)
        except CortexError as error:
            repair = error.repair if isinstance(error, OperatorError) else None
            log.error("worker.cannot_start", message=str(error), repair=repair)  # noqa: TRY400
            raise SystemExit(ExitCode.MISCONFIGURED) from None
        spare_collections()

    async def on_stop(self) -> None:
        """Deliver what is pending; then release the models."""
        await self._app.kafka_producer.stop()
        await self._app.core.stop()

    def _end_process_with(self, failing: Awaitable[None]) -> None:
        """Let what the awaitable raises crash this service, which takes the process along."""
        _ = self.add_future(failing)

    def drain_and_fail(self, error: CortexError) -> None:
        """Stop as at a signal: crashed services commit nothing, so the next worker fails, too."""
        log.error("worker.failing", code=error.code, message=str(error))
        code = ExitCode.STALLED if isinstance(error, Stalled) else ExitCode.FAILED
        self._app.code_if_cut_off = code
        cast("Any", self.beacon.root).data.fail(code)  # the root of all services: `EdgeWorker`

    async def _until_reachable(self, start: Callable[[], Awaitable[None]]) -> None:
        backoff_s = _MIN_BACKOFF_S
        while not self.should_stop:
            try:
                await start()
            except BrokerUnavailable as error:
                log.warning(
                    "worker.waiting_for_kafka",
                    message=str(error),
                    repair=error.repair,
                    again_in_s=backoff_s,
                )
            else:
                return
            await self.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)


class _Boot(BootStrategy):
    """The order of the start; the end is the reverse."""

    def server(self) -> Iterable[ServiceT]:
        """Return what runs. Left out: Faust's producer, leader election, replies, cache."""
        app = cast("EdgeApp", self.app)
        return [
            *self.sensors(),
            *self.web_server(),
            app.foundation,
            app.consumer,
            app.agents,
            app.topics,
            app.tables,
            app.watchdog,
        ]

    def web_components(self) -> Iterable[ServiceT]:
        """Return nothing: Faust's page cache has no pages."""
        return []


class _NoTables(TableManager):
    """Starts at once: without tables nothing has to register before the consumer may subscribe."""

    async def on_start(self) -> None:
        """Do what Faust does, less its pause of one second."""
        await self._update_channels()
        await self.recovery.start()


class EdgeApp(faust.App):
    """The Faust app around one core.

    Args:
        settings: the whole tree.
        core: not yet started; the app starts and stops it.
        status_source: given the edge's status, returns what the pages show.
    """

    Settings = FaustSettings
    BootStrategy = _Boot

    def __init__(
        self,
        settings: CortexSettings,
        core: EdgeCore,
        status_source: Callable[[EdgeStatus], StatusSource],
    ) -> None:
        super().__init__(settings.group, TableManager=_NoTables, **faust_settings(settings))
        self.core = core
        self.kafka_producer = KafkaProducer(settings)
        self.intake = Intake(
            core,
            self.kafka_producer,
            Tracks(core.admission),
            drain_timeout_s=settings.kafka.drain_timeout_s,
            read_counts=partial(read_all_counts, settings),
        )
        self.edge = EdgeStatus(lambda: cast("EdgeConsumer", self.consumer), self.intake)
        self.foundation = _Foundation(self)
        self.watchdog = Watchdog(
            self.edge,
            self.intake,
            timeout_s=settings.kafka.stall_timeout_s,
            on_stall=self.foundation.drain_and_fail,
        )
        self.code_if_cut_off = ExitCode.CUT_OFF
        self._settings = settings
        self._status_source = status_source
        hosted = settings.worker.stages
        for feed in feeds(hosted):
            add_lane(self, feed, intake=self.intake, settings=settings)
        if VALIDATION in hosted:
            add_events(self, intake=self.intake, settings=settings)

    async def stop(self) -> None:
        """Drain and leave the group, within a time that no dead broker can stretch."""
        self.edge.draining = True
        limit_s = self._settings.kafka.drain_timeout_s + STOP_MARGIN_S
        if self.crashed and self.code_if_cut_off is ExitCode.CUT_OFF:
            self.code_if_cut_off = ExitCode.FAILED  # nobody has told it to stop
        timer = threading.Timer(limit_s, os._exit, (self.code_if_cut_off,))
        timer.daemon = True
        timer.start()
        log.info("worker.draining", limit_s=limit_s)
        await super().stop()

    async def _on_agent_error(self, agent: Any, exc: BaseException) -> None:
        """End the process: Faust would start the agent again as if nothing had happened."""
        log.error("agent.failed", agent=agent.name, message=repr(exc))
        await self.crash(exc)

    def _new_transport(self) -> EdgeTransport:
        transport = EdgeTransport(self.conf.broker_consumer, self)
        transport.admission, transport.intake = self.core.admission, self.intake
        limits = self._settings.limits
        transport.most_texts = limits.texts + limits.labels
        return transport

    def _new_web(self) -> Pages:
        source = self._status_source(self.edge)
        settings = self._settings
        pages = [
            *routes(source, settings.web),
            *replay_routes(settings, SystemClock()),
            *dead_letter_routes(settings),
        ]
        return Pages(self, pages, settings.web)

    def _create_directories(self) -> None:
        """Create none: there are no tables, and the file system may be read-only."""
