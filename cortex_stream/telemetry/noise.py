"""Keeps the log readable while libraries shout: repeats are counted, known false alarms lowered.

A broker that is away makes aiokafka write about 110 error lines a second. One line per place in
the code and ten seconds says as much, and carries the number of those that were left out.

Invariants: nothing of ours is ever left out, only lines of the loggers in `_REPEATING`.
Owner: any thread; two threads that meet may let one line more through.
"""

import logging
from typing import Final

from cortex_stream.clock import Clock

_REPEATING: Final = ("aiokafka", "faust.transport")
_EVERY_S: Final = 10.0

# Faust measures commits and stream progress in a way that cries wolf when a topic is idle or when
# records arrive in batches. Lag is on the status page and in the metrics.
_FALSE_ALARMS: Final = (
    "Has not committed",
    "Stream has not started processing",
    "Stream stopped processing, or is slow",
)


class Quiet(logging.Filter):
    """A filter for our one handler."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        # Keyed by the line of code: bounded, and blind to what a message interpolates.
        self._seen: dict[tuple[str, int], _Seen] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the line is written; it may get a `suppressed` count or a lower level."""
        if not record.name.startswith(("aiokafka", "faust", "mode")):
            return True
        if any(alarm in str(record.msg) for alarm in _FALSE_ALARMS):
            record.levelno, record.levelname = logging.DEBUG, "DEBUG"
            return logging.getLogger().isEnabledFor(logging.DEBUG)
        if not record.name.startswith(_REPEATING):
            return True
        return self._is_due(record)

    def _is_due(self, record: logging.LogRecord) -> bool:
        now_s = self._clock.monotonic_s()
        seen = self._seen.setdefault((record.pathname, record.lineno), _Seen())
        if now_s < seen.next_s:
            seen.suppressed += 1
            return False
        if seen.suppressed:
            record.suppressed = seen.suppressed
        seen.suppressed, seen.next_s = 0, now_s + _EVERY_S
        return True


class _Seen:
    """How often one line of code spoke since its last written line, and when it may again."""

    __slots__ = ("next_s", "suppressed")

    def __init__(self) -> None:
        self.suppressed = 0
        self.next_s = float("-inf")
