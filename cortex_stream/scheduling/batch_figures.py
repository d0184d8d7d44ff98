"""What the batches of one model were like: for the pages and the metrics.

Owner: the event loop.
"""

from collections.abc import Sequence
from typing import TypeVar

from cortex_stream.clock import Clock
from cortex_stream.scheduling.batcher import padded_tokens
from cortex_stream.scheduling.fair_queue import Row
from cortex_stream.telemetry import metrics
from cortex_stream.telemetry.rates import RateMeter
from schemas.priority import Lane

T = TypeVar("T")


class BatchFigures:
    """Counts batches that ran."""

    def __init__(self, model: str, *, clock: Clock) -> None:
        """Count the batches of `model`, given as `name@version`."""
        self.rates = RateMeter(clock=clock)
        """`batches`, `rows`, `real` and `padding` tokens, and seconds, `measured` and `predicted`."""
        self.lane_tokens = RateMeter(clock=clock)
        """Tokens that ran, by lane: who got how much of the runners."""
        self._rows = metrics.BATCH_ROWS.labels(model)
        self._padding_ratio = metrics.BATCH_PADDING_RATIO.labels(model)
        self._tokens = {kind: metrics.BATCH_TOKENS.labels(model, kind) for kind in _TOKENS}
        self._seconds = {kind: metrics.BATCH_SECONDS.labels(model, kind) for kind in _SECONDS}
        self._lane_tokens = {lane: metrics.LANE_TOKENS.labels(lane.value) for lane in Lane}

    def ran(self, batch: Sequence[Row[T]], *, spent_s: float, predicted_s: float | None) -> None:
        """Count a batch that gave numbers. Without a prediction its seconds are left out."""
        padded = padded_tokens(batch)
        for row in batch:
            self._lane_tokens[row.lane].inc(row.length_tokens)
            self.lane_tokens.record(row.lane.value, row.length_tokens)
        real = sum(row.length_tokens for row in batch)
        self._rows.observe(len(batch))
        self._padding_ratio.observe(1 - real / padded if padded else 0.0)
        self.rates.record("batches", 1)
        self.rates.record("rows", len(batch))
        for kind, tokens in zip(_TOKENS, (real, padded - real), strict=True):
            self._tokens[kind].inc(tokens)
            self.rates.record(kind, tokens)
        if predicted_s is not None:
            for kind, seconds in zip(_SECONDS, (spent_s, predicted_s), strict=True):
                self._seconds[kind].inc(seconds)
                self.rates.record(kind, seconds)


_TOKENS = ("real", "padding")
_SECONDS = ("measured", "predicted")
