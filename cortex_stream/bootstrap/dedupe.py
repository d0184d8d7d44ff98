"""The dedupe window of a worker, or why it has none."""

from cortex_stream.circuit import Circuit
from cortex_stream.clock import Clock
from cortex_stream.dedupe.redis_memory import RedisMemory
from cortex_stream.dedupe.window import DedupeWindow
from cortex_stream.settings.tree import Settings
from cortex_stream.web.status import DedupeStatus
from topics.names import VALIDATION


class Dedupe:
    """The parts of the window, and how they are.

    Attributes:
        window: None when the settings leave it out.
    """

    def __init__(self, settings: Settings, *, clock: Clock) -> None:
        """Put the parts together; nothing connects yet.

        Raises:
            OperatorError: REDIS_URL cannot be read.
        """
        self.window: DedupeWindow | None = None
        self._window_s = settings.dedupe.window_s
        self._left_out = _why_left_out(settings)
        if self._left_out is not None or settings.redis_url is None:
            return
        self._circuit = Circuit("redis", clock=clock)
        self._memory = RedisMemory(settings.redis_url, window_s=self._window_s)
        self.window = DedupeWindow(self._memory, self._circuit, system=settings.kafka.topic_prefix)

    async def run(self) -> None:
        """Answer the window's questions until cancelled; at once when there is none."""
        if self.window is None:
            return
        try:
            await self.window.run()
        finally:
            await self._memory.close()

    def status(self) -> DedupeStatus:
        """Return how the window is, for the pages."""
        if self._left_out is not None:
            return DedupeStatus(on=False, detail=self._left_out)
        outage = self._circuit.outage
        if outage is not None:
            rests_s = self._circuit.rests_s
            until = f"for {rests_s:g} s more" if rests_s else "until the next request tries it"
            detail = f"circuit open {until}: {outage.reason}"
            return DedupeStatus(on=False, detail=detail, off_since_unix_ms=outage.since_unix_ms)
        return DedupeStatus(on=True, detail=f"ids are remembered for {self._window_s:g} s")


def _why_left_out(settings: Settings) -> str | None:
    if settings.redis_url is None:
        return "REDIS_URL is not set"
    if settings.dedupe.window_s == 0:
        return "CORTEX_DEDUPE__WINDOW_S is 0"
    if VALIDATION not in settings.worker.stages:
        return "requests are validated by other workers"
    return None
