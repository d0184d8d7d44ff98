"""`python -m agents.free_worker`: a worker whose model costs nothing, to measure all the rest.

Serves `free` (settings: `CORTEX_MODELS__SERVE='["free"]'`, `CORTEX_MODELS__EMBED_DEFAULT=free`).
"""

from agents.stub_worker import run_worker
from cortex_stream.inference.model import LoadedModel
from cortex_stream.loadtest.free_model import FreeRunner, free_model
from cortex_stream.settings.tree import Settings


def load_free(_: Settings) -> list[LoadedModel]:
    """Return the one model."""
    return [free_model(FreeRunner(), FreeRunner())]


if __name__ == "__main__":
    run_worker(load_free)
