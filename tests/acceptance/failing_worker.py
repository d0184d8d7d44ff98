"""A worker as in production, but for its model, whose first runs fail: as many as the argument says."""

import itertools
import sys
from functools import partial

from agents.stub_worker import run_worker
from cortex_stream.bootstrap.worker import known_models
from cortex_stream.errors import InferenceFailed
from cortex_stream.inference.model import LoadedModel
from cortex_stream.settings.tree import Settings
from cortex_stream.testing.stub_runner import StubRunner, stub_model


def load_failing(times: int, settings: Settings) -> list[LoadedModel]:
    [known] = known_models(settings)
    name, version = known.identity.name, known.identity.version
    failures = itertools.repeat(InferenceFailed("the device is gone"), times)
    runner = StubRunner(model=known.reference, failures=failures)
    return [stub_model(name=name, version=version, runners=(runner,))]


if __name__ == "__main__":
    run_worker(partial(load_failing, int(sys.argv.pop())))
