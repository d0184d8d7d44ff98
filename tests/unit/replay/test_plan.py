"""Bounds, ranges, and a plan that survives being written down."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.errors import OperatorError
from cortex_stream.replay.plan import (
    MAX_AHEAD_MS,
    Bound,
    Found,
    Moment,
    Offsets,
    Partition,
    Range,
    ReplayPlan,
    check_replay_id,
    decide_ranges,
    draft_plan,
    expired_records,
    parse_bound,
    read_plan_or_none,
)

NOW_MS = 1_700_000_000_000


def a_plan(**changed: object) -> ReplayPlan:
    options: dict[str, object] = {
        "topic": "cortex.requests.medium",
        "asked_from": "earliest",
        "asked_to": "latest",
        "started_unix_ms": NOW_MS,
    }
    return draft_plan(**{**options, **changed})


def ranges(begin: Bound, end: Bound, **partition: object) -> tuple[Range, ...]:
    """Return the ranges of one partition."""
    present = Partition(begins=100, ends=200)
    for name, value in partition.items():
        present = Partition(
            **{field: getattr(present, field) for field in ("begins", "ends", "first", "last")}
            | {name: value}
        )
    return decide_ranges(begin, end, {0: present}, now_unix_ms=NOW_MS)


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("earliest", "earliest"),
        ("latest", "latest"),
        ("0:1500,3:9", Offsets({0: 1500, 3: 9})),
        ("2023-11-14T22:13:20Z", Moment(NOW_MS)),
        ("2023-11-14T23:13:20.5+01:00", Moment(NOW_MS + 500)),
        ("1969-01-01T00:00:00Z", Moment(0)),
    ],
)
def test_a_bound_is_an_edge_a_time_or_offsets_by_partition(text: str, bound: Bound) -> None:
    assert parse_bound(text, option="--from") == bound


@pytest.mark.parametrize("text", ["", "yesterday", "1500", "0:x", "2023-11-14T22:13:20", "0:1,"])
def test_another_bound_is_refused_with_what_is_wanted(text: str) -> None:
    with pytest.raises(OperatorError, match=r"reading --to .*wanted earliest"):
        parse_bound(text, option="--to")


def test_the_edges_are_what_is_kept() -> None:
    assert ranges("earliest", "latest") == (Range(0, 100, 200),)


@pytest.mark.parametrize(("begin", "end"), [("latest", "latest"), ("earliest", "earliest")])
def test_a_partition_with_nothing_between_the_bounds_is_left_out(begin: Bound, end: Bound) -> None:
    assert ranges(begin, end) == ()


def test_offsets_are_kept_within_what_the_partition_has() -> None:
    assert ranges(Offsets({0: 3}), Offsets({0: 900})) == (Range(0, 100, 200),)
    assert ranges(Offsets({0: 150}), Offsets({0: 160})) == (Range(0, 150, 160),)


def test_partitions_that_a_beginning_leaves_out_are_not_read_and_an_end_may_leave_some_out() -> (
    None
):
    partitions = {0: Partition(begins=0, ends=9), 1: Partition(begins=0, ends=9)}

    found = decide_ranges(Offsets({1: 4}), Offsets({0: 5}), partitions, now_unix_ms=NOW_MS)

    assert found == (Range(1, 4, 9),)


def test_a_partition_that_there_is_not_is_refused() -> None:
    with pytest.raises(OperatorError, match="no partition 7; it has 1"):
        ranges(Offsets({7: 1}), "latest")


def test_a_time_begins_at_the_first_record_since_and_nowhere_if_there_is_none() -> None:
    assert ranges(Moment(5), "latest", first=Found(120, 7)) == (Range(0, 120, 200),)
    assert ranges(Moment(5), "latest") == ()


def test_a_time_ends_at_the_record_found_behind_it_unless_that_comes_from_the_future() -> None:
    behind, ahead = Found(150, NOW_MS + MAX_AHEAD_MS), Found(150, NOW_MS + MAX_AHEAD_MS + 1)

    assert ranges("earliest", Moment(5), last=behind) == (Range(0, 100, 150),)
    assert ranges("earliest", Moment(5), last=ahead) == (Range(0, 100, 200),)
    assert ranges("earliest", Moment(5)) == (Range(0, 100, 200),)


def test_offsets_asked_for_that_are_kept_no_longer_are_counted() -> None:
    partitions = {0: Partition(begins=100, ends=200), 1: Partition(begins=0, ends=9)}

    assert expired_records(Offsets({0: 40, 1: 3}), partitions) == 60
    assert expired_records("earliest", partitions) == 0


@given(
    begin=st.one_of(
        st.sampled_from(["earliest", "latest"]), st.builds(Moment, st.integers(0, 2**40))
    ),
    begins=st.integers(0, 1000),
    length=st.integers(0, 1000),
    first=st.none() | st.integers(0, 1000),
)
def test_a_range_lies_within_what_is_kept(
    begin: Bound, begins: int, length: int, first: int | None
) -> None:
    partition = Partition(
        begins=begins,
        ends=begins + length,
        first=None if first is None else Found(begins + min(first, length), 0),
    )

    found = decide_ranges(begin, "latest", {0: partition}, now_unix_ms=NOW_MS)

    assert all(begins <= each.begin < each.end <= begins + length for each in found)


def test_a_plan_is_read_as_it_was_written() -> None:
    plan = a_plan(
        types=("cortex.nlp.embed.v1",),
        filters=(("tenant", "acme"),),
        model="minilm@2",
        rate_per_s=50.0,
        publish_to="results",
    ).model_copy(update={"ranges": (Range(0, 5, 9), Range(2, 0, 1)), "since_ms": 3})

    assert read_plan_or_none(plan.note()) == plan
    assert plan.offsets == 5


@pytest.mark.parametrize("note", ["", "{}", '{"version":2}', "someone else's"])
def test_the_note_of_somebody_else_is_no_plan(note: str) -> None:
    assert read_plan_or_none(note) is None


def test_a_plan_that_kafka_would_not_take_is_refused() -> None:
    plan = a_plan(types=tuple("x" * 200 for _ in range(20)))

    with pytest.raises(OperatorError, match="Kafka takes 4096"):
        plan.note()


def test_another_rate_is_the_same_replay_and_another_model_is_not() -> None:
    assert a_plan().differences(a_plan(rate_per_s=5.0)) == []
    assert a_plan().differences(a_plan(model="minilm@2", asked_to="0:5")) == ["--to", "--model"]


def test_a_wrong_option_is_named() -> None:
    with pytest.raises(OperatorError, match="reading --model"):
        a_plan(model="No Model!")


@pytest.mark.parametrize("name", ["a", "nightly-2026.01_31", "x" * 48])
def test_a_replay_id_may_be_part_of_a_groups_name(name: str) -> None:
    assert check_replay_id(name) == name


@pytest.mark.parametrize("name", ["", "../x", "A", "-x", "x" * 49, "a b", "a\n"])
def test_another_replay_id_is_refused(name: str) -> None:
    with pytest.raises(OperatorError, match="naming the replay"):
        check_replay_id(name)
