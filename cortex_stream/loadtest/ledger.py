"""What was asked and what came back: every request exactly one outcome, and how long it took.

Owner: the event loop of the driver.
"""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from cortex_stream.errors import InvariantError
from schemas.outcomes import OutcomeKind
from schemas.priority import Lane

Vectors = npt.NDArray[np.float32]

KIND_BY_TYPE: Final = {kind.type: kind for kind in OutcomeKind}
"""The kind of an outcome by its CloudEvents type."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from the produce time to the broker's append time of the outcome."""

    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Answer:
    """The first outcome of a request."""

    outcome_id: str
    kind: OutcomeKind
    append_ms: int
    event: Mapping[str, Any] | None


class Ledger:
    """Matches outcomes with requests. Outcomes of other people's requests are ignored.

    Args:
        keep_events: keep the parsed outcome of every request, vectors included (about 3 KB each).
    """

    def __init__(self, *, keep_events: bool = False) -> None:
        self._keep_events = keep_events
        self._sent: dict[str, tuple[Lane, int]] = {}
        self.answers: dict[str, Answer] = {}
        self.repetitions = 0
        self.contradictions: list[str] = []

    def sent(self, request_id: str, *, lane: Lane, at_ms: int) -> None:
        """Note a request that is about to be produced at this time (Unix milliseconds)."""
        self._sent[request_id] = (lane, at_ms)

    def arrived(self, value: bytes, *, append_ms: int) -> str | None:
        """Note a record of the results topic.

        Returns:
            The id of the request if this is its first outcome, else None.
        """
        event = orjson.loads(value)
        request_id = event.get("subject")
        if request_id not in self._sent:
            return None
        known = self.answers.get(request_id)
        if known is None:
            self.answers[request_id] = Answer(
                event["id"],
                KIND_BY_TYPE[event["type"]],
                append_ms,
                event if self._keep_events else None,
            )
            return str(request_id)
        if known.outcome_id == event["id"]:
            self.repetitions += 1  # a second delivery: allowed, and ignored by every reader
        else:
            self.contradictions.append(request_id)
        return None

    @property
    def sent_count(self) -> int:
        """How many requests were sent."""
        return len(self._sent)

    @property
    def complete(self) -> bool:
        """Whether every request sent so far is answered."""
        return len(self.answers) == len(self._sent)

    def missing(self) -> list[str]:
        """Return the ids of requests without an outcome, in the order in which they were sent."""
        return [request_id for request_id in self._sent if request_id not in self.answers]

    def kinds(self) -> Counter[OutcomeKind]:
        """Count the outcomes by kind."""
        return Counter(answer.kind for answer in self.answers.values())

    def vectors(self, run: str, count: int) -> Vectors:
        """Return the vectors of the embed requests `<run>-0` and on, one row each.

        The ledger keeps events, and all of them are answered by a result.
        """
        rows = []
        for index in range(count):
            event = self.answers[f"{run}-{index}"].event
            if event is None:
                raise InvariantError("this ledger keeps no events; this is a bug")
            rows.append(vectors_of(event["data"]["output"])[0])
        return np.stack(rows)

    def elapsed_s(self) -> float:
        """Return the seconds from the first produce time to the last append time; 0 if neither."""
        if not self._sent or not self.answers:
            return 0.0
        first_ms = min(at_ms for _, at_ms in self._sent.values())
        return (max(answer.append_ms for answer in self.answers.values()) - first_ms) / 1000

    def latencies(self) -> dict[Lane, Latency]:
        """Return the latency of the answered requests by lane, most urgent first."""
        by_lane: dict[Lane, list[float]] = {lane: [] for lane in Lane}
        for request_id, answer in self.answers.items():
            lane, at_ms = self._sent[request_id]
            by_lane[lane].append(answer.append_ms - at_ms)
        return {lane: _latency(sorted(values)) for lane, values in by_lane.items() if values}


def vectors_of(output: Mapping[str, Any]) -> Vectors:
    """Return the vectors of an embed output, shape `(texts, dims)`."""
    if output["encoding_format"] == "base64":
        joined = b"".join(base64.b64decode(vector) for vector in output["vectors"])
        return np.frombuffer(joined, "<f4").reshape(-1, output["dims"])
    return np.asarray(output["vectors"], np.float32)


def percentile(ascending: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values do not exceed."""
    return ascending[max(ceil(share * len(ascending)) - 1, 0)]


def _latency(ascending: Sequence[float]) -> Latency:
    return Latency(
        count=len(ascending),
        p50_ms=percentile(ascending, 0.50),
        p95_ms=percentile(ascending, 0.95),
        p99_ms=percentile(ascending, 0.99),
        max_ms=ascending[-1],
    )
