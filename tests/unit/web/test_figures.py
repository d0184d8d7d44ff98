"""Numbers as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.web import figures
from cortex_stream.web.status import PartitionStatus, ServiceState
from tests.unit.web import snapshots


@pytest.mark.parametrize(
    ("value", "text"), [(None, "\u2013"), (0, "0"), (999, "999"), (1_204_113, "1 204 113")]
)
def test_counts_are_grouped(value: int | None, text: str) -> None:
    assert figures.count(value).replace("\u202f", " ") == text


@pytest.mark.parametrize(
    ("per_s", "text"),
    [(0, "0"), (0.01, "<0.1"), (0.26, "0.3"), (3.44, "3.4"), (41.7, "42"), (1204, "1 204")],
)
def test_rates_have_no_more_digits_than_matter(per_s: float, text: str) -> None:
    assert figures.rate(per_s).replace("\u202f", " ") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.085, "85 ms"),
        (1.24, "1.2 s"),
        (3.0, "3 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (190, "3 min 10 s"),
        (187_422, "2 d 4 h"),
        (86_400, "1 d"),
    ],
)
def test_durations_have_their_two_largest_units(seconds: float, text: str) -> None:
    assert figures.duration(seconds).replace("\u202f", " ") == text


@pytest.mark.parametrize(
    ("part", "text"), [(0, "0 %"), (0.0001, "<1 %"), (0.118, "12 %"), (1, "100 %")]
)
def test_more_than_nothing_is_never_shown_as_nothing(part: float, text: str) -> None:
    assert figures.percent(part).replace("\u202f", " ") == text


@given(st.lists(st.floats(0, 1e9), min_size=2, max_size=100))
def test_a_sparkline_stays_inside_its_box(values: list[float]) -> None:
    points = [
        tuple(map(float, p.split(",")))
        for p in figures.sparkline(values, width=240, height=32).split()
    ]

    assert len(points) == len(values)
    assert all(0 <= x <= 240.05 and 0.95 <= y <= 31.05 for x, y in points)


@pytest.mark.parametrize("values", [(), (1.0,)])
def test_fewer_than_two_values_have_no_line(values: tuple[float, ...]) -> None:
    assert figures.sparkline(values, width=240, height=32) == ""


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_a_share_is_always_a_share(part: float, whole: float) -> None:
    assert 0 <= figures.share(part, whole) <= 1


def test_partitions_are_grouped_with_the_lag_that_is_known() -> None:
    def partition(topic: str, number: int, lag: int | None) -> PartitionStatus:
        return PartitionStatus(
            topic=topic, partition=number, position=None, committed=None, highwater=None, lag=lag
        )

    groups = figures.by_topic(
        [partition("b", 1, 5), partition("a", 0, None), partition("b", 0, None)]
    )

    assert [(topic, lag) for topic, lag, _ in groups] == [("a", None), ("b", 5)]
    assert [p.partition for p in groups[1][2]] == [0, 1]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (snapshots.busy(), "Answering 241 requests a second."),
        (snapshots.fresh(), "Ready, and idle."),
        (snapshots.failing(), "Not taking work."),
        (snapshots.in_state(ServiceState.STARTING), "Starting."),
        (snapshots.in_state(ServiceState.DRAINING), "Finishing what runs."),
    ],
)
def test_the_headline_says_what_is_going_on(source: snapshots.FixedSource, sentence: str) -> None:
    assert figures.headline(source.snapshot())[0] == sentence


def test_the_headline_of_a_busy_worker_tells_the_longest_wait() -> None:
    quieter = figures.headline(snapshots.busy().snapshot())[1].replace("\u202f", " ")

    assert quieter == "35 running, 7 218 waiting, the oldest for 3 min 10 s."
