"""The process around the Faust app, whichever command started it."""

import signal
from enum import IntEnum
from typing import Any

import faust


class ExitCode(IntEnum):
    """How the process ended. What a supervisor does about each: docs/operations/supervision.md."""

    STOPPED = 0
    FAILED = 1
    MISCONFIGURED = 2
    CUT_OFF = 3
    STALLED = 4


class EdgeWorker(faust.Worker):
    """Faust's worker with our log and without its progress spinner."""

    def __init__(self, app: Any, *services: Any, **options: Any) -> None:
        mine = {"override_logging": False, "redirect_stdouts": False}
        super().__init__(app, *services, **(options | mine))
        self.spinner = None

    def fail(self, code: ExitCode) -> None:
        """Stop as at SIGTERM, drained and committed, but end with `code`."""
        self.crash_reason = SystemExit(code)
        self._schedule_shutdown(signal.SIGTERM)
