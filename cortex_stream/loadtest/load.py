"""Requests in numbers."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from schemas.priority import Lane
from schemas.requests import CLASSIFY, EMBED

MIX: Final[Mapping[Lane, float]] = {
    Lane.CRITICAL: 0.1,
    Lane.HIGH: 0.2,
    Lane.MEDIUM: 0.3,
    Lane.LOW: 0.4,
}
"""Shares of the four priorities, as a busy platform has them."""


SOURCE: Final = "//cortex-stream/loadtest"
"""The CloudEvents source of every run: with one each, runs in a row would be tenants beside each
other, and a worker would make room for the run that has just ended."""


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """One request on its way.

    Attributes:
        tenant: who asks; empty: nobody in particular.
        traffic: the name of the traffic that it belongs to.
    """

    request_id: str
    lane: Lane
    value: bytes
    tenant: str = ""
    traffic: str = ""


def request_value(
    *,
    request_id: str,
    request_type: str,
    data: Mapping[str, object],
    attributes: Mapping[str, object] | None = None,
) -> bytes:
    """Return a request CloudEvent in structured JSON; attributes that are None are left out."""
    given = {name: value for name, value in (attributes or {}).items() if value is not None}
    return orjson.dumps(
        {"specversion": "1.0", "id": request_id, "type": request_type, **given, "data": data}
    )


def embed_requests(
    texts: Sequence[str], *, run: str, seed: int, mix: Mapping[Lane, float] = MIX
) -> list[LoadRequest]:
    """Return one embed request per text, in order; lanes are drawn from `mix` by `seed`.

    Ids are `<run>-<index>`, so that a text's answer is found again.
    """
    lanes = _lanes(len(texts), seed=seed, mix=mix)
    return [
        _request(f"{run}-{index}", lane, EMBED, {"texts": [text]})
        for index, (text, lane) in enumerate(zip(texts, lanes, strict=True))
    ]


def classify_requests(
    texts: Sequence[str],
    *,
    labels: Sequence[str],
    run: str,
    seed: int,
    mix: Mapping[Lane, float] = MIX,
) -> list[LoadRequest]:
    """Return one classify request per text, as `embed_requests` does."""
    lanes = _lanes(len(texts), seed=seed, mix=mix)
    return [
        _request(f"{run}-c{index}", lane, CLASSIFY, {"texts": [text], "labels": [*labels]})
        for index, (text, lane) in enumerate(zip(texts, lanes, strict=True))
    ]


def _lanes(count: int, *, seed: int, mix: Mapping[Lane, float]) -> list[Lane]:
    draw = random.Random(seed)  # noqa: S311 (a load, not a secret)
    return draw.choices(list(mix), weights=list(mix.values()), k=count)


def _request(
    request_id: str, lane: Lane, request_type: str, data: Mapping[str, object]
) -> LoadRequest:
    value = request_value(
        request_id=request_id,
        request_type=request_type,
        data=data,
        attributes={"source": SOURCE},
    )
    return LoadRequest(request_id, lane, value)
