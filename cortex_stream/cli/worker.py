"""`cortex-stream worker`: become a worker."""

import os
import sys

from cortex_stream.settings.tree import load_settings


def worker() -> None:
    """Run a worker in this terminal, until Ctrl-C or SIGTERM.

    It takes requests from Kafka, runs models and puts outcomes back.
    Settings come from the environment and are checked first.
    """
    load_settings()
    # In place of this process: signals of a supervisor reach the worker, and the command line
    # never imports upward (agents -> cortex_stream).
    os.execv(sys.executable, [sys.executable, "-m", "agents"])  # noqa: S606 (no shell wanted)
