from math import inf

import pytest

from cortex_stream.loadtest.figures import (
    enough,
    lane_lines,
    lane_rows,
    resolved_goal,
    turn_ratios,
    turns_goal,
)
from cortex_stream.loadtest.ledger import Ledger
from cortex_stream.loadtest.load import LoadRequest
from cortex_stream.loadtest.meter import Sample, Usage
from cortex_stream.loadtest.profiles.overload import normal_after_s
from cortex_stream.loadtest.series import per_second
from cortex_stream.loadtest.sides import LOOP, OURS, PEERS, Measured, Side, unavailable
from schemas.priority import Lane


def measured(*latencies_ms: int, every_ms: int = 1000, lane: Lane = Lane.MEDIUM) -> Measured:
    """Return a run with a request in each step that was answered after so long; 0: never."""
    ledger = Ledger()
    for index, latency_ms in enumerate(latencies_ms):
        at_ms = 50_000 + index * every_ms
        ledger.sent(LoadRequest(f"{index}", lane, b""), at_ms=at_ms)
        if latency_ms:
            ledger.arrived(b"{}", append_ms=at_ms + latency_ms, key=b"%d" % index)
    samples = [Sample(50_000, Usage(1, 1), 10, 5), Sample(54_000, Usage(3, 1), 13, 6)]
    return Measured(ledger, cpu_s=2.0, peak_rss_bytes=1, samples=samples)


def test_results_are_counted_in_the_part_of_the_run_that_is_asked_for() -> None:
    run = measured(500, 500, 500, 500)  # answered 0.5, 1.5, 2.5 and 3.5 s after the first request

    assert run.results_per_s(begins_s=1, ends_s=3) == 1.0
    assert run.texts_per_s == pytest.approx(4 / 3.5)
    assert run.cpu_ms_per_text == 500


def test_results_that_took_too_long_do_not_count_where_they_must_be_in_time() -> None:
    run = measured(500, 501, 499, 0)

    assert run.results_per_s(begins_s=0, ends_s=4, within_ms=500) == 2 / 4


def test_processors_are_those_of_the_side_and_of_all_others() -> None:
    run = measured(
        500
    )  # in 4 s the side used 2 s of processor time, the machine 3, and 1 was stolen

    assert run.cores == 0.5
    assert run.other_cores == 0.25
    assert run.stolen_cores == 0.25


def test_a_run_without_answers_has_no_rate_and_no_division_by_zero() -> None:
    run = measured(0, 0)

    assert (run.texts_per_s, run.results_per_s(begins_s=0, ends_s=1)) == (0, 0)
    assert lane_rows("side", "load", run) == []
    assert resolved_goal(run).measured == 2


def test_ratios_are_taken_within_the_turns_that_both_sides_had() -> None:
    ours: dict[int, list[float]] = {1: [60.0], 2: [10.0], 3: [90.0], 4: [], 5: [7.0]}
    theirs: dict[int, list[float]] = {1: [100.0], 3: [300.0], 4: [5.0], 5: [0.0]}

    ratios = turn_ratios(lambda found: sum(found) if found else None, ours, theirs)

    assert ratios == [0.6, 0.3]


def test_the_goal_of_turns_is_the_median_of_their_ratios_and_names_them_all() -> None:
    goal = turns_goal("x", [0.4, 0.9, 0.6], "at most", 0.5, "of a peer")

    assert (goal.measured, goal.verdict) == (0.6, "missed")
    assert goal.note == "by turn 0.40, 0.90, 0.60; of a peer"
    assert turns_goal("x", [], "at least", 1.0, "why").row()["note"] == "why"
    assert turns_goal("x", [], "at least", 1.0).verdict == "not measured"


def test_too_few_samples_are_told() -> None:
    assert enough(40, 1000) == "40 of 1,000 samples"
    assert enough(1200, 1000) == "1,200 samples"


def test_each_lane_has_a_line_of_its_median_and_one_of_its_tail() -> None:
    lines = lane_lines(measured(5, 7, lane=Lane.LOW))

    assert [(line.label, line.dashed) for line in lines] == [("low", False), ("low", True)]
    assert list(lines[0].points) == [(0, 5), (1, 7)]


@pytest.mark.parametrize(
    ("after_ms", "normal_s"),
    [
        ([10, 12, 11, 10, 10], 0.0),
        ([900, 500, 10, 10, 10], 2.0),
        ([900, 10, 500, 10, 10], 3.0),  # not normal while it still comes back
        ([900, 900, 900, 900, 900], inf),  # missed, not unmeasured
    ],
)
def test_normal_is_when_the_usual_latency_is_back_for_good(
    after_ms: list[int], normal_s: float
) -> None:
    run = measured(*[10] * 10, *[2000] * 5, *after_ms)

    seconds = per_second(run.ledger, run.samples)

    assert normal_after_s(seconds, ends_s=15) == normal_s


def test_without_a_before_nothing_can_be_normal() -> None:
    assert normal_after_s([], ends_s=15) is None


def test_a_side_that_lacks_its_package_is_named() -> None:
    missing = Side("Nobody", "nobody", "aiokafka_loop", peer=True, needs="no_such_package")

    assert OURS.available()
    assert not missing.available()
    assert not Side("x", "x", "no_such_module", peer=True).available()
    assert unavailable([missing, OURS]) == "not installed: Nobody (the extra `bench`)"
    assert unavailable([OURS]) == ""


def test_sides_share_no_topics() -> None:
    keys = [side.key for side in (OURS, LOOP, *PEERS)]

    assert len(keys) == len(set(keys))
