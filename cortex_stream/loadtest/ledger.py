"""What was asked and what came back: every request exactly one outcome, and how long it took.

Owner: the event loop of the driver.
"""

import base64
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import orjson

from cortex_stream.errors import InvariantError
from cortex_stream.loadtest.latency import Latency, summarise
from cortex_stream.loadtest.load import LoadRequest
from schemas.outcomes import OutcomeKind
from schemas.priority import Lane

Vectors = npt.NDArray[np.float32]
K = TypeVar("K")

KIND_BY_TYPE: Final = {kind.type: kind for kind in OutcomeKind}
"""The kind of an outcome by its CloudEvents type."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was sent. Times are Unix milliseconds.

    Attributes:
        due_ms: when the load wanted it to be sent.
        at_ms: when it was.
    """

    lane: Lane
    tenant: str
    traffic: str
    due_ms: float
    at_ms: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The first outcome of a request. `outcome_id` is None where a peer gives none."""

    outcome_id: str | None
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
        self._waiting: Counter[str] = Counter()
        self.asked: dict[str, Asked] = {}
        self.answers: dict[str, Answer] = {}
        self.repetitions = 0
        self.contradictions: list[str] = []

    def sent(self, request: LoadRequest, *, at_ms: int, due_ms: float | None = None) -> None:
        """Note a request that is about to be produced at this time."""
        self.asked[request.request_id] = Asked(
            request.lane,
            request.tenant,
            request.traffic,
            at_ms if due_ms is None else due_ms,
            at_ms,
        )
        self._waiting[request.traffic] += 1

    def arrived(self, value: bytes, *, append_ms: int, key: bytes | None = None) -> str | None:
        """Note a record of the results topic.

        Ours names its request in `subject`; of a record without one the key counts. A record
        without a type is a result, for peers know no other kind.

        Returns:
            The id of the request if this is its first outcome, else None.
        """
        event = orjson.loads(value)
        request_id = event.get("subject") or (key or b"").decode(errors="replace")
        asked = self.asked.get(request_id)
        if asked is None:
            return None
        kind = KIND_BY_TYPE[event["type"]] if "type" in event else OutcomeKind.RESULT
        known = self.answers.get(request_id)
        if known is None:
            kept = event if self._keep_events else None
            self.answers[request_id] = Answer(event.get("id"), kind, append_ms, kept)
            self._waiting[asked.traffic] -= 1
            return str(request_id)
        if (known.outcome_id, known.kind) == (event.get("id"), kind):
            self.repetitions += 1  # a second delivery: allowed, and ignored by every reader
        else:
            self.contradictions.append(request_id)
        return None

    def waiting(self, traffic: str) -> int:
        """Return how many requests of a traffic have no outcome yet."""
        return self._waiting[traffic]

    @property
    def sent_count(self) -> int:
        """How many requests were sent."""
        return len(self.asked)

    @property
    def complete(self) -> bool:
        """Whether every request sent so far is answered."""
        return len(self.answers) == len(self.asked)

    def missing(self) -> list[str]:
        """Return the ids of requests without an outcome, in the order in which they were sent."""
        return [request_id for request_id in self.asked if request_id not in self.answers]

    def kinds(self) -> Counter[OutcomeKind]:
        """Count the outcomes by kind, in the order of the kinds."""
        found = Counter(answer.kind for answer in self.answers.values())
        return Counter({kind: found[kind] for kind in OutcomeKind if kind in found})

    def unresolved(self) -> int:
        """Return how many requests do not have exactly one outcome, a result."""
        results = self.kinds()[OutcomeKind.RESULT]
        return self.sent_count - results + len(set(self.contradictions))

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
        if not self.asked or not self.answers:
            return 0.0
        first_ms = min(asked.at_ms for asked in self.asked.values())
        return (max(answer.append_ms for answer in self.answers.values()) - first_ms) / 1000

    def latencies(self) -> dict[Lane, Latency]:
        """Return the latency of the answered requests by lane, most urgent first."""
        by_lane = self.latencies_by(lambda asked: asked.lane)
        return {lane: by_lane[lane] for lane in Lane if lane in by_lane}

    def latencies_by(
        self, key: Callable[[Asked], K], *, kinds: Collection[OutcomeKind] = tuple(OutcomeKind)
    ) -> dict[K, Latency]:
        """Return the latency of the requests that were answered so, by any of their attributes."""
        grouped: dict[K, list[float]] = {}
        for request_id, answer in self.answers.items():
            if answer.kind in kinds:
                asked = self.asked[request_id]
                grouped.setdefault(key(asked), []).append(answer.append_ms - asked.at_ms)
        summaries = {group: summarise(values) for group, values in grouped.items()}
        return {group: summary for group, summary in summaries.items() if summary is not None}

    def lateness_ms(self) -> Latency | None:
        """Return how long after their due time requests were sent; None if nothing was."""
        return summarise(max(0.0, asked.at_ms - asked.due_ms) for asked in self.asked.values())


def vectors_of(output: Mapping[str, Any]) -> Vectors:
    """Return the vectors of an embed output, shape `(texts, dims)`."""
    if output.get("encoding_format", "base64") == "base64":
        joined = b"".join(base64.b64decode(vector) for vector in output["vectors"])
        return np.frombuffer(joined, "<f4").reshape(len(output["vectors"]), -1)
    return np.asarray(output["vectors"], np.float32)
