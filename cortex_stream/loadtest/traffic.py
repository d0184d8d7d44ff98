"""Traffic: a stream of load as a value, and the requests and moments that follow from its seed.

Nothing here depends on answers or on a clock: equal traffic and equal seeds give equal requests at
equal moments.
"""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import inf
from types import MappingProxyType
from typing import Final, Literal, TypeVar

from cortex_stream.loadtest.corpus import paragraphs, short_texts
from cortex_stream.loadtest.load import SOURCE, LoadRequest, request_value
from schemas.priority import Lane
from schemas.requests import CLASSIFY, EMBED

Length = Literal["paragraphs", "short"]
T = TypeVar("T")

LABELS: Final = ("numbers", "classes", "debugging", "strings")
"""What classify requests ask about."""


@dataclass(frozen=True, slots=True)
class Poisson:
    """Requests at random moments, independent of each other, as many callers make them."""

    rate_per_s: float


@dataclass(frozen=True, slots=True)
class Even:
    """Requests at equal distances, as a sensor makes them."""

    rate_per_s: float


@dataclass(frozen=True, slots=True)
class Kept:
    """A backlog: whenever fewer requests wait for an answer than these, more are sent."""

    waiting: int


Pace = Poisson | Even | Kept


def _always(value: T) -> Callable[[], Mapping[T, float]]:
    return lambda: MappingProxyType({value: 1.0})


@dataclass(frozen=True, slots=True)
class Traffic:
    """One stream of load. A mix gives each of its values a weight; each request draws its own.

    Attributes:
        name: is part of every request id.
        pace: how often.
        types: CloudEvents types, embed or classify.
        lengths: of the one text that a request has.
        deadlines_ms: budgets; None: the request may wait for ever.
        tenants: who asks; empty: nobody in particular.
        begins_s: seconds after the start of the run.
        ends_s: likewise; the run's own end comes first if it is earlier.
    """

    name: str
    pace: Pace
    lanes: Mapping[Lane, float] = field(default_factory=_always(Lane.MEDIUM))
    types: Mapping[str, float] = field(default_factory=_always(EMBED))
    lengths: Mapping[Length, float] = field(default_factory=_always("paragraphs"))
    deadlines_ms: Mapping[int | None, float] = field(default_factory=_always(None))
    tenants: Mapping[str, float] = field(default_factory=_always(""))
    begins_s: float = 0.0
    ends_s: float = inf


def arrivals(pace: Poisson | Even, *, begins_s: float, ends_s: float, seed: int) -> Iterator[float]:
    """Yield the ascending moments of requests, in seconds, `begins_s` <= moment < `ends_s`."""
    draw = _random(seed)
    due_s = begins_s
    while True:
        even = isinstance(pace, Even)
        due_s += 1 / pace.rate_per_s if even else draw.expovariate(pace.rate_per_s)
        if due_s >= ends_s:
            return
        yield due_s


def requests(traffic: Traffic, *, run: str, seed: int) -> Iterator[LoadRequest]:
    """Yield requests for ever; ids are `<run>-<name>-<index>`."""
    draw = _random(seed)
    lanes, types, lengths = (
        _drawn(draw, mix) for mix in (traffic.lanes, traffic.types, traffic.lengths)
    )
    deadlines, tenants = _drawn(draw, traffic.deadlines_ms), _drawn(draw, traffic.tenants)
    texts = {length: _endless(_corpus(length), seed=seed) for length in traffic.lengths}
    numbers = itertools.count()
    while True:
        index = next(numbers)
        request_id, request_type, tenant = (
            f"{run}-{traffic.name}-{index}",
            next(types),
            next(tenants),
        )
        data: dict[str, object] = {"texts": [next(texts[next(lengths)])]}
        if request_type == CLASSIFY:
            data["labels"] = LABELS
        value = request_value(
            request_id=request_id,
            request_type=request_type,
            data=data,
            attributes={
                "source": SOURCE,
                "tenant": tenant or None,
                "deadlinems": next(deadlines),
            },
        )
        yield LoadRequest(request_id, next(lanes), value, tenant=tenant, traffic=traffic.name)


def _drawn(draw: random.Random, mix: Mapping[T, float]) -> Iterator[T]:
    if len(mix) == 1:  # the usual case, and drawing costs more than all the rest of a request
        return itertools.repeat(*mix)
    values, weights = list(mix), list(itertools.accumulate(mix.values()))
    return (draw.choices(values, cum_weights=weights)[0] for _ in itertools.count())


def _endless(texts: Sequence[str], *, seed: int) -> Iterator[str]:
    """Yield the texts in a random order, and again, numbered, so that no cache can help."""
    draw, order = _random(seed), list(texts)
    draw.shuffle(order)
    yield from order
    turns = itertools.count(1)
    while True:
        turn = next(turns)
        draw.shuffle(order)
        yield from (f"{text} ({turn})" for text in order)


@cache
def _corpus(length: Length) -> tuple[str, ...]:
    return tuple(paragraphs() if length == "paragraphs" else short_texts())


def _random(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 (a load, not a secret)
