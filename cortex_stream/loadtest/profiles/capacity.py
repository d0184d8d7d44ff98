"""What a side can do just now: the measure of every load that is a share of it."""

from typing import Final

from cortex_stream.loadtest.corpus import paragraphs
from cortex_stream.loadtest.load import embed_requests
from cortex_stream.loadtest.sides import Bench, Running
from schemas.priority import Lane

_MOST_TEXTS: Final = 2000
_TEXTS_PER_S: Final = 200  # short runs are trials, and need no exact figure
_BURSTS: Final = 2


async def burst_rate_per_s(side: Running, bench: Bench, *, name: str) -> float:
    """Return the texts per second of the better of two backlogs of paragraphs."""
    texts = paragraphs()[: min(_MOST_TEXTS, round(_TEXTS_PER_S * bench.seconds))]
    rates = []
    for turn in range(_BURSTS):
        requests = embed_requests(
            texts, run=f"{name}-{turn}", seed=bench.seed, mix={Lane.MEDIUM: 1}
        )
        rates.append((await side.burst(requests)).texts_per_s)
    return max(rates)
