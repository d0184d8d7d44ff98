"""What happened second by second: pure arithmetic over a ledger and a meter's samples."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cortex_stream.loadtest.latency import Latency, summarise
from cortex_stream.loadtest.ledger import Ledger
from cortex_stream.loadtest.meter import Sample
from schemas.priority import Lane


@dataclass(frozen=True, slots=True)
class Second:
    """One second of a run.

    Attributes:
        second: since the first request was sent.
        sent: requests produced in it.
        answered: outcomes appended in it.
        lag: requests without an outcome at its end.
        latency: by lane, of the requests sent in it that were answered, whenever that was.
        rss_bytes: the most that was seen in it; None: no sample fell into it.
        cpu_cores: processor time per second between its samples; None likewise.
    """

    second: int
    sent: int
    answered: int
    lag: int
    latency: Mapping[Lane, Latency]
    rss_bytes: int | None
    cpu_cores: float | None

    def row(self) -> dict[str, object]:
        """Return it flat, for JSON."""
        figures = {
            f"{name} {lane.value} ms": value
            for lane, latency in self.latency.items()
            for name, value in (("p50", latency.p50_ms), ("p99", latency.p99_ms))
        }
        return {
            "second": self.second,
            "sent": self.sent,
            "answered": self.answered,
            "lag": self.lag,
            "rss MB": None if self.rss_bytes is None else self.rss_bytes / 1e6,
            "cpu cores": self.cpu_cores,
            **figures,
        }


def per_second(ledger: Ledger, samples: Sequence[Sample]) -> list[Second]:
    """Return every second from the first request to the last request or outcome."""
    if not ledger.asked:
        return []
    began_ms = min(asked.at_ms for asked in ledger.asked.values())
    sent: dict[int, int] = {}
    answered: dict[int, int] = {}
    latencies: dict[int, dict[Lane, list[float]]] = {}
    for request_id, asked in ledger.asked.items():
        second = (asked.at_ms - began_ms) // 1000
        sent[second] = sent.get(second, 0) + 1
        answer = ledger.answers.get(request_id)
        if answer is None:
            continue
        # The broker's clock may be a millisecond behind: an outcome never precedes its run.
        end = max(0, (answer.append_ms - began_ms) // 1000)
        answered[end] = answered.get(end, 0) + 1
        by_lane = latencies.setdefault(second, {})
        by_lane.setdefault(asked.lane, []).append(answer.append_ms - asked.at_ms)
    return list(_seconds(began_ms, sent, answered, latencies, samples))


def _seconds(
    began_ms: int,
    sent: Mapping[int, int],
    answered: Mapping[int, int],
    latencies: Mapping[int, Mapping[Lane, Sequence[float]]],
    samples: Sequence[Sample],
) -> Iterator[Second]:
    lag = 0
    for second in range(max((*sent, *answered)) + 1):
        lag += sent.get(second, 0) - answered.get(second, 0)
        inside = [each for each in samples if (each.at_ms - began_ms) // 1000 == second]
        spread_ms = inside[-1].at_ms - inside[0].at_ms if inside else 0
        used_s = inside[-1].usage.cpu_s - inside[0].usage.cpu_s if inside else 0.0
        found = {lane: summarise(of) for lane, of in latencies.get(second, {}).items()}
        yield Second(
            second=second,
            sent=sent.get(second, 0),
            answered=answered.get(second, 0),
            lag=lag,
            latency={lane: found[lane] for lane in Lane if (found.get(lane)) is not None},  # type: ignore[misc]
            rss_bytes=max((each.usage.rss_bytes for each in inside), default=None),
            cpu_cores=1000 * used_s / spread_ms if spread_ms else None,
        )
