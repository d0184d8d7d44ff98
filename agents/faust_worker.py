"""The process around the Faust app, whichever command started it."""

import signal
from typing import Any

import faust


class EdgeWorker(faust.Worker):
    """Faust's worker with our log and without its progress spinner."""

    def __init__(self, app: Any, *services: Any, **options: Any) -> None:
        mine = {"override_logging": False, "redirect_stdouts": False}
        super().__init__(app, *services, **(options | mine))
        self.spinner = None

    def fail(self, reason: BaseException) -> None:
        """Stop as at SIGTERM, drained and committed, but end with an exit code other than 0."""
        self.crash_reason = reason
        self._schedule_shutdown(signal.SIGTERM)
