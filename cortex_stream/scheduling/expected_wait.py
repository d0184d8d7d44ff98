"""How fast a lane is served, as its rows have seen that waited. Pure.

A row that begins, and came before the last eight batches of its lane began, saw the lane with work
all that time: what they took is how fast the lane is served just now, by these runners and beside
these other lanes. A runner that stood still for a while counts only as long as it is among the eight.

Owner: whoever calls it; it holds no lock.
"""

from collections import deque
from typing import Final

from cortex_stream.values import value
from schemas.priority import Lane

BATCHES: Final = 8
"""Fewer tell little: batches are of different lengths, and runners take turns."""

KNOWN_FOR_S: Final = 2.0
"""A lane whose rows have not waited through so many batches for so long may have another pace by now."""


@value()
class Pace:
    """How fast a lane is served.

    Attributes:
        token_s: seconds a token.
        tokens: how many have told it.
        learned_s: when, on the monotonic clock.
    """

    token_s: float
    tokens: int
    learned_s: float


@value()
class _Batch:
    """When a batch began, and how many rows and tokens of the lane had begun before."""

    at_s: float
    rows: int
    tokens: int


class _Line:
    """What has begun in one lane."""

    __slots__ = ("batches", "pace", "rows", "tokens")

    def __init__(self) -> None:
        self.batches: deque[_Batch] = deque(maxlen=BATCHES + 1)
        self.pace: Pace | None = None
        self.rows = self.tokens = 0


class ExpectedWait:
    """Learns from each row that begins."""

    def __init__(self) -> None:
        self._lines = {lane: _Line() for lane in Lane}

    def begun(self, lane: Lane) -> int:
        """Return how many rows of `lane` have begun; a row that comes keeps it for `began`."""
        return self._lines[lane].rows

    def began(self, lane: Lane, *, tokens: int, begun_before: int, now_s: float) -> None:
        """Count a row that begins; those of one moment are one batch."""
        line = self._lines[lane]
        if not line.batches or line.batches[-1].at_s < now_s:
            line.batches.append(_Batch(now_s, line.rows, line.tokens))
        first, this = line.batches[0], line.batches[-1]
        if len(line.batches) > BATCHES and begun_before <= first.rows:
            told = this.tokens - first.tokens
            line.pace = Pace((now_s - first.at_s) / told, told, now_s)
        line.rows += 1
        line.tokens += tokens

    def pace(self, lane: Lane, *, now_s: float) -> Pace | None:
        """Return how fast `lane` is served, or None if nobody knows."""
        pace = self._lines[lane].pace
        return None if pace is None or now_s - pace.learned_s > KNOWN_FOR_S else pace
