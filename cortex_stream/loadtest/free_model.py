"""A model that costs no processor time, so that what is measured is all the rest."""

import threading
from collections.abc import Sequence
from typing import Final

import numpy as np

from cortex_stream.errors import RunInterrupted
from cortex_stream.inference.model import LoadedModel
from cortex_stream.inference.tensors import FloatRows, normalise
from cortex_stream.inference.tokenizer import TextTokenizer, TokenRow

NAME: Final = "free"
ENVIRONMENT: Final = {
    "CORTEX_MODELS__SERVE": f'["{NAME}"]',
    "CORTEX_MODELS__EMBED_DEFAULT": NAME,
}
"""Settings of a worker that serves it."""
_DIMS: Final = 384
_MAX_TOKENS: Final = 256
_ROW: Final = TokenRow(np.arange(1, 18))  # 17 tokens, as a short text has
_VECTORS: Final = 1024  # as many different ones, so that outcomes compress no better than real ones


class FreeRunner:
    """Answers every row with some vector of length one, at once or after some sleep.

    Attributes:
        released: clear it to hold every run at its start, set it to let them go.
    """

    model = f"{NAME}@1"
    width = _DIMS

    def __init__(self, *, sleep_s_per_row: float = 0.0) -> None:
        """Take `sleep_s_per_row` for each row of a run, without a processor."""
        self.released = threading.Event()
        self.released.set()
        self._sleep_s_per_row = sleep_s_per_row
        self._interrupted = threading.Event()  # ends the sleep of a run
        drawn = np.random.default_rng(7).standard_normal((_VECTORS, _DIMS))
        self._vectors = normalise(drawn.astype(np.float32))
        self._given = 0

    def run(self, rows: Sequence[TokenRow]) -> FloatRows:
        """Return the next vectors, one per row.

        Raises:
            RunInterrupted: `interrupt` was called while it slept.
        """
        self._interrupted.clear()
        self.released.wait()
        if self._sleep_s_per_row and self._interrupted.wait(self._sleep_s_per_row * len(rows)):
            raise RunInterrupted(f"running {self.model}: interrupted")
        begin = self._given % (_VECTORS - len(rows))
        self._given += len(rows)
        return self._vectors[begin : begin + len(rows)]

    def probe(self) -> None:
        """Return: it is always well."""

    def interrupt(self) -> None:
        """End the sleep of the run under way."""
        self._interrupted.set()

    def close(self) -> None:
        """Do nothing."""


class _FreeTokenizer(TextTokenizer):
    """Gives every text the same tokens without reading it."""

    def __init__(self) -> None:
        self.max_tokens = _MAX_TOKENS

    def encode(self, texts: Sequence[str], *, prefix: str = "") -> list[TokenRow]:  # noqa: ARG002
        return [_ROW for _ in texts]


def free_model(*runners: FreeRunner) -> LoadedModel:
    """Return the model over `runners`."""
    return LoadedModel(
        name=NAME,
        version="1",
        digest=f"sha256:{0:064}",
        task="embedding",
        dims=_DIMS,
        labels=(),
        max_tokens=_MAX_TOKENS,
        provider="cpu",
        prefixes={},
        tokenizer=_FreeTokenizer(),
        runners=runners,
    )
