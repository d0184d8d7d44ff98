"""What differs between the answers of then and of now, as figures. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Matrix: TypeAlias = npt.NDArray[np.float32]

NEIGHBOURS: Final = 10
EDGES: Final = (-1.0, 0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0)
"""Of the histogram of cosines, closer where models of one family lie."""
_PLACES: Final = 6  # equal texts have equal neighbours, whatever the last bits of a product say
_ROWS_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True)
class Cosines:
    """How alike the two vectors of each text are: 1 is the same direction.

    Attributes:
        histogram: how many lie from each of `EDGES` to before the next.
    """

    texts: int
    least: float
    p01: float
    p50: float
    mean: float
    histogram: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Which part of a text's `neighbours` nearest texts is the same then and now, from 0 to 1.

    Exact, by brute force among `texts` texts; what matters to whoever searches with the vectors.
    """

    texts: int
    neighbours: int
    mean: float
    p01: float


@dataclass(frozen=True, slots=True)
class Flips:
    """Texts that have another best label now.

    Attributes:
        moves: (then, now, texts), the most common first.
        share: the part that flipped, from 0 to 1.
    """

    texts: int
    flipped: int
    moves: tuple[tuple[str, str, int], ...]
    share: float


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle and the far end of some figures, in their own unit."""

    count: int
    mean: float
    p50: float
    p99: float


def cosines(then: Matrix, now: Matrix) -> Cosines | None:
    """Return how alike rows of the same index are; None without rows.

    Both have the shape (texts, dims). A row of zeros is like nothing: its cosine is 0.
    """
    if not len(then):
        return None
    a, b = then.astype(np.float64), now.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = np.einsum("ij,ij->i", a, b)
    found = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    found = np.clip(found, -1.0, 1.0)
    counts, _ = np.histogram(found, bins=EDGES)
    return Cosines(
        texts=len(found),
        least=float(found.min()),
        p01=float(np.percentile(found, 1)),
        p50=float(np.percentile(found, 50)),
        mean=float(found.mean()),
        histogram=tuple(int(each) for each in counts),
    )


def overlap(then: Matrix, now: Matrix, *, neighbours: int = NEIGHBOURS) -> Overlap | None:
    """Return how many of each row's nearest rows are the same; None with fewer than two rows.

    Rows of one index belong together; the two may have different widths.
    """
    texts = len(then)
    wanted = min(neighbours, texts - 1)
    if wanted < 1:
        return None
    nearest_then, nearest_now = _nearest(then, wanted), _nearest(now, wanted)
    shares = np.array(
        [
            len(np.intersect1d(a, b, assume_unique=True)) / wanted
            for a, b in zip(nearest_then, nearest_now, strict=True)
        ]
    )
    return Overlap(texts, wanted, float(shares.mean()), float(np.percentile(shares, 1)))


def flips(labels: Sequence[tuple[str, str]], *, most_moves: int = 20) -> Flips:
    """Return what became of the best labels, given (then, now) of each text."""
    moves = Counter((then, now) for then, now in labels if then != now)
    common = sorted(moves.items(), key=lambda each: (-each[1], each[0]))[:most_moves]
    flipped = sum(moves.values())
    return Flips(
        texts=len(labels),
        flipped=flipped,
        moves=tuple((then, now, texts) for (then, now), texts in common),
        share=flipped / len(labels) if labels else 0.0,
    )


def spread(figures: Sequence[float]) -> Spread | None:
    """Return mean, median and 99th percentile; None of nothing."""
    if not figures:
        return None
    values = np.asarray(figures, np.float64)
    p50, p99 = np.percentile(values, (50, 99))
    return Spread(len(values), float(values.mean()), float(p50), float(p99))


def _nearest(vectors: Matrix, count: int) -> npt.NDArray[np.intp]:
    """Return the indices of each row's `count` nearest other rows by cosine, in no order.

    Of rows that are equally near, those that come first count.
    """
    rows = vectors.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    found = np.empty((len(rows), count), np.intp)
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        near = np.round(rows[begin : begin + _ROWS_AT_ONCE] @ rows.T, _PLACES)
        near[np.arange(len(near)), np.arange(begin, begin + len(near))] = -np.inf  # not itself
        found[begin : begin + len(near)] = np.argsort(-near, axis=1, kind="stable")[:, :count]
    return found
