"""A worker as in production, but for its model, whose runs never end once a text is long.

Every other text takes a tenth of a second.
"""

import threading
from collections.abc import Sequence
from unittest.mock import patch

from agents.faust_app import EdgeApp
from agents.faust_worker import EdgeWorker
from cortex_stream.bootstrap import worker as bootstrap
from cortex_stream.bootstrap.status import WorkerStatus
from cortex_stream.inference.tensors import FloatRows
from cortex_stream.inference.tokenizer import TokenRow
from cortex_stream.settings.tree import load_settings
from cortex_stream.telemetry.logging import configure_logging
from cortex_stream.testing.stub_runner import StubRunner, stub_model

LONG_TOKENS = 50


class StickyRunner(StubRunner):
    def run(self, rows: Sequence[TokenRow]) -> FloatRows:
        """Return the stub's numbers, or never."""
        if any(row.tokens > LONG_TOKENS for row in rows):
            threading.Event().wait()
        return super().run(rows)


def main() -> None:
    settings = load_settings()
    configure_logging(settings)
    runners = tuple(StickyRunner(model="minilm@1", sleep_s_per_row=0.1) for _ in range(2))
    model = stub_model(name="minilm", runners=runners)
    with patch.object(bootstrap, "load_models", return_value=[model]):
        worker = bootstrap.build_worker(settings)
        app = EdgeApp(settings, worker, lambda edge: WorkerStatus(worker, edge))
        app.finalize()
        EdgeWorker(app, quiet=True).execute_from_commandline()


if __name__ == "__main__":
    main()
