"""Looks at the memory in use every second, and pauses lanes while it is short.

Invariants: what is paused is exactly what the last look decided; every change is logged with its
figures.
Owner: the event loop that runs it; only free heap memory is given back in a thread.
"""

import asyncio
import errno
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import structlog

from cortex_stream.clock import Clock
from cortex_stream.errors import CortexError, ResourceExhausted
from cortex_stream.scheduling.admission import Admission
from cortex_stream.scheduling.watermarks import (
    MemoryState,
    Pressure,
    Watermarks,
    decide_pressure,
    decide_watermarks,
)
from cortex_stream.settings.sections import MemorySettings
from cortex_stream.telemetry import metrics
from cortex_stream.telemetry.process_memory import MemoryUse
from schemas.priority import Lane

LOOK_EVERY_S: Final = 1.0
_NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)
_MOST_BLIND_LOOKS: Final = 30
"""In a row, for want of a file descriptor. Other errors are not waited for."""

_MIB: Final = 1 << 20

log = structlog.stdlib.get_logger(__name__)


class MemoryWatch:
    """Decides which topics may be polled, by the memory in use.

    Attributes:
        use: what the last look found; None before the first.
        pressure: what it decided.
        shed_s: how long each lane has been paused since the start.
    """

    def __init__(
        self,
        admission: Admission,
        settings: MemorySettings,
        *,
        topics: Mapping[Lane, Iterable[str]],
        measure: Callable[[], MemoryUse],
        give_back: Callable[[], None],
        clock: Clock,
        on_failure: Callable[[CortexError], None],
    ) -> None:
        """Watch for `admission`; nothing happens before `run`.

        Args:
            admission: gets the paused topics.
            settings: the marks.
            topics: those that feed each lane, by their names on the cluster.
            measure: returns the use of the limit that is nearest.
            give_back: returns free memory to the system; blocks.
            clock: for the time of recovery.
            on_failure: told when only a restart can make memory free.
        """
        self.use: MemoryUse | None = None
        self.pressure = Pressure()
        self.shed_s = dict.fromkeys(Lane, 0.0)
        self._admission = admission
        self._settings = settings
        self._topics = {lane: frozenset(topics.get(lane, ())) for lane in Lane}
        self._measure = measure
        self._give_back = give_back
        self._clock = clock
        self._on_failure = on_failure
        self._looked_s: float | None = None

    async def run(self) -> None:
        """Look until cancelled, or until only a restart can make memory free."""
        try:
            self._log_plan()
            blind_looks = 0
            while True:
                try:
                    use = await self.look()
                except OSError as error:
                    if error.errno not in _NO_DESCRIPTOR or blind_looks == _MOST_BLIND_LOOKS:
                        raise
                    blind_looks += 1
                    log.warning("memory.not_measured", message=str(error))
                else:
                    blind_looks = 0
                    now_s, after_s = self._clock.monotonic_s(), self._settings.recovery_s
                    if self.pressure.hopeless(now_s=now_s, after_s=after_s):
                        self._on_failure(_hopeless(use))
                        return
                await asyncio.sleep(LOOK_EVERY_S)
        except Exception as error:  # rather restart than go on unguarded
            self._on_failure(CortexError(f"watching the memory: {error!r}; this is a bug"))
            raise

    async def look(self) -> MemoryUse:
        """Measure, decide, pause; return what was measured."""
        use = self._measure()
        if use.used_bytes >= self._marks(use).warn_bytes:
            await asyncio.to_thread(self._give_back)
            use = self._measure()
        now_s, before = self._clock.monotonic_s(), self.pressure
        self._count(before, now_s)
        self.use = use
        self.pressure = decide_pressure(
            before,
            self._marks(use),
            used_bytes=use.used_bytes,
            idle=self._admission.held_bytes() == 0,
            now_s=now_s,
            recovery_s=self._settings.recovery_s,
        )
        self._pause()
        self._show(use)
        if (self.pressure.state, self.pressure.shed) != (before.state, before.shed):
            self._log_change(use, before)
        return use

    def _marks(self, use: MemoryUse) -> Watermarks:
        settings = self._settings
        return decide_watermarks(
            use.limit_bytes,
            warn_ratio=settings.warn_ratio,
            critical_ratio=settings.critical_ratio,
            reserve_bytes=settings.reserve,
        )

    def _pause(self) -> None:
        if self.pressure.stopped:
            self._admission.paused = self._admission.topics
        else:
            shed = (self._topics[lane] for lane in self.pressure.lanes)
            self._admission.paused = frozenset().union(*shed)

    def _count(self, before: Pressure, now_s: float) -> None:
        """Add the time since the last look to the lanes that were paused."""
        since_s = now_s - (now_s if self._looked_s is None else self._looked_s)
        self._looked_s = now_s
        for lane in before.lanes:
            self.shed_s[lane] += since_s
            metrics.LANE_SHED_SECONDS.labels(lane.value).inc(since_s)

    def _show(self, use: MemoryUse) -> None:
        metrics.MEMORY_USED_BYTES.set(use.used_bytes)
        metrics.MEMORY_LIMIT_BYTES.set(use.limit_bytes)
        for state in MemoryState:
            metrics.MEMORY_STATE.labels(state.value).set(state is self.pressure.state)

    def _log_change(self, use: MemoryUse, before: Pressure) -> None:
        pressure = self.pressure
        say = {MemoryState.SHEDDING: log.warning, MemoryState.STOPPED: log.error}
        say.get(pressure.state, log.info)(
            f"memory.{pressure.state.value}",
            was=before.state.value,
            paused=[lane.value for lane in pressure.lanes],
            used_mib=use.used_bytes // _MIB,
            limit_mib=use.limit_bytes // _MIB,
            share=round(use.ratio, 3),
            source=use.source,
            held_mib=self._admission.held_bytes() // _MIB,
        )

    def _log_plan(self) -> None:
        """Say at the start whether what may be admitted fits below the mark."""
        use = self._measure()
        marks, most_bytes = self._marks(use), self._admission.total_bytes
        fits = use.used_bytes + most_bytes <= marks.warn_bytes
        (log.info if fits else log.warning)(
            "memory.plan",
            used_mib=use.used_bytes // _MIB,
            lanes_most_mib=most_bytes // _MIB,
            shed_from_mib=marks.warn_bytes // _MIB,
            stop_from_mib=marks.critical_bytes // _MIB,
            limit_mib=use.limit_bytes // _MIB,
            source=use.source,
            repair=None if fits else "full lanes may be shed: set CORTEX_LANES__TOTAL_BYTES lower",
        )


def _hopeless(use: MemoryUse) -> ResourceExhausted:
    return ResourceExhausted(
        f"taking in requests: {use.used_bytes // _MIB} of {use.limit_bytes // _MIB} MiB"
        f" ({use.source}) are used with no request in the process, so waiting cannot help;"
        " serve fewer models, or raise the limit"
    )
