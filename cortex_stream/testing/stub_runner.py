"""A model without weights: the same numbers for the same tokens, slow and broken on demand.

`StubRunner` passes the contract tests of `Runner`; `stub_model` is a whole `LoadedModel` around it.
"""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from cortex_stream.errors import InferenceFailed, RunInterrupted
from cortex_stream.inference import tensors
from cortex_stream.inference.model import LoadedModel, Task
from cortex_stream.inference.tensors import FloatRows
from cortex_stream.inference.tokenizer import TextTokenizer, TokenRow

_CLS, _SEP = "[CLS]", "[SEP]"
_SEEN_BATCHES: Final = 10_000


class StubRunner:
    """Gives each row a vector made of the SHA-256 of its tokens, of length one.

    Attributes:
        batches: rows of each batch that was run, the latest 10,000; read it after the runs.
        released: clear it to hold every run at its start, set it to let them go.
    """

    def __init__(
        self,
        *,
        model: str = "stub@1",
        width: int = 8,
        sleep_s_per_row: float = 0.0,
        failures: Iterator[Exception | None] | None = None,
        probe_failures: Iterator[Exception | None] | None = None,
    ) -> None:
        """Make a runner.

        Args:
            model: `name@version`.
            width: numbers per row.
            sleep_s_per_row: time that a run takes for each of its rows.
            failures: what each run raises in turn; None, or its end, lets a run succeed.
            probe_failures: the same for probes.
        """
        self.batches: list[int] = []
        self.released = threading.Event()
        self.released.set()
        self._model = model
        self._width = width
        self._sleep_s_per_row = sleep_s_per_row
        self._failures = failures or iter(())
        self._probe_failures = probe_failures or iter(())
        self._awake = threading.Event()  # ends the sleep of a run
        self._closed = self._interrupted = False

    @property
    def model(self) -> str:
        """The version it pretends to run."""
        return self._model

    @property
    def width(self) -> int:
        """Numbers per row."""
        return self._width

    def run(self, rows: Sequence[TokenRow]) -> FloatRows:
        """Return one float32 row per token row, shape `(len(rows), width)`. Blocks."""
        self._interrupted = False
        self._awake.clear()
        self.released.wait()
        if self._closed:
            raise InferenceFailed(f"running {self._model}: the runner is closed")
        self._awake.wait(self._sleep_s_per_row * len(rows))
        if self._interrupted:
            raise RunInterrupted(f"running {self._model}: interrupted")
        if (failure := next(self._failures, None)) is not None:
            raise failure
        self.batches = [*self.batches[-_SEEN_BATCHES + 1 :], len(rows)]
        if not rows:
            return np.empty((0, self._width), np.float32)
        return tensors.normalise(np.stack([_numbers(row, self._width) for row in rows]))

    def probe(self) -> None:
        """Do nothing, or fail as told."""
        self.released.wait()
        if self._closed:
            raise InferenceFailed(f"probing {self._model}: the runner is closed")
        if (failure := next(self._probe_failures, None)) is not None:
            raise failure

    def interrupt(self) -> None:
        """End the sleep of the run under way."""
        self._interrupted = True
        self._awake.set()

    def close(self) -> None:
        """Refuse further runs."""
        self._closed = True
        self._awake.set()
        self.released.set()


def stub_model(
    *,
    name: str = "stub",
    version: str = "1",
    task: Task = "embedding",
    dims: int = 8,
    labels: tuple[str, ...] = (),
    max_tokens: int = 256,
    runners: tuple[StubRunner, ...] | None = None,
) -> LoadedModel:
    """Return a model over stub runners (one by default); a text has a token per byte and two more."""
    width = dims if task == "embedding" else len(labels)
    identity = hashlib.sha256(f"{name}@{version}".encode()).hexdigest()
    return LoadedModel(
        name=name,
        version=version,
        digest=f"sha256:{identity}",
        task=task,
        dims=dims if task == "embedding" else None,
        labels=labels,
        max_tokens=max_tokens,
        provider="cpu",
        prefixes={},
        tokenizer=stub_tokenizer(max_tokens=max_tokens),
        runners=runners or (StubRunner(model=f"{name}@{version}", width=width),),
    )


def stub_tokenizer(*, max_tokens: int = 256) -> TextTokenizer:
    """Return a real tokenizer with a token per byte of UTF-8, between [CLS] and [SEP]."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["[PAD]", _CLS, _SEP, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_CLS} $A {_SEP}",
        special_tokens=[(_CLS, vocabulary[_CLS]), (_SEP, vocabulary[_SEP])],
    )
    return TextTokenizer(tokenizer, max_tokens=max_tokens)


def _numbers(row: TokenRow, width: int) -> FloatRows:
    """Draw `width` numbers from the row's SHA-256; no row depends on another."""
    seed = hashlib.sha256(row.ids.tobytes()).digest()
    drawn = np.random.default_rng(np.frombuffer(seed, np.uint32)).standard_normal(width)
    return drawn.astype(np.float32)
