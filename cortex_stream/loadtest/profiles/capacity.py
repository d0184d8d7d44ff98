"""What a side can do just now: the measure of every load that is a share of it."""

from typing import Final

from cortex_stream.loadtest.corpus import paragraphs
from cortex_stream.loadtest.load import embed_requests
from cortex_stream.loadtest.sides import Bench, Running
from cortex_stream.loadtest.traffic import Poisson, Traffic
from schemas.priority import Lane

_MOST_TEXTS: Final = 2000
_TEXTS_PER_S: Final = 200  # short runs are trials, and need no exact figure
_BURSTS: Final = 2
_MORE: Final = 1.5  # times what a backlog is done at


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


async def open_loop_rate_per_s(
    side: Running, bench: Bench, *, name: str, burst_per_s: float
) -> float:
    """Return the texts per second of an open loop that asks for more than can be done.

    That is less than `burst_per_s`, a backlog's: the driver and the broker write requests all the
    time, where those of a backlog are written at its beginning.
    """
    measured = await side.run(
        [Traffic("more", Poisson(_MORE * burst_per_s), lanes={Lane.MEDIUM: 1})],
        name=name,
        seconds=bench.seconds,
    )
    third_s = bench.seconds / 3  # until the batches are full
    return measured.results_per_s(begins_s=third_s, ends_s=bench.seconds) or burst_per_s
