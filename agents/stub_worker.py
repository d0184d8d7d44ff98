"""`python -m agents.stub_worker`: a worker whose model only sleeps, to measure all the rest.

Serves `free` (settings: `CORTEX_MODELS__SERVE='["free"]'`, `CORTEX_MODELS__EMBED_DEFAULT=free`) by two
runners that take 2 ms for each row, and no processor: one worker does 1,000 rows per second on any
machine.
"""

from collections.abc import Callable
from typing import Final

from agents.faust_app import EdgeApp
from agents.faust_worker import EdgeWorker
from cortex_stream.bootstrap.status import WorkerStatus
from cortex_stream.bootstrap.worker import build_worker
from cortex_stream.inference.model import LoadedModel
from cortex_stream.loadtest.free_model import FreeRunner, free_model
from cortex_stream.settings.tree import Settings, load_settings
from cortex_stream.telemetry.logging import configure_logging

_RUNNERS: Final = 2
_SLEEP_S_PER_ROW: Final = 0.002


def load_stub(_: Settings) -> list[LoadedModel]:
    """Return the one model."""
    return [free_model(*(FreeRunner(sleep_s_per_row=_SLEEP_S_PER_ROW) for _ in range(_RUNNERS)))]


def run_worker(load: Callable[[Settings], list[LoadedModel]]) -> None:
    """Run a worker that serves what `load` gives, until a signal."""
    settings = load_settings()
    configure_logging(settings)
    worker = build_worker(settings, load=load)
    app = EdgeApp(settings, worker, lambda edge: WorkerStatus(worker, edge))
    app.finalize()
    EdgeWorker(app, quiet=True).execute_from_commandline()


if __name__ == "__main__":
    run_worker(load_stub)
