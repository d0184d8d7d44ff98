"""The app of this process, for `faust -A agents.app worker` and for `python -m agents`."""

from typing import Final

from agents.faust_app import EdgeApp
from cortex_stream.bootstrap.status import WorkerStatus
from cortex_stream.bootstrap.worker import build_worker
from cortex_stream.settings.tree import load_settings
from cortex_stream.telemetry.logging import configure_logging

_settings: Final = load_settings()
configure_logging(_settings)
_worker: Final = build_worker(_settings)

app: Final = EdgeApp(_settings, _worker, lambda edge: WorkerStatus(_worker, edge))
