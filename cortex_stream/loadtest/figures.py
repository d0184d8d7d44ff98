"""Rows, goals and pictures out of what was measured; what all profiles share."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Final, TypeVar

from cortex_stream.loadtest.latency import Latency
from cortex_stream.loadtest.machine import describe_machine, describe_model
from cortex_stream.loadtest.plot import Line, latency_plot
from cortex_stream.loadtest.report import Bound, Goal, Row
from cortex_stream.loadtest.series import per_second
from cortex_stream.loadtest.sides import Bench, Measured
from schemas.outcomes import OutcomeKind

_Found = TypeVar("_Found")

MAX_RSS_MB: Final = 350.0
LATENCY: Final = (
    "the broker's append time of the outcome (LogAppendTime) minus what the driver's clock said just"
    " before it gave the request to its Kafka client, which does not let it linger; broker and"
    " driver read the same clock, in whole milliseconds; percentiles are measured values"
)


def method(bench: Bench, **own: object) -> dict[str, object]:
    """Return how it was measured: `own` words of the profile, and what they all have."""
    return {
        **own,
        "one measurement": f"{bench.seconds:g} s",
        "texts": "paragraphs or sentences of pydoc_data.topics, one per request",
        "latency": LATENCY,
        "driver": "one event loop in a process of its own, processes measured in another thread",
        "processor time and memory": "of a side's process tree, memory read every 0.5 s",
        "model": describe_model(bench.model),
        "cores per side": bench.cores,
        "seed": str(bench.seed),
        "commit interval": f"{bench.settings.kafka.commit_interval_s:g} s",
        **describe_machine(),
    }


def load_row(side: str, load: str, measured: Measured) -> dict[str, object]:
    """Return one row of what a load cost a side.

    `per s` are answers from the first produce time to the last append time, `CPU ms` is that of the
    side per answer, `cores` what it and `others` what the rest of the machine kept busy, `stolen` what
    the hypervisor took away, `RSS MB` its peak memory, `late ms` the p99 of how late the driver sent.
    """
    ledger, late = measured.ledger, measured.ledger.lateness_ms()
    return {
        "side": side,
        "load": load,
        "requests": ledger.sent_count,
        "results": ledger.kinds()[OutcomeKind.RESULT],
        "expired": ledger.kinds()[OutcomeKind.EXPIRED],
        "missing": ledger.sent_count - len(ledger.answers),
        "repeated": ledger.repetitions,
        "conflicting": len(ledger.contradictions),
        "per s": measured.texts_per_s,
        "CPU ms": measured.cpu_ms_per_text,
        "cores": measured.cores,
        "others": measured.other_cores,
        "stolen": measured.stolen_cores,
        "RSS MB": measured.peak_rss_bytes / 1e6,
        "late ms": None if late is None else late.p99_ms,
    }


def latency_row(side: str, load: str, who: str, latency: Latency | None) -> dict[str, object]:
    """Return one row of latencies in milliseconds; of nothing if there were none."""
    found = latency or Latency(0, *[float("nan")] * 5)
    values = (found.p50_ms, found.p95_ms, found.p99_ms, found.p999_ms, found.max_ms)
    names = ("p50", "p95", "p99", "p99.9", "longest")
    shown = [None if latency is None else value for value in values]
    return {
        "side": side,
        "load": load,
        "of": who,
        "samples": found.count,
        **dict(zip(names, shown, strict=True)),
    }


def lane_rows(side: str, load: str, measured: Measured) -> list[Row]:
    """Return a row of latencies per lane."""
    return [
        latency_row(side, load, lane.value, latency)
        for lane, latency in measured.ledger.latencies().items()
    ]


def lane_lines(measured: Measured, *, prefix: str = "") -> list[Line]:
    """Return p50 and p99 over time of each lane."""
    seconds = per_second(measured.ledger, measured.samples)
    lanes = list(dict.fromkeys(lane for second in seconds for lane in second.latency))
    return [
        Line(
            f"{prefix}{lane.value}",
            [
                (each.second, each.latency[lane].p50_ms if dashed else each.latency[lane].p99_ms)
                for each in seconds
                if lane in each.latency
            ],
            dashed=dashed,
        )
        for lane in lanes
        for dashed in (False, True)
    ]


def lane_chart(title: str, measured: Measured) -> str:
    """Return the latency of each lane over time."""
    return latency_plot(title, lane_lines(measured))


def sides_chart(title: str, measured: Mapping[str, Measured]) -> str:
    """Return the latency of each side over time; each had one lane."""
    lines = [
        Line(side, line.points, dashed=line.dashed)
        for side, each in measured.items()
        for line in lane_lines(each)
    ]
    return latency_plot(title, lines)


def series(measured: Mapping[str, Measured]) -> dict[str, Sequence[Row]]:
    """Return the figures per second of each run."""
    return {
        name: [second.row() for second in per_second(each.ledger, each.samples)]
        for name, each in measured.items()
    }


def median_of(figures: Iterable[float | None]) -> float | None:
    """Return the median of those that were measured; None if none was."""
    known = [each for each in figures if each is not None]
    return median(known) if known else None


def turn_ratios(
    figure: Callable[[_Found], float | None],
    ours: Mapping[int, _Found],
    theirs: Mapping[int, _Found],
) -> list[float]:
    """Return the figure of ours over that of theirs, for each turn in which both have it.

    Of each turn by itself: what slows the machine for minutes then slows both sides alike.
    """
    pairs = ((figure(ours[turn]), figure(theirs[turn])) for turn in ours if turn in theirs)
    return [own / other for own, other in pairs if own is not None and other]


def turns_goal(
    what: str, ratios: Sequence[float], bound: Bound, limit: float, note: str = ""
) -> Goal:
    """Return the goal for the median of the turns' ratios; all of them stand in its note."""
    by_turn = f"by turn {', '.join(f'{ratio:.2f}' for ratio in ratios)}" if ratios else ""
    return Goal(what, median_of(ratios), bound, limit, "; ".join(filter(None, [by_turn, note])))


def resolved_goal(*measured: Measured) -> Goal:
    """Return the goal that every request of ours has exactly one outcome, a result."""
    wrong = sum(each.ledger.unresolved() for each in measured)
    return Goal("requests of ours without exactly one result", float(wrong), "at most", 0)


def rss_goal(*measured: Measured) -> Goal:
    """Return the goal for a worker's memory."""
    peak_mb = max(each.peak_rss_bytes for each in measured) / 1e6
    return Goal("peak RSS of the worker, MB", peak_mb, "at most", MAX_RSS_MB)


def enough(samples: int, wanted: int) -> str:
    """Return a note if there are fewer samples than the goal asks for."""
    return f"{samples:,} of {wanted:,} samples" if samples < wanted else f"{samples:,} samples"
