"""Text to token ids, with the tokenizer that a model was trained with.

Invariants:
    No padding happens here: the runner pads a batch to its own longest row.
    Tokens are counted as they run, special tokens included.

Owner: any thread; a tokenizer keeps no state between calls.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from cortex_stream.errors import ModelLoadFailed

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class TokenRow:
    """One text as a model reads it.

    Attributes:
        ids: token ids, shape `(tokens,)`, at least one. An array, as it takes a fifth of a list's
            memory while it waits and is copied into a batch without conversion.
        truncated: whether the text was longer than the model reads.
    """

    ids: Ids
    truncated: bool = False

    @property
    def tokens(self) -> int:
        """How many tokens run, special tokens included."""
        return len(self.ids)


class TextTokenizer:
    """Cuts texts into at most `max_tokens` tokens, special tokens included."""

    def __init__(self, tokenizer: Tokenizer, *, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._tokenizer = tokenizer
        # `tokenizer.json` as shipped often pads and truncates to 128: the manifest decides.
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)

    @classmethod
    def from_file(cls, path: Path, *, max_tokens: int) -> Self:
        """Open a `tokenizer.json`.

        Raises:
            ModelLoadFailed: it is none.
        """
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exception
            raise ModelLoadFailed(f"opening the tokenizer {path}: {error}") from error
        return cls(tokenizer, max_tokens=max_tokens)

    def encode(self, texts: Sequence[str], *, prefix: str = "") -> list[TokenRow]:
        """Return one row per text, in order. Takes about 0.05 ms a text of 40 tokens.

        Args:
            texts: NFC, without lone surrogates.
            prefix: put before every text, as `"query: "` for models trained so.
        """
        # The fast call computes no character offsets (a fifth less work) and lets other threads run.
        encodings = self._tokenizer.encode_batch_fast([prefix + text for text in texts])
        return [
            TokenRow(np.array(encoding.ids, np.int64), truncated=bool(encoding.overflowing))
            for encoding in encodings
        ]
