"""Watches that everything that is assigned gets on, and ends the process when it does not.

Owner: the worker's event loop; `_guard` is a thread of its own, which watches that loop.
"""

import faulthandler
import os
import threading
from collections.abc import Callable
from typing import Final

import structlog
from mode import Service

from agents.faust_worker import ExitCode
from agents.intake import Intake
from agents.status import EdgeStatus
from cortex_stream.clock import SystemClock
from cortex_stream.errors import Stalled
from cortex_stream.kafka.progress import ProgressWatch, reasons

_LOOK_EVERY_S: Final = 1.0

log = structlog.stdlib.get_logger(__name__)


class Watchdog(Service):
    """Tells `edge` at once what stalls; calls `on_stall` when that lasts.

    Args:
        edge: knows the partitions, and shows the reasons.
        intake: knows the outcomes that are under way.
        timeout_s: from then on only a restart can help.
        on_stall: ends the process, drained.
    """

    def __init__(
        self,
        edge: EdgeStatus,
        intake: Intake,
        *,
        timeout_s: float,
        on_stall: Callable[[Stalled], None],
    ) -> None:
        super().__init__()
        self._edge = edge
        self._intake = intake
        self._timeout_s = timeout_s
        self._on_stall = on_stall
        self._looks = 0
        self._over = threading.Event()

    async def on_start(self) -> None:
        """Begin to watch; the consumer has started."""
        threading.Thread(target=self._guard, name="watchdog", daemon=True).start()

    async def on_stop(self) -> None:
        """Stop watching: whoever stops the process bounds that by itself."""
        self._over.set()

    @Service.task
    async def _watch(self) -> None:
        clock = SystemClock()
        progress = ProgressWatch(timeout_s=self._timeout_s)
        while not self.should_stop:
            self._looks += 1
            overdue = progress.look(
                self._edge.standings(),
                turns=self._edge.turns,
                oldest_outcome=self._intake.outbox.oldest,
                now_s=clock.monotonic_s(),
            )
            self._show(reasons(overdue))
            if overdue and overdue[0].for_s >= self._timeout_s:
                self._on_stall(Stalled("; ".join(self._edge.stalls)))
                return
            await self.sleep(_LOOK_EVERY_S)

    def _show(self, stalls: tuple[str, ...]) -> None:
        if stalls and not self._edge.stalls:
            log.warning("progress.stalled", reasons=stalls, exit_after_s=self._timeout_s)
        elif self._edge.stalls and not stalls:
            log.info("progress.again", after=self._edge.stalls)
        self._edge.stalls = stalls

    def _guard(self) -> None:
        """End the process when its event loop hangs: nobody there could answer a probe or a signal.

        Counts its own turns, not the clock, so that a process that was stopped may catch up.
        """
        seen, silent_s = -1, 0.0
        while not self._over.wait(_LOOK_EVERY_S):
            silent_s = silent_s + _LOOK_EVERY_S if self._looks == seen else 0.0
            seen = self._looks
            if silent_s >= self._timeout_s:
                # The log may be what hangs.
                threading.Timer(_LOOK_EVERY_S, os._exit, (ExitCode.STALLED,)).start()
                faulthandler.dump_traceback()
                log.critical("worker.hanging", event_loop_silent_s=silent_s)
                os._exit(ExitCode.STALLED)
