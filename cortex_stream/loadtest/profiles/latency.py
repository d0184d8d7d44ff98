"""How long an answer takes while the system is not full: an open loop, ours and other people's."""

from typing import Final

from cortex_stream.errors import OperatorError
from cortex_stream.loadtest.figures import (
    lane_rows,
    load_row,
    method,
    ratio_goal,
    resolved_goal,
    series,
    sides_chart,
)
from cortex_stream.loadtest.profiles.capacity import burst_rate_per_s
from cortex_stream.loadtest.report import Report, Row
from cortex_stream.loadtest.sides import (
    LOOP,
    OURS,
    PEERS,
    Bench,
    Measured,
    Running,
    running,
    unavailable,
)
from cortex_stream.loadtest.traffic import Poisson, Traffic
from schemas.priority import Lane

_HALF: Final = "half"
_FIFTH: Final = "fifth"
_SHARES: Final = {_HALF: 0.5, _FIFTH: 0.2}
_SETTLE_S: Final = 5.0  # a peer that is too slow for the load is not waited for


async def measure_latency(bench: Bench) -> Report:
    """Load each side to a half and a fifth of what the aiokafka loop can do, in one run.

    Where that loop cannot be started, to a half and a fifth of what we can do.

    Raises:
        OperatorError: a worker of ours failed.
    """
    found: dict[tuple[str, str], Measured] = {}
    failures: list[str] = []
    compared = (LOOP, OURS) if bench.peers and LOOP.available() else (OURS,)
    capacity_per_s = 0.0
    for side in compared:
        async with running(bench, side) as started:
            if side is compared[0]:
                capacity_per_s = await burst_rate_per_s(started, bench, name="latency-capacity")
                bench.say(f"{side.title} does {capacity_per_s:.0f} texts/s")
            for load in _SHARES:
                found[side.title, load] = await _run(bench, started, load, capacity_per_s)
    for peer in PEERS if bench.peers else ():
        if not peer.available():
            continue
        try:
            async with running(bench, peer) as started:
                found[peer.title, _FIFTH] = await _run(bench, started, _FIFTH, capacity_per_s)
        except OperatorError as error:  # a peer's failure is no failure of ours
            bench.say(f"{peer.title}: {error}")
            failures.append(f"{peer.title} failed")
    p = {key: each.ledger.latencies()[Lane.MEDIUM] for key, each in found.items()}
    ours, theirs = p[OURS.title, _HALF], p.get((LOOP.title, _HALF))
    peers_p99_ms = [
        p[title, load].p99_ms
        for title, load in found
        if load == _FIFTH and title != OURS.title and not found[title, load].ledger.missing()
    ]
    note = "; ".join(filter(None, [unavailable(PEERS) if bench.peers else "", *failures]))
    return Report(
        profile="latency",
        question="How long does an answer take at half and at a fifth of the load that fills a core?",
        goals=[
            ratio_goal(
                "p50 at half / aiokafka loop's",
                ours.p50_ms,
                theirs.p50_ms if theirs else None,
                at_most=0.5,
            ),
            ratio_goal(
                "p99 at half / aiokafka loop's",
                ours.p99_ms,
                theirs.p99_ms if theirs else None,
                at_most=0.8,
            ),
            ratio_goal(
                "p99 at a fifth / best peer's",
                p[OURS.title, _FIFTH].p99_ms,
                min(peers_p99_ms, default=None),
                at_most=1.0,
                note=note,
            ),
            resolved_goal(found[OURS.title, _HALF], found[OURS.title, _FIFTH]),
        ],
        tables={
            "Latency, ms": _rows(found),
            "Cost": [load_row(title, load, each) for (title, load), each in found.items()],
        },
        method=method(
            bench,
            load=f"open loop, Poisson, paragraphs in one lane; {capacity_per_s:.0f} texts/s is what"
            f" {compared[0].title} does with a backlog just before",
        ),
        series=series({f"{title}, {load}": each for (title, load), each in found.items()}),
        charts={
            load: sides_chart(
                f"Latency at {share:.0%} of {capacity_per_s:.0f} texts/s",
                {title: each for (title, of), each in found.items() if of == load},
            )
            for load, share in _SHARES.items()
        },
    )


async def _run(bench: Bench, side: Running, load: str, capacity_per_s: float) -> Measured:
    traffic = Traffic("steady", Poisson(_SHARES[load] * capacity_per_s))
    ours = side.side is OURS
    measured = await side.run(
        [traffic],
        name=f"latency-{load}",
        seconds=bench.seconds,
        settle_s=None if ours else _SETTLE_S,
    )
    latency = measured.ledger.latencies().get(Lane.MEDIUM)
    if latency is None:
        raise OperatorError(f"measuring latency: {side.side.title} answered nothing")
    bench.say(
        f"{side.side.title:<15} {load:<6} p50 {latency.p50_ms:6.0f} ms  p99 {latency.p99_ms:6.0f} ms"
    )
    return measured


def _rows(found: dict[tuple[str, str], Measured]) -> list[Row]:
    return [row for (title, load), each in found.items() for row in lane_rows(title, load, each)]
