"""The arithmetic around a model run: rows to tensors, tensors to vectors. Pure.

Every function treats each row on its own, so nothing here makes an answer depend on its batch.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

IntRows = npt.NDArray[np.int64]
FloatRows = npt.NDArray[np.float32]
FloatTokens = npt.NDArray[np.floating]
"""Hidden states as a model gives them, shape `(rows, tokens, dims)`, float32 or float16."""

_TINY = np.float32(1e-12)  # keeps a zero vector zero instead of NaN; far below any real length


def pad(rows: Sequence[IntRows]) -> tuple[IntRows, IntRows]:
    """Return ids and attention mask, each of shape `(rows, longest)`, zeros at the end."""
    shape = (len(rows), max(map(len, rows)))
    ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask


def pool_mean(hidden: FloatTokens, lengths: Sequence[int]) -> FloatRows:
    """Return the mean of each row's real tokens, shape `(rows, dims)`.

    Padding is not read, rather than read and multiplied by zero: less work, and the sum of a row
    has the same terms in the same order in any company.
    """
    pooled = np.empty((hidden.shape[0], hidden.shape[2]), np.float32)
    for index, length in enumerate(lengths):
        np.mean(hidden[index, :length], axis=0, dtype=np.float32, out=pooled[index])
    return pooled


def pool_cls(hidden: FloatTokens) -> FloatRows:
    """Return each row's first token, shape `(rows, dims)`."""
    return np.ascontiguousarray(hidden[:, 0], dtype=np.float32)


def normalise(vectors: FloatRows) -> FloatRows:
    """Return each row at Euclidean length one; zero stays zero."""
    squares: FloatRows = np.einsum("rd,rd->r", vectors, vectors)
    lengths: FloatRows = np.maximum(np.sqrt(squares), _TINY)
    return vectors / lengths[:, None]


def softmax(scores: FloatRows) -> FloatRows:
    """Return shares that sum to one over the last axis; large scores do not overflow."""
    powers: FloatRows = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: FloatRows = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def sigmoid(scores: FloatRows) -> FloatRows:
    """Return each score between 0 and 1 on its own; large scores do not overflow."""
    # 1 / (1 + e^-x) = (1 + tanh(x / 2)) / 2, and tanh saturates where e^-x overflows.
    shares: FloatRows = np.float32(0.5) * (1 + np.tanh(np.float32(0.5) * scores))
    return shares
