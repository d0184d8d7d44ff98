"""A worker that serves three versions of a model: the second gives the first's vectors, reversed.

Their cosines are -1, their neighbours the same; the third gives the first's vectors as they are.
`wide@1` gives 16 numbers for each text, not 8.
"""

from collections.abc import Sequence

from agents.stub_worker import run_worker
from cortex_stream.inference.model import LoadedModel
from cortex_stream.inference.tensors import FloatRows
from cortex_stream.inference.tokenizer import TokenRow
from cortex_stream.settings.tree import Settings
from cortex_stream.testing.stub_runner import StubRunner, stub_model


class ReversedRunner(StubRunner):
    def run(self, rows: Sequence[TokenRow]) -> FloatRows:
        return -super().run(rows)


def load(_: Settings) -> list[LoadedModel]:
    """Return the versions; of several the last is meant by the name alone."""
    return [
        stub_model(name="wide", dims=16),
        stub_model(version="3"),
        stub_model(version="2", runners=(ReversedRunner(model="stub@2"),)),
        stub_model(version="1"),
    ]


if __name__ == "__main__":
    run_worker(load)
