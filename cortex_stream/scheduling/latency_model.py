"""How long a batch of one model version will take, learned from the batches that ran.

The time is a + b * tokens, the tokens counted with their padding (rows times the longest): a line
fitted by least squares, in which a batch counts half as much as one that ran `HALF_LIFE` later. So
it follows a machine that gets slower, and forgets the first batches after a start.

Owner: whoever calls it; it holds no lock.
"""

from math import inf
from typing import Final

HALF_LIFE: Final = 500
"""Batches after which an observation counts half: some ten seconds of a busy CPU."""

MIN_OBSERVATIONS: Final = 20
"""Before so many batches nothing is predicted."""

_MOST_TIMES: Final = 10.0
"""Times its prediction that a batch counts for at most: a process may have been stopped under one,
and hundreds of others would be predicted by that."""

_DOUBT_EVERY_S: Final = 1.0
_KEPT: Final = 0.5 ** (1 / HALF_LIFE)


class LatencyModel:
    """Predicts the seconds of a batch from its padded tokens."""

    def __init__(self) -> None:
        self._observed = 0
        self._weight = self._x = self._y = self._xx = self._xy = 0.0
        self._doubted_s = -inf

    def observe(self, padded_tokens: int, *, spent_s: float) -> None:
        """Learn from a batch that has run."""
        predicted_s = self.predict_s(padded_tokens)
        self._observed += 1
        x, y = float(padded_tokens), spent_s
        if predicted_s:
            y = min(y, _MOST_TIMES * predicted_s)
        self._forget(_KEPT)
        self._weight += 1
        self._x += x
        self._y += y
        self._xx += x * x
        self._xy += x * y

    def doubt(self, *, now_s: float) -> bool:
        """Let what was learned count half, so that the next run tells much; once a second at most.

        Tell whether a second has passed.
        """
        if now_s - self._doubted_s < _DOUBT_EVERY_S:
            return False
        self._doubted_s = now_s
        self._forget(0.5)
        return True

    def predict_s(self, padded_tokens: int) -> float | None:
        """Return the seconds that a batch will take, or None while too few have run."""
        if self._observed < MIN_OBSERVATIONS:
            return None
        base_s, per_token_s = self.line()
        return base_s + per_token_s * padded_tokens

    def line(self) -> tuple[float, float]:
        """Return a and b, seconds and seconds per padded token; neither is negative.

        Where every batch had the same size the whole time counts as b, and before the first batch
        both are 0.
        """
        if not self._x:
            return 0.0, 0.0
        spread = self._weight * self._xx - self._x * self._x
        if spread > 1e-9 * self._weight * self._xx:
            per_token_s = (self._weight * self._xy - self._x * self._y) / spread
            base_s = (self._y - per_token_s * self._x) / self._weight
            if per_token_s >= 0 and base_s >= 0:
                return base_s, per_token_s
            if per_token_s < 0:
                return self._y / self._weight, 0.0
        return 0.0, self._xy / self._xx

    def _forget(self, kept: float) -> None:
        self._weight *= kept
        self._x *= kept
        self._y *= kept
        self._xx *= kept
        self._xy *= kept
