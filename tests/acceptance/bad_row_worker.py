"""A worker as in production, but for its model, which fails whenever a row of a given length is in."""

import sys
from collections.abc import Sequence
from functools import partial

from agents.stub_worker import run_worker
from cortex_stream.bootstrap.worker import known_models
from cortex_stream.errors import InferenceFailed
from cortex_stream.inference.model import LoadedModel
from cortex_stream.inference.tensors import FloatRows
from cortex_stream.inference.tokenizer import TokenRow
from cortex_stream.settings.tree import Settings
from cortex_stream.testing.stub_runner import StubRunner, stub_model


class BadRowRunner(StubRunner):
    """Runs no batch with a row of so many tokens, whatever else is in it."""

    def __init__(self, *, model: str, bad_tokens: int) -> None:
        super().__init__(model=model, sleep_s_per_row=0.2)
        self._bad_tokens = bad_tokens

    def run(self, rows: Sequence[TokenRow]) -> FloatRows:
        if any(row.tokens == self._bad_tokens for row in rows):
            raise InferenceFailed("the graph breaks on this row")
        return super().run(rows)


def load_fragile(bad_tokens: int, settings: Settings) -> list[LoadedModel]:
    [known] = known_models(settings)
    name, version = known.identity.name, known.identity.version
    runner = BadRowRunner(model=known.reference, bad_tokens=bad_tokens)
    return [stub_model(name=name, version=version, runners=(runner,))]


if __name__ == "__main__":
    run_worker(partial(load_fragile, int(sys.argv.pop())))
